"""Images and videos that are none: NaN, one colour, the wrong size, the same one twice, a video that stands still.

Each is a verdict of its own, because a distance to the reference would hide it or blame something else.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from pytest_mxq.metrics.flicker import FROZEN_CHANGE, largest_departure
from pytest_mxq.metrics.images import check_pair, check_set, to_uint8

CONSTANT_STD = 2 / 255
"""An image whose every channel spreads less than this (standard deviation, values in [0, 1]) is constant."""

ONE_COLOUR_SHARE = 0.99
"""An image with more than this share of its pixels in one 8-bit colour is of one colour."""


class DegenerateKind(Enum):
    """The ways in which an image, a video or its audio is none."""

    NOT_FINITE = "not-finite"
    CONSTANT = "constant"
    ONE_COLOUR = "one-colour"
    WRONG_SIZE = "wrong-size"
    DUPLICATE = "duplicate"
    FROZEN = "frozen"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Degenerate:
    """One fault of one image or video: its index in the set, what is wrong, and the numbers behind it."""

    index: int
    kind: DegenerateKind
    detail: str


def find_degenerate(images: Tensor, *, size: tuple[int, int] | None, frames: int = 1) -> list[Degenerate]:
    """Every fault in a set of images or videos; an empty list means that all are such.

    Each has at most one fault of content (the first of not finite, constant, one colour, frozen, duplicate of an
    earlier one) and may have the wrong size besides. A video is constant or of one colour if every frame is: videos
    fade in from black. It is looked at in one piece, so that only one is held as floats at a time.

    Args:
        images: float images (N, 3, H, W) in [0, 1], as the pipeline returned them.
        size: the (height, width) in pixels that was asked for, or None where any size is right.
        frames: images of a video; 1: they are images.

    Returns:
        The faults in the order of the images or videos.

    Raises:
        ImageError: ``images`` is not a non-empty set of float images.
    """
    check_set(images)
    first_with: dict[bytes, int] = {}
    found: list[Degenerate] = []
    for index, part in enumerate(torch.split(images.detach(), frames)):
        image, pixels = part.cpu().float(), to_uint8(part)
        twin = first_with.setdefault(hashlib.sha256(pixels.numpy().data).digest(), index)
        faults = (_size_fault(index, image, size), _content_fault(index, image, pixels, twin))
        found += [fault for fault in faults if fault is not None]
    return found


def identical(reference: Tensor, other: Tensor) -> bool:
    """Whether every image equals its reference to the bit: a format that changed nothing was not applied.

    Args:
        reference: uint8 images (N, 3, H, W).
        other: uint8 images of the same shape.

    Raises:
        ImageError: the sets do not agree.
    """
    check_pair(reference, other)
    return bool((reference == other).all())


def _size_fault(index: int, image: Tensor, size: tuple[int, int] | None) -> Degenerate | None:
    height, width = image.shape[-2:]
    if size is None or size == (height, width):
        return None
    detail = f"{width}x{height} pixels, asked for {size[1]}x{size[0]} (width x height)"
    return Degenerate(index=index, kind=DegenerateKind.WRONG_SIZE, detail=detail)


def _content_fault(index: int, image: Tensor, pixels: Tensor, twin: int) -> Degenerate | None:
    """The first fault of content of one image's or video's floats (frames, 3, H, W) and the same in 8 bits."""

    def fault(kind: DegenerateKind, detail: str) -> Degenerate:
        return Degenerate(index=index, kind=kind, detail=detail)

    bad = int((~image.isfinite()).sum())
    if bad:
        return fault(DegenerateKind.NOT_FINITE, f"{bad} of {image.numel()} values are NaN or infinite")
    spread = _largest_spread(image)
    if spread < CONSTANT_STD:
        return fault(DegenerateKind.CONSTANT, f"standard deviation {spread:.5f}, below {CONSTANT_STD:.5f}")
    share, colour = _smallest_share(pixels)
    if share > ONE_COLOUR_SHARE:
        detail = f"{share:.2%} of the pixels are {colour}, more than {ONE_COLOUR_SHARE:.0%}"
        return fault(DegenerateKind.ONE_COLOUR, detail)
    departure = largest_departure(pixels)
    if len(pixels) > 1 and departure <= FROZEN_CHANGE:
        detail = f"none of {len(pixels)} frames differs from the first by more than {departure:.5f} in the mean"
        return fault(DegenerateKind.FROZEN, detail)
    if twin != index:
        noun = "image" if len(pixels) == 1 else "video"
        return fault(DegenerateKind.DUPLICATE, f"identical to {noun} {twin}")
    return None


def _largest_spread(image: Tensor) -> float:
    """The largest standard deviation of a frame, by channel; no more is looked for once it is no constant one.

    By channel: over all values a flat red image has a large deviation.
    """
    largest = 0.0
    for frame in image:
        largest = max(largest, float(frame.flatten(1).std(dim=1, correction=0).max()))
        if largest >= CONSTANT_STD:
            break
    return largest


def _smallest_share(pixels: Tensor) -> tuple[float, str]:
    """The commonest colour of the frame where it has the smallest share; or of the first where it is no majority."""
    smallest = (2.0, "")
    for frame in pixels:
        smallest = min(smallest, _commonest_colour(frame))
        if smallest[0] <= ONE_COLOUR_SHARE:
            break
    return smallest


def _commonest_colour(pixels: Tensor) -> tuple[float, str]:
    """The share and the ``#rrggbb`` of a colour that, if any colour fills more than half of the image, is that one.

    A majority is also the median, in any order, and a median costs a tenth of counting every colour.
    """
    red, green, blue = pixels.int()
    codes = (red << 16 | green << 8 | blue).flatten()
    median = codes.median()
    return float((codes == median).double().mean()), f"#{int(median):06x}"
