"""Bounds to paste into a test: of a regression that is accepted, and where a bound and its history disagree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite, log10
from typing import TYPE_CHECKING

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.planning.gate_param import refresh_nodeid, without_params

if TYPE_CHECKING:
    from pytest_mxq.gates.base import Scale
    from pytest_mxq.gates.verdict import Verdict
    from pytest_mxq.reports.history import Point

MARGIN_LOWER, MARGIN_HIGHER = 0.10, 0.02
"""Space between a value and the bound that is proposed from it, where lower and where higher values are better."""

MIN_RUNS = 10
"""Runs without a failure before a bound is called loose."""

RED_RUNS = 3
"""Failures in a row before a bound is called out of reach."""

FAILURES = frozenset(outcome for outcome in Outcome if outcome.is_failure)

_REFRESHABLE = {Outcome.STALE, Outcome.MISSING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """What accepts a cell as it is: ``kind`` is "refresh" (a nodeid) or "bounds" (lines for a marker)."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What the history says of a bound, and the line to paste."""

    sentence: str
    line: str


def rounded_bound(value: float, *, higher_is_better: bool) -> float:
    """Return a bound that a value keeps with a margin: two significant digits, or three where higher is better.

    >>> rounded_bound(0.0041, higher_is_better=False)
    0.0046
    >>> rounded_bound(1.312, higher_is_better=True)
    1.28
    """
    if higher_is_better:
        return _rounded(value - MARGIN_HIGHER * abs(value), 3, floor)
    return _rounded(value + MARGIN_LOWER * abs(value), 2, ceil)


def _rounded(value: float, digits: int, turn: Callable[[float], int]) -> float:
    if value == 0:
        return 0.0
    decimals = digits - 1 - floor(log10(abs(value)))
    step = 10.0**-decimals
    return round(turn(round(value / step, 6)) * step, max(decimals, 0))


def accepting(verdict: Verdict) -> Accept | None:
    """Return what accepts a failed cell: its refresh, or new bounds; None where neither would be an answer."""
    if verdict.outcome in _REFRESHABLE:
        cell = verdict.cell
        return Accept(kind="refresh", text=refresh_nodeid(cell.nodeid, formats=[cell.format], gates=[cell.gate]))
    if verdict.outcome is not Outcome.REGRESSION or verdict.scale is None or verdict.observed is None:
        return None
    lines = [
        _marker_line(verdict, name, scale, was=bound, seen=value)
        for name, scale, value, bound in _compared(verdict, verdict.scale)
        if isfinite(value) and not scale.holds(value, bound)
    ]
    place = without_params(verdict.cell.nodeid)
    return Accept(kind="bounds", text="\n".join([f"# {place}", *lines])) if lines else None


def _compared(verdict: Verdict, scale: Scale) -> Iterator[tuple[str, Scale, float, float]]:
    """Yield each bound of a verdict: the marker's argument, how its numbers read, what must keep it, and the bound."""
    if verdict.memory is not None:
        for check in verdict.memory.checks:
            yield check.argument, replace(scale, unit=check.unit), check.value, check.limit
    elif verdict.bound is not None:
        yield scale.limit, scale, _decisive(verdict), verdict.bound
    if verdict.scores is not None and verdict.worst_bound is not None:
        yield "worst", scale, verdict.scores.worst, verdict.worst_bound


def _marker_line(verdict: Verdict, name: str, scale: Scale, *, was: float, seen: float) -> str:
    """Return ``mxq_lpips(max={"nvfp4": 0.0046})`` with what it replaces: keys to put into the test's marker."""
    cell, show = verdict.cell, scale.show
    key = f"{cell.format}-emulated" if verdict.emulated else cell.format
    bound = rounded_bound(seen, higher_is_better=scale.higher_is_better)
    return f'mxq_{cell.gate}({name}={{"{key}": {bound:g}}})  # was {show(was)}, seen {show(seen)}'


def history_hint(points: Sequence[Point], verdict: Verdict) -> Hint | None:
    """Return that a bound is far from what all runs show, or that it was out of reach in the last ones."""
    scale, bound = verdict.scale, verdict.bound
    if scale is None or bound is None:
        return None
    since = [point for point in points if point.cell.bound == bound and _is_number(point.cell.observed)]
    values = [point.cell.observed for point in since if point.cell.observed is not None]
    reds = red_streak(since, of={Outcome.REGRESSION})
    worst, said = (min, "at least") if scale.higher_is_better else (max, "at most")
    if reds >= RED_RUNS:
        seen = worst(values[-reds:])
        return _hint(verdict, scale, seen, f"red for {reds} runs, {said} {scale.show(seen)}")
    if red_streak(since) or len(values) < MIN_RUNS:
        return None
    seen = worst(values)
    proposed = rounded_bound(seen, higher_is_better=scale.higher_is_better)
    is_loose = proposed > bound * 1.05 if scale.higher_is_better else proposed < bound / 2
    return _hint(verdict, scale, seen, f"{len(values)} runs {said} {scale.show(seen)}") if is_loose else None


def red_streak(points: Sequence[Point], of: Collection[Outcome] = FAILURES) -> int:
    """Count the failures at the end of a history."""
    count = 0
    for point in reversed(points):
        if point.cell.outcome not in of:
            break
        count += 1
    return count


def _hint(verdict: Verdict, scale: Scale, seen: float, said: str) -> Hint:
    bound = verdict.bound or 0.0
    deciding = verdict.memory.deciding if verdict.memory is not None else None
    name = deciding.argument if deciding is not None else scale.limit
    line = _marker_line(verdict, name, scale, was=bound, seen=seen)
    return Hint(sentence=f"bound {scale.show(bound)}, {said}", line=line)


def _decisive(verdict: Verdict) -> float:
    """Return the number that has to keep the bound: of a speedup the lower end of its interval."""
    return verdict.speed.lower if verdict.speed is not None else verdict.observed or 0.0


def _is_number(value: float | None) -> bool:
    return value is not None and isfinite(value)
