"""LPIPS of each image or frame with VGG16 (Zhang et al. 2018): the ``lpips`` package, net vgg, full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_mxq.gates.base import AccuracyGate, Scale


def _score(reference: Any, other: Any) -> Sequence[float]:
    from pytest_mxq.metrics.lpips import VGG, shared_lpips

    return shared_lpips(VGG).distances(reference.images, other.images)


LPIPS_VGG = AccuracyGate(
    name="lpips_vgg",
    summary="bound of the mean LPIPS with VGG16 against BF16, of the worst image; needs the extra 'vgg'",
    largest=1.0,
    scale=Scale(higher_is_better=False),
    score=_score,
)
