"""DISTS of each image or frame (Ding et al. 2020), full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_mxq.gates.base import AccuracyGate, Scale


def _score(reference: Any, other: Any) -> Sequence[float]:
    from pytest_mxq.metrics.dists import shared_dists

    return shared_dists().distances(reference.images, other.images)


DISTS = AccuracyGate(
    name="dists",
    summary="bound of the mean DISTS (structure and texture) against BF16, of the worst image; needs the extra 'vgg'",
    largest=1.0,
    scale=Scale(higher_is_better=False),
    score=_score,
)
