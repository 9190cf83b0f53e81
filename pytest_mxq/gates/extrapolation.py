"""The time of a long call from calls of few steps: a straight line through two lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from statistics import median

SHORT_LENGTHS = (4, 12)
"""Denoising steps of both short calls. FLUX.1-dev, float8, on an H100: speedups of 1.313 and 1.318 in calls of 28
steps, and 1.308 by the line through 4 and 12."""
LEAST_MODEL_ERROR = 0.01
"""Half-width, on the log scale, that a straight line costs at the least: steps of one call differ by 3 %, the first
being faster while the chip is cool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extrapolation:
    """From calls of two lengths to the workload's own.

    Attributes:
        lengths: steps of the short calls, the shorter first.
        steps: of the workload.
        model_error: half-width on the log scale that this adds to an interval.
    """

    lengths: tuple[int, int]
    steps: int
    model_error: float = LEAST_MODEL_ERROR

    def seconds(self, shorter: Sequence[float], longer: Sequence[float]) -> tuple[float, ...]:
        """Return the seconds of the workload's calls from those of both short ones, round by round.

        >>> Extrapolation(lengths=(4, 12), steps=28).seconds([1.4, 1.4], [2.2, 2.3])
        (3.8, 4.1)
        """
        few, many = self.lengths
        factor = (self.steps - few) / (many - few)
        return tuple(round(one + factor * (two - one), 12) for one, two in zip(shorter, longer, strict=True))

    @property
    def text(self) -> str:
        """What was timed, and what it costs."""
        few, many = self.lengths
        return f"from calls of {few} and {many} steps to {self.steps} (model error {100 * self.model_error:.1f} %)"


def model_error(predicted: float, measured: Sequence[float]) -> float:
    """Return by how much a line missed the median of full calls, on the log scale; never under the least.

    >>> model_error(2.0, [2.0, 2.0, 2.0]), round(model_error(2.1, [2.0, 2.0, 2.0]), 4)
    (0.01, 0.0488)
    """
    return max(LEAST_MODEL_ERROR, abs(log(predicted / median(measured))))
