"""MS-SSIM of each image or frame (Wang, Simoncelli and Bovik 2003), by pytorch-msssim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_mxq.gates.base import AccuracyGate, Scale


def _score(reference: Any, other: Any) -> Sequence[float]:
    from pytest_mxq.metrics.msssim import msssim

    return msssim(reference.images, other.images)


MSSSIM = AccuracyGate(
    name="msssim",
    summary="bound of the mean multi-scale SSIM against BF16, of the worst image; sides of at least 161 pixels",
    largest=1.0,
    scale=Scale(higher_is_better=True),
    score=_score,
)
