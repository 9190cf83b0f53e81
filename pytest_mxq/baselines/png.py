"""PNG there and back: 8-bit RGB without metadata, checked before it is decoded."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import TYPE_CHECKING

from pytest_mxq.baselines.strict_json import cut, invalid, shown

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2**26  # 8192 x 8192; Pillow itself warns from 2**26.4 on

# IHDR's colour types (PNG specification, 11.2.2); only RGB is stored.
_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


def encode_png(image: Image, *, where: str) -> bytes:
    """Return the image as a PNG without metadata: equal pixels give equal bytes under one version of Pillow.

    Raises:
        BaselineInvalidError: The image is not RGB, or larger than `MAX_PIXELS`.
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
    """Return the 8-bit RGB image of `size` (width, height) in a PNG; its header and chunks are checked first.

    Raises:
        BaselineInvalidError: Not a PNG, of another size, too many pixels, not 8-bit RGB, with metadata, or damaged.
    """
    import PIL.Image

    _check_header(data, size, where)
    _check_chunks(data, where)
    try:
        image = PIL.Image.open(BytesIO(data), formats=["PNG"])
        image.load()
    except Exception as error:
        # Which exceptions a damaged file raises depends on Pillow's release.
        raise invalid(where, f"the PNG is damaged ({cut(str(error) or type(error).__name__, 120)})") from error
    if image.mode != "RGB" or image.size != size:
        raise invalid(where, f"the image is {image.mode} of {image.width} x {image.height}, it must be RGB")
    return image


def _check_header(data: bytes, size: tuple[int, int], where: str) -> None:
    """Check the IHDR chunk (PNG specification, 11.2.2)."""
    if len(data) < 33 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise invalid(where, "not a PNG file")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if width * height > MAX_PIXELS:
        raise invalid(where, f"the image is {width} x {height}, at most {MAX_PIXELS} pixels are decoded")
    if (width, height) != size:
        raise invalid(where, f"the image is {width} x {height}, the manifest says {size[0]} x {size[1]}")
    if (depth, colour) != (8, 2):
        found = f"{_COLOURS.get(colour, 'unknown')} of {depth} bits"
        raise invalid(where, f"the image is {found} a channel, it must be RGB of 8")


def _check_chunks(data: bytes, where: str) -> None:
    """Refuse chunks that `encode_png` does not write: animations, profiles and compressed texts only cost memory."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind not in {b"IHDR", b"IDAT", b"IEND"}:
            raise invalid(where, f"the PNG has a chunk {shown(kind.decode('latin-1'))}: only pixels are stored")
        at += length + 12
