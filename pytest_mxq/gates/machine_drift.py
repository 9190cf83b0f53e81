"""Whether a machine is as fast as when BF16 was stored: the compiled BF16 arm in short calls, then and now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

DRIFT_TOLERANCE = 0.01
"""Relative change of a short call up to which stored sessions decide. On two H200, six processes, short calls right
after whole ones followed these within 0.9 %, and differed by 0.7 % on one GPU
(benchmarks/results/gpu-canary-2026-12-01.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineDrift:
    """BF16 in calls of few steps, timed right after the whole calls of a session.

    Attributes:
        steps: of a short call.
        stored: seconds of one in the stored sessions, the median of their medians.
        now: seconds of one in this run, a median.
    """

    steps: int
    stored: float
    now: float

    @classmethod
    def between(cls, stored: Sequence[Sequence[float]], now: Sequence[float], *, steps: int) -> Self | None:
        """Compare the short calls of stored sessions with those of this run; None where either has none."""
        medians = [median(seconds) for seconds in stored if seconds]
        return cls(steps=steps, stored=median(medians), now=median(now)) if medians and now else None

    @property
    def change(self) -> float:
        """Return by how much a short call takes longer now, as a share.

        >>> round(MachineDrift(steps=4, stored=0.50, now=0.51).change, 4)
        0.02
        """
        return self.now / self.stored - 1

    @property
    def is_small(self) -> bool:
        """Tell whether stored sessions can decide.

        >>> [MachineDrift(steps=4, stored=0.500, now=now).is_small for now in (0.494, 0.496, 0.504, 0.506)]
        [False, True, True, False]
        """
        return abs(self.change) <= DRIFT_TOLERANCE

    @property
    def text(self) -> str:
        """Return it as part of a sentence."""
        return f"BF16 in {self.steps} steps takes {self.now:.3f} s, {self.change:+.1%} from the stored sessions"
