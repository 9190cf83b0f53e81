"""Files that are whole or absent: atomic writes, a lock among refreshes, capped reads, PNG there and back."""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING
from uuid import uuid4

from pytest_mxq.baselines.strict_json import invalid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL.Image import Image

MAX_PIXELS = 2**26  # 8192 x 8192; Pillow itself warns from 2**26.4 on
MAX_IMAGE_BYTES = 256 * 2**20
MAX_MANIFEST_BYTES = 16 * 2**20


def make_folder(folder: Path) -> None:
    """Makes `folder` and its parents so that they outlast a power cut.

    Raises:
        OSError: a part of the path is a file, or may not be written.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `data` as `path`: at any moment a reader finds the old file or the new one, whole.

    Raises:
        OSError: it could not be written; `path` is as it was.
    """
    # A name beginning with a dot is never an image's, a case's or a manifest's.
    temporary = path.with_name(f".{uuid4().hex}{path.suffix}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Waits for other refreshes in `folder`, then keeps them out; False where the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def read_capped(path: Path, limit_bytes: int) -> bytes:
    """The bytes of `path`, if there are not too many.

    Raises:
        BaselineInvalidError: the file is larger than `limit_bytes`.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > limit_bytes:
        raise invalid(str(path), f"the file has {size} bytes, at most {limit_bytes} are read")
    return path.read_bytes()


def encode_png(image: Image, *, where: str) -> bytes:
    """The image as a PNG without metadata: equal pixels give equal bytes under one version of Pillow.

    Raises:
        BaselineInvalidError: the image is not RGB, or larger than `MAX_PIXELS`.
    """
    import PIL.Image

    if image.mode != "RGB" or image.width * image.height > MAX_PIXELS:
        size = f"{image.mode} of {image.width} x {image.height}"
        raise invalid(where, f"the image is {size}: it must be RGB and have at most {MAX_PIXELS} pixels")
    buffer = BytesIO()
    # A fresh image: Pillow would write the ICC profile and transparency that an image carries in its info.
    PIL.Image.frombytes("RGB", image.size, image.tobytes()).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def decode_png(data: bytes, *, size: tuple[int, int], where: str) -> Image:
    """The RGB image of `size` (width, height) in a PNG; the size is read from the header before anything is decoded.

    Raises:
        BaselineInvalidError: not a PNG, of another size, too many pixels, not RGB, or damaged.
    """
    import PIL.Image

    found = _png_size(data, where)
    if found[0] * found[1] > MAX_PIXELS:
        raise invalid(where, f"the image is {found[0]} x {found[1]}, at most {MAX_PIXELS} pixels are decoded")
    if found != size:
        raise invalid(where, f"the image is {found[0]} x {found[1]}, the manifest says {size[0]} x {size[1]}")
    try:
        image = PIL.Image.open(BytesIO(data), formats=["PNG"])
        image.load()
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise invalid(where, f"the PNG is damaged ({error})") from error
    if image.mode != "RGB":
        raise invalid(where, f"the image is {image.mode}, it must be RGB")
    return image


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _png_size(data: bytes, where: str) -> tuple[int, int]:
    """Width and height from the IHDR chunk (PNG specification, 11.2.2)."""
    if len(data) < 24 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise invalid(where, "not a PNG file")
    width, height = struct.unpack(">II", data[16:24])
    return width, height
