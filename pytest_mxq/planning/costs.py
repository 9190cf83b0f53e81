"""What a run is going to cost: the calls that each plan makes, and the seconds of a call where they are known."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import TYPE_CHECKING

from pytest_mxq.gates.base import CallLength
from pytest_mxq.gates.extrapolation import SHORT_LENGTHS
from pytest_mxq.gates.sampling import MIN_WARM_UP
from pytest_mxq.gates.speed_statistics import MIN_SESSION_ROUNDS, minimum_rounds
from pytest_mxq.models.drawbench import COUNT
from pytest_mxq.planning.plans import MemoryPlan, OutputsPlan, RefreshPlan, SpeedPlan

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pytest_mxq.baselines.manifest import Manifest
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.plans import RunnablePlan

_WARM = 1 + MIN_WARM_UP
"""Calls until an arm is warm: the observed one and the warm-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """How many calls of the pipeline a plan makes in BF16 and in its format, at the least; a short one counts less."""

    bf16: float = 0
    quantized: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSeconds:
    """Seconds of one call of each arm.

    Attributes:
        source: where they come from.
    """

    bf16: float
    quantized: float
    source: str

    def of(self, calls: Calls) -> float:
        """Return the seconds of some calls."""
        return calls.bf16 * self.bf16 + calls.quantized * self.quantized


class CallCounter:
    """Counts the calls of plans in the order in which they run: what the gates of a case share is counted once.

    Args:
        alpha: level of each one-sided bound of a speedup, which decides how many rounds it takes.
    """

    def __init__(self, alpha: float) -> None:
        self._rounds = minimum_rounds(alpha)
        self._shared: set[Hashable] = set()

    def of(self, plan: RunnablePlan, *, is_stored: bool) -> Calls:
        """Return the calls of the next plan.

        Args:
            plan: the plan.
            is_stored: whether it is held against a stored baseline.
        """
        if isinstance(plan, RefreshPlan):
            return Calls(bf16=_of_refresh(plan.case))
        if isinstance(plan, OutputsPlan):
            return self._of_outputs(plan, is_stored=is_stored)
        if isinstance(plan, SpeedPlan):
            return self._of_speed(plan, is_stored=is_stored)
        return self._of_memory(plan, is_stored=is_stored)

    def _of_speed(self, plan: SpeedPlan, *, is_stored: bool) -> Calls:
        if is_stored:
            return Calls(quantized=_ready(plan.case) + MIN_SESSION_ROUNDS)
        calls = self._of_live(plan)
        has_session = plan.together and not self._first("session", plan.case.key, plan.gate.name)
        return Calls(bf16=0 if has_session else calls, quantized=calls)

    def _of_live(self, plan: SpeedPlan) -> float:
        """Return the calls of one arm beside others; short ones are warmed up in the longer of both lengths."""
        if plan.bound.steps is not CallLength.SHORT:
            return _ready(plan.case) + self._rounds
        few, many = SHORT_LENGTHS
        return ((_WARM + 1) * many + few + self._rounds * (few + many)) / (plan.case.usual_steps or many)

    def _of_memory(self, plan: MemoryPlan, *, is_stored: bool) -> Calls:
        is_compared = plan.bound.max_ratio is not None
        is_short = is_compared and plan.bound.steps is CallLength.SHORT and plan.case.short_steps is not None
        calls = (_WARM + 2) * _short_share(plan.case) if is_short else _ready(plan.case) + 1
        if is_stored or not is_compared or not self._first("peak", plan.case.key):
            return Calls(quantized=calls)
        return Calls(bf16=calls + 2 if is_short else calls, quantized=calls)  # two full ones show that short ones serve

    def _of_outputs(self, plan: OutputsPlan, *, is_stored: bool) -> Calls:
        case = plan.case
        reference = len(case.drift_check_chunks) if is_stored else _chunks(case)
        return Calls(
            bf16=reference if self._first("reference", case.key) else 0,
            quantized=_chunks(case) if self._first("outputs", case.key, plan.cell.format) else 0,
        )

    def _first(self, *key: Hashable) -> bool:
        is_first = key not in self._shared
        self._shared.add(key)
        return is_first


def _chunks(case: Case) -> int:
    return ceil((len(case.prompts) or COUNT) / case.settings.batch_size)  # without prompts: the named set


def _short_share(case: Case) -> float:
    """Return how much of a call a short one is, 0 to 1; 0 without such."""
    return 0 if case.short_steps is None else case.short_steps / (case.usual_steps or 1)


def _ready(case: Case) -> float:
    """Return the calls until an arm can be timed: after the warm-up one counts compiled regions, a short one twice."""
    return _WARM + (2 * _short_share(case) or 1)


def _of_refresh(case: Case) -> float:
    timed = _ready(case) + MIN_SESSION_ROUNDS + 1 + 2 * _short_share(case) if case.is_timed else 0
    return timed if case.random_weights else timed + _chunks(case) + 2 * len(case.drift_check_chunks)


def call_seconds(case: Case, number_format: str, manifest: Manifest | None) -> CallSeconds | None:
    """Return what a call takes: BF16's as stored, or as published; None: neither is known.

    A format takes BF16's time over its published speedup; without one, as long as BF16.

    Args:
        case: the case.
        number_format: name of the format, or "bf16".
        manifest: the case's stored baseline, or None.
    """
    bf16, quantized = (_published(case, name) for name in ("bf16", number_format))
    ratio = 1.0 if bf16 is None or quantized is None else quantized / bf16
    if manifest is not None and manifest.sessions:
        newest = manifest.sessions[-1]
        stored = median(newest.seconds)
        return CallSeconds(bf16=stored, quantized=ratio * stored, source=f"session of {newest.created[:10]}")
    return None if bf16 is None else CallSeconds(bf16=bf16, quantized=ratio * bf16, source="published latencies")


def _published(case: Case, number_format: str) -> float | None:
    """Return the published seconds of a call at the nearest batch size, in proportion to the case's."""
    size = case.settings.batch_size
    runs = [run for run in case.recipe.published if run.format == number_format]
    nearest = min(runs, key=lambda run: abs(run.batch_size - size), default=None)
    return None if nearest is None else nearest.seconds * size / nearest.batch_size
