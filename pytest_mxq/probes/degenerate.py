"""Pictures that are no pictures: NaN, one colour, the wrong size, the same one twice.

Each is a verdict of its own, because a distance to the reference would hide it or blame something else.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from pytest_mxq.probes.pixels import check_pair, check_set, to_uint8

CONSTANT_STD = 2 / 255
"""A picture whose every channel spreads less than this (standard deviation, values in [0, 1]) is constant."""

ONE_COLOUR_SHARE = 0.99
"""A picture with more than this share of its pixels in one 8-bit colour is of one colour."""


class DegenerateKind(Enum):
    """The ways in which a picture is none."""

    NOT_FINITE = "not-finite"
    CONSTANT = "constant"
    ONE_COLOUR = "one-colour"
    WRONG_SIZE = "wrong-size"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Degenerate:
    """One fault of one picture: its index in the set, what is wrong, and the numbers behind it."""

    index: int
    kind: DegenerateKind
    detail: str


def find_degenerate(images: Tensor, *, size: tuple[int, int] | None) -> list[Degenerate]:
    """Every fault in a set of pictures; an empty list means that all are pictures.

    A picture has at most one fault of content (the first of not finite, constant, one colour, duplicate of an earlier
    picture) and may have the wrong size besides.

    Args:
        images: float pictures (N, 3, H, W) in [0, 1], as the pipeline returned them.
        size: the (height, width) in pixels that was asked for, or None where any size is right.

    Returns:
        The faults in the order of the pictures.

    Raises:
        PictureError: ``images`` is not a non-empty set of float pictures.
    """
    check_set(images)
    pictures = to_uint8(images)
    first_with: dict[bytes, int] = {}
    found: list[Degenerate] = []
    for index, (image, picture) in enumerate(zip(images.detach().cpu().float(), pictures, strict=True)):
        twin = first_with.setdefault(hashlib.sha256(picture.contiguous().numpy()).digest(), index)
        faults = (_size_fault(index, image, size), _content_fault(index, image, picture, twin))
        found += [fault for fault in faults if fault is not None]
    return found


def identical(reference: Tensor, other: Tensor) -> bool:
    """Whether every picture equals its reference to the bit: a format that changed nothing was not applied.

    Args:
        reference: uint8 pictures (N, 3, H, W).
        other: uint8 pictures of the same shape.

    Raises:
        PictureError: the sets do not agree.
    """
    check_pair(reference, other)
    return bool((reference == other).all())


def _size_fault(index: int, image: Tensor, size: tuple[int, int] | None) -> Degenerate | None:
    height, width = image.shape[-2:]
    if size is None or size == (height, width):
        return None
    detail = f"{width}x{height} pixels, asked for {size[1]}x{size[0]} (width x height)"
    return Degenerate(index=index, kind=DegenerateKind.WRONG_SIZE, detail=detail)


def _content_fault(index: int, image: Tensor, picture: Tensor, twin: int) -> Degenerate | None:
    """The first fault of content of one float image (3, H, W) and the same as uint8 picture (3, H, W)."""
    bad = int((~image.isfinite()).sum())
    if bad:
        detail = f"{bad} of {image.numel()} values are NaN or infinite"
        return Degenerate(index=index, kind=DegenerateKind.NOT_FINITE, detail=detail)
    # By channel: over all values a flat red picture has a large deviation.
    spread = float(image.flatten(1).std(dim=1, correction=0).max())
    if spread < CONSTANT_STD:
        detail = f"standard deviation {spread:.5f}, below {CONSTANT_STD:.5f}"
        return Degenerate(index=index, kind=DegenerateKind.CONSTANT, detail=detail)
    share, colour = _commonest_colour(picture)
    if share > ONE_COLOUR_SHARE:
        detail = f"{share:.2%} of the pixels are {colour}, more than {ONE_COLOUR_SHARE:.0%}"
        return Degenerate(index=index, kind=DegenerateKind.ONE_COLOUR, detail=detail)
    if twin != index:
        return Degenerate(index=index, kind=DegenerateKind.DUPLICATE, detail=f"identical to picture {twin}")
    return None


def _commonest_colour(picture: Tensor) -> tuple[float, str]:
    """The share and the ``#rrggbb`` of a colour that, if any colour fills more than half of the picture, is that one.

    A majority is also the median, in any order, and a median costs a tenth of counting every colour.
    """
    red, green, blue = picture.int()
    codes = (red << 16 | green << 8 | blue).flatten()
    median = codes.median()
    return float((codes == median).double().mean()), f"#{int(median):06x}"
