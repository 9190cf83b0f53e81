"""PSNR of each image or frame in dB, by scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_mxq.gates.base import AccuracyGate, Scale


def _score(reference: Any, other: Any) -> Sequence[float]:
    from pytest_mxq.metrics.psnr import psnr

    return psnr(reference.images, other.images)


PSNR = AccuracyGate(
    name="psnr",
    summary="bound of the mean PSNR against BF16, dB, of the worst image",
    largest=120.0,
    scale=Scale(higher_is_better=True, unit=" dB", digits=2),
    score=_score,
)
