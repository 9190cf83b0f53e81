"""The image that goes with an accuracy verdict: reference, quantized and four times their difference in one PNG."""

import math
import os
import string
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mxq.errors import MxqError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

GAIN = 4
"""What the difference is multiplied by: quantization noise becomes visible, and stays in proportion up to 63 levels."""

MIN_TILE = 256
"""Narrower images are enlarged to at least this many pixels, so that the labels fit over them."""

MAX_JPEG = 1024
"""Pixels of the longer side of a compressed copy."""

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


# Fonts with Chinese, Japanese and Korean letters, as Debian, Fedora and Ubuntu install them; Pillow searches for them.
_WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf")

_MAX_PROMPT = 400
"""Letters of a prompt that a sheet shows; the report holds all of them."""


def write_comparison(path: Path, *, reference: "Image", quantized: "Image", label: str, prompt: str, text: str) -> None:
    """Write ``reference | quantized | 4 x difference`` with labels above and a caption below as one PNG.

    The difference is ``min(255, 4 |a - b|)`` by channel, on black. Images narrower than 256 pixels are enlarged by a
    whole factor without smoothing, and the labels say so; all others are shown pixel by pixel. The file appears whole
    or not at all.

    Args:
        path: the PNG to write; missing folders are made.
        reference: the BF16 image.
        quantized: the image of the quantized arm, of the same size.
        label: what stands above it: the format, and whether it was emulated.
        prompt: what stands below; line breaks are kept. It is left out where no installed font knows its letters.
        text: what stands behind it: the distance.

    Raises:
        ComparisonError: the two images differ in size.
    """
    if reference.size != quantized.size:
        raise ComparisonError(
            f"the reference image is {reference.width}x{reference.height} pixels and the quantized one "
            f"{quantized.width}x{quantized.height}; nothing is resized. Refresh the baseline or fix the workload."
        )
    shown = prompt if len(prompt) <= _MAX_PROMPT else f"{prompt[:_MAX_PROMPT]} ..."
    font = _font_for(shown)
    caption = text if font is None else f"{shown}   {text}"
    save_png(_compose(reference.convert("RGB"), quantized.convert("RGB"), label, caption, font), path)


def _compose(reference: "Image", quantized: "Image", label: str, caption: str, font: str | None) -> "Image":
    from PIL import Image, ImageDraw

    factor = math.ceil(MIN_TILE / reference.width)
    layout = _layout(reference.width * factor, reference.height * factor, font or "")
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


def _font_for(text: str) -> str | None:
    """Return the first font that knows all letters of a text: "" for Pillow's own; None where no font does."""
    for name in ("", *_WIDE_FONTS):
        try:
            font = _load(name, 16)
        except OSError:  # not installed
            continue
        missing = bytes(font.getmask("\U0010fffd"))  # a private letter: what the font shows instead of one it lacks
        if all(bytes(font.getmask(letter)) != missing for letter in set(text) - set(string.whitespace)):
            return name
    return None


def _load(name: str, size: int) -> "FreeTypeFont | ImageFont":
    from PIL import ImageFont

    return ImageFont.truetype(name, size) if name else ImageFont.load_default(size)


def _layout(width: int, height: int, font_name: str) -> _Layout:
    size = round(14 * math.sqrt(width / MIN_TILE))  # 14 pixels over a tile of 256, 28 over one of 1024
    font = _load(font_name, size)
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


def save_png(sheet: "Image", path: Path) -> None:
    """Write an image as PNG; missing folders are made, and the file appears whole or not at all."""
    _save(sheet, path, format="PNG")


def save_jpeg(image: "Image", path: Path) -> None:
    """Write an image of at most 1024 pixels a side as JPEG, colours at full resolution: for the eye alone."""
    copy = image.convert("RGB")
    copy.thumbnail((MAX_JPEG, MAX_JPEG))
    _save(copy, path, format="JPEG", quality=90, subsampling=0)


def _save(image: "Image", path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        image.save(unfinished, **options)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
