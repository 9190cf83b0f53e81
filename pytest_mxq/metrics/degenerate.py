"""Degenerate outputs: NaN, one colour, the wrong size, a duplicate, a frozen video, silent audio.

Each is a verdict of its own, because a distance to the reference would hide it or blame something else.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from pytest_mxq.metrics.flicker import FROZEN_CHANGE, largest_departure
from pytest_mxq.metrics.images import check_set, to_uint8

CONSTANT_STD = 2 / 255
"""An image whose every channel spreads less than this (standard deviation, values in [0, 1]) is constant."""

ONE_COLOUR_SHARE = 0.99
"""An image with more than this share of its pixels in one 8-bit colour is of one colour."""


class DegenerateKind(Enum):
    """The ways in which an image, a video or its audio is degenerate."""

    NOT_FINITE = "not-finite"
    CONSTANT = "constant"
    ONE_COLOUR = "one-colour"
    WRONG_SIZE = "wrong-size"
    DUPLICATE = "duplicate"
    FROZEN = "frozen"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Degenerate:
    """One fault of one image or video: its index in the batch, what is wrong, and the numbers behind it."""

    index: int
    kind: DegenerateKind
    detail: str


def find_degenerate(images: Tensor, *, size: tuple[int, int] | None, frames: int = 1) -> list[Degenerate]:
    """Find every fault in a batch of images or videos; an empty list means that none is degenerate.

    Each has at most one fault of content (the first of not finite, constant, one colour, frozen, duplicate of an
    earlier one) and may have the wrong size besides. A video is constant or of one colour if every frame is: videos
    fade in from black. Each is inspected by itself, so that only one is held as floats at a time.

    Args:
        images: Float images (N, 3, H, W) in [0, 1], as the pipeline returned them.
        size: The (height, width) in pixels that was asked for, or None where any size is right.
        frames: Frames of each video; 1 for images.

    Returns:
        The faults in the order of the images or videos.

    Raises:
        ImageError: ``images`` is empty, or is not a batch of float images.
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


def _size_fault(index: int, image: Tensor, size: tuple[int, int] | None) -> Degenerate | None:
    height, width = image.shape[-2:]
    if size is None or size == (height, width):
        return None
    detail = f"{width}x{height} pixels, asked for {size[1]}x{size[0]} (width x height)"
    return Degenerate(index=index, kind=DegenerateKind.WRONG_SIZE, detail=detail)


def _content_fault(index: int, image: Tensor, pixels: Tensor, twin: int) -> Degenerate | None:
    """Return the first fault of content of one image or video, as floats (frames, 3, H, W) and as 8-bit pixels."""

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
    """Return the largest standard deviation of a frame by channel; stop at the first frame that is not constant.

    By channel: over all values a flat red image has a large deviation.
    """
    largest = 0.0
    for frame in image:
        largest = max(largest, float(frame.flatten(1).std(dim=1, correction=0).max()))
        if largest >= CONSTANT_STD:
            break
    return largest


def _smallest_share(pixels: Tensor) -> tuple[float, str]:
    """Return the commonest colour of the frame where its share is smallest; stop at the first without a majority."""
    smallest = (2.0, "")
    for frame in pixels:
        smallest = min(smallest, _commonest_colour(frame))
        if smallest[0] <= ONE_COLOUR_SHARE:
            break
    return smallest


def _commonest_colour(pixels: Tensor) -> tuple[float, str]:
    """Return the share and the ``#rrggbb`` of the median colour: the majority colour, wherever there is one.

    A majority is also the median, in any order, and a median costs a tenth of counting every colour.
    """
    red, green, blue = pixels.int()
    codes = (red << 16 | green << 8 | blue).flatten()
    median = codes.median()
    return float((codes == median).double().mean()), f"#{int(median):06x}"
