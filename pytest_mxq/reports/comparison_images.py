"""The image that goes with an accuracy verdict: reference, quantized and four times their difference in one PNG."""

import math
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mxq.errors import MxqError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

GAIN = 4
"""What the difference is multiplied by: quantization noise becomes visible, and stays in proportion up to 63 levels."""

MIN_TILE = 256
"""Narrower images are enlarged to at least this many pixels, so that the labels fit over them."""

_PAPER, _INK, _MUTED = "#ffffff", "#1f2328", "#59636e"


class ComparisonError(MxqError):
    """Two images that cannot be laid side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Lengths in pixels, all from the tile's width."""

    tile: tuple[int, int]
    font: "FreeTypeFont | ImageFont"
    margin: int
    line: int

    @property
    def width(self) -> int:
        return 3 * self.tile[0] + 4 * self.margin

    def left(self, column: int) -> int:
        return self.margin + column * (self.tile[0] + self.margin)

    def block(self, lines: list[str]) -> int:
        """Return the height of some lines of text with the margin under them."""
        return len(lines) * self.line + self.margin if lines else 0


def write_comparison(path: Path, *, reference: "Image", quantized: "Image", label: str, caption: str) -> None:
    """Write ``reference | quantized | 4 x difference`` with labels above and a caption below as one PNG.

    The difference is ``min(255, 4 |a - b|)`` by channel, on black. Images narrower than 256 pixels are enlarged by a
    whole factor without smoothing, and the labels say so; all others are shown pixel by pixel. The file appears whole
    or not at all.

    Args:
        path: the PNG to write; missing folders are made.
        reference: the BF16 image.
        quantized: the image of the quantized arm, of the same size.
        label: what stands above it: the format, and whether it was emulated.
        caption: what stands below: the prompt and its distance. Line breaks are kept. Pillow's own font knows little
            more than ASCII: other letters are generated as boxes.

    Raises:
        ComparisonError: the two images differ in size.
    """
    if reference.size != quantized.size:
        raise ComparisonError(
            f"the reference image is {reference.width}x{reference.height} pixels and the quantized one "
            f"{quantized.width}x{quantized.height}; nothing is resized. Refresh the baseline or fix the workload."
        )
    _save(_compose(reference.convert("RGB"), quantized.convert("RGB"), label, caption), path)


def _compose(reference: "Image", quantized: "Image", label: str, caption: str) -> "Image":
    from PIL import Image, ImageDraw

    factor = math.ceil(MIN_TILE / reference.width)
    layout = _layout(reference.width * factor, reference.height * factor)
    shown = f", shown {factor}x" if factor > 1 else ""
    labels = [f"{text}{shown}" for text in ("BF16 reference", label, f"difference x{GAIN}")]
    headers = [_wrap(text, layout.tile[0], layout.font) for text in labels]
    below = _wrap(caption, layout.width - 2 * layout.margin, layout.font)
    top = layout.margin + layout.block(max(headers, key=len))
    height = top + layout.tile[1] + layout.margin + layout.block(below)

    sheet = Image.new("RGB", (layout.width, height), _PAPER)
    canvas = ImageDraw.Draw(sheet)
    for column, image in enumerate((reference, quantized, _difference(reference, quantized))):
        sheet.paste(image.resize(layout.tile, Image.Resampling.NEAREST), (layout.left(column), top))
        _write(canvas, layout, (layout.left(column), layout.margin), headers[column], _INK)
    _write(canvas, layout, (layout.margin, top + layout.tile[1] + layout.margin), below, _MUTED)
    return sheet


def _layout(width: int, height: int) -> _Layout:
    from PIL import ImageFont

    size = round(14 * math.sqrt(width / MIN_TILE))  # 14 pixels over a tile of 256, 28 over one of 1024
    font = ImageFont.load_default(size)
    return _Layout(tile=(width, height), font=font, margin=size * 6 // 7, line=size * 9 // 7)


def _difference(reference: "Image", quantized: "Image") -> "Image":
    from PIL import ImageChops

    return ImageChops.difference(reference, quantized).point([min(255, GAIN * value) for value in range(256)] * 3)


def _wrap(text: str, width: int, font: "FreeTypeFont | ImageFont") -> list[str]:
    """Return the text in lines of at most ``width`` pixels; words longer than a line are cut."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        columns = len(paragraph) or 1
        while any(font.getlength(line) > width for line in textwrap.wrap(paragraph, columns)) and columns > 1:
            columns -= 1
        lines += textwrap.wrap(paragraph, columns) or [""]
    return lines


def _write(canvas: "ImageDraw", layout: _Layout, at: tuple[int, int], lines: list[str], colour: str) -> None:
    for row, line in enumerate(lines):
        canvas.text((at[0], at[1] + row * layout.line), line, fill=colour, font=layout.font)


def _save(sheet: "Image", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        sheet.save(unfinished, format="PNG")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
