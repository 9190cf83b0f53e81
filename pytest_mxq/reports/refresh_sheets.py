"""What a refresh leaves for its review: ``old | new | difference`` of each output that changed."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mxq.baselines.storage import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image

GAIN = 4
"""What the difference is multiplied by, as in the comparison images of a gate."""

GAP = 8
"""Pixels between the images."""


def write_sheets(folder: Path, pairs: Iterable[tuple[int, Image, Image]]) -> list[Path]:
    """Write a sheet for each pair in place of those of an earlier refresh, and return their paths.

    Args:
        folder: where they are written; made where it is missing.
        pairs: index of the output, its old and its new image. Where their sizes differ there is no difference to show.

    Raises:
        OSError: one could not be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("refresh-*.png"):
        earlier.unlink()
    paths = []
    for index, old, new in pairs:
        path = folder / f"refresh-{index:02d}-old-new-difference.png"
        data = BytesIO()
        _compose(old.convert("RGB"), new.convert("RGB")).save(data, format="PNG")
        write_atomically(path, data.getvalue())
        paths.append(path)
    return paths


def _compose(old: Image, new: Image) -> Image:
    from PIL import Image, ImageChops

    tiles = [old, new]
    if old.size == new.size:
        tiles.append(ImageChops.difference(old, new).point([min(255, GAIN * value) for value in range(256)] * 3))
    width = sum(tile.width for tile in tiles) + GAP * (len(tiles) - 1)
    sheet = Image.new("RGB", (width, max(tile.height for tile in tiles)), "#ffffff")
    left = 0
    for tile in tiles:
        sheet.paste(tile, (left, 0))
        left += tile.width + GAP
    return sheet
