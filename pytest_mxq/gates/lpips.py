"""LPIPS of each image or frame (Zhang et al. 2018): the ``lpips`` package, net alex, full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_mxq.gates.base import AccuracyGate, Scale
from pytest_mxq.gates.bounds import Bound

DRIFT_LIMIT = 0.02
"""LPIPS of reference drift beyond which no format can be judged."""


def _score(reference: Any, other: Any) -> Sequence[float]:
    from pytest_mxq.metrics.lpips import ALEX, shared_lpips

    return shared_lpips(ALEX).distances(reference.images, other.images)


def _default_worst(mean: float) -> float:
    """Return max(2 m, m + 0.15), as published practice has it; ``largest`` caps it at 0.80.

    >>> [round(_default_worst(mean), 2) for mean in (0.10, 0.30)]
    [0.25, 0.6]
    """
    return max(2 * mean, mean + 0.15)


def _drift_limit(bound: Bound) -> float:
    """Return min(0.02, bound / 4)."""
    return min(DRIFT_LIMIT, bound.mean / 4)


LPIPS = AccuracyGate(
    name="lpips",
    summary="bound of the mean LPIPS against BF16, of the worst image; number or {format: number}",
    largest=0.80,
    scale=Scale(higher_is_better=False),
    score=_score,
    default_worst=_default_worst,
    drift_limit=_drift_limit,
    usual_drift_limit=DRIFT_LIMIT,
)
