"""SSIM of each image or frame (Wang et al. 2004), by scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_mxq.gates.base import AccuracyGate, Scale


def _score(reference: Any, other: Any) -> Sequence[float]:
    from pytest_mxq.metrics.ssim import ssim

    return ssim(reference.images, other.images)


SSIM = AccuracyGate(
    name="ssim",
    summary="bound of the mean SSIM against BF16, of the worst image",
    largest=1.0,
    scale=Scale(higher_is_better=True),
    score=_score,
)
