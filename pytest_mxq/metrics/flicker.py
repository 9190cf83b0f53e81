"""Videos over time: how much a video changes from frame to frame, and whether it is frozen.

A batch of videos is a batch of images, ``torch.uint8`` (videos x frames, 3, H, W), frame after frame.
"""

from itertools import pairwise

import torch
from torch import Tensor

from pytest_mxq.metrics.images import ImageError, check_pair

FROZEN_CHANGE = 0.25 / 255
"""A video is frozen if no frame differs from its first by more (mean absolute difference, values in [0, 1])."""

LEAST_CHANGE = 1 / 255
"""Lower bound of a reference's change: a video that hardly moves gives no scale to measure flicker by."""


def flicker(reference: Tensor, other: Tensor, *, frames: int) -> list[float]:
    """Measure how far each video's change from frame to frame is from its reference's, relative to the reference's.

    ``|c(q) - c(r)| / max(c(r), 1/255)`` with ``c(x) = mean_t mean |x_t - x_(t-1)|`` over pixels and channels in
    [0, 1]: 0 for the reference itself and 1 for a video that stands still, however good its frames are.

    Args:
        reference: Videos, uint8 (N x frames, 3, H, W).
        other: Videos of the same shape, uint8.
        frames: Frames of each video.

    Returns:
        One value a video.

    Raises:
        ImageError: The shapes or types do not agree, or a video has a single frame.
    """
    check_pair(reference, other)
    if frames < 2:
        raise ImageError(
            f"videos have {frames} frame: flicker is a change from frame to frame. Generate longer videos."
        )
    pairs = zip(torch.split(reference, frames), torch.split(other, frames), strict=True)
    changes = ((_change(one), _change(another)) for one, another in pairs)
    return [abs(another - one) / max(one, LEAST_CHANGE) for one, another in changes]


def largest_departure(video: Tensor) -> float:
    """Return the largest mean absolute difference of a frame to the first, values in [0, 1].

    Of a video that is not frozen, a lower bound: the search stops at the first frame beyond `FROZEN_CHANGE`.

    Args:
        video: Frames, uint8 (F, 3, H, W).
    """
    largest = 0.0
    for frame in video[1:]:
        largest = max(largest, _distance(video[0], frame))
        if largest > FROZEN_CHANGE:
            break
    return largest


def _change(video: Tensor) -> float:
    steps = [_distance(before, after) for before, after in pairwise(video)]
    return sum(steps) / len(steps)


def _distance(one: Tensor, another: Tensor) -> float:
    difference = one.to(torch.int16).sub_(another).abs_()
    return int(difference.sum()) / difference.numel() / 255
