"""How far each video's change from frame to frame is from BF16's, relative to BF16's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_mxq.errors import MxqError
from pytest_mxq.gates.base import AccuracyGate, Scale


def _score(reference: Any, other: Any) -> Sequence[float]:
    from pytest_mxq.metrics.flicker import flicker

    if reference.video is None:
        raise MxqError(f"mxq_flicker needs videos, and {reference.identity.model} generates images: remove the marker")
    return flicker(reference.images, other.images, frames=reference.frames)


def _default_worst(mean: float) -> float:
    """Return 2 m; a video that stands still has 1, the largest bound."""
    return 2 * mean


def _preview(outputs: Any, index: int, _frame: int | None) -> Any:
    """Return the middle row of pixels over time, a line for each frame, in which flicker shows as stripes."""
    from pytest_mxq.metrics.images import to_image

    frames = outputs.frames_of(index)
    return to_image(frames[:, :, frames.shape[2] // 2].transpose(0, 1))


FLICKER = AccuracyGate(
    name="flicker",
    summary="bound of the mean deviation of a video's frame-to-frame change, relative to BF16's, of the worst video",
    largest=1.0,
    scale=Scale(higher_is_better=False, digits=3, noun="video"),
    score=_score,
    default_worst=_default_worst,
    preview=_preview,
)
