"""Bounds to paste into a test: of a regression that is accepted, and where a bound and its history disagree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from typing import TYPE_CHECKING

from pytest_mxq.gates.outcome import Outcome

if TYPE_CHECKING:
    from pytest_mxq.gates.verdict import Cell, Verdict
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
        return Accept(kind="refresh", text=refresh_nodeid(verdict.cell))
    if verdict.outcome is not Outcome.REGRESSION or verdict.scale is None or verdict.observed is None:
        return None
    higher = verdict.scale.higher_is_better
    values = {_limit(verdict): (_decisive(verdict), verdict.bound)}
    if verdict.scores is not None and verdict.worst_bound is not None:
        values["worst"] = (verdict.scores.worst, verdict.worst_bound)
    lines = [
        marker_line(verdict, name, rounded_bound(value, higher_is_better=higher), was=bound, seen=value)
        for name, (value, bound) in values.items()
        if bound is not None and isfinite(value) and not verdict.scale.holds(value, bound)
    ]
    place = verdict.cell.nodeid.partition("[")[0]
    return Accept(kind="bounds", text="\n".join([f"# {place}", *lines])) if lines else None


def marker_line(verdict: Verdict, name: str, bound: float, *, was: float, seen: float) -> str:
    """Return ``mxq_lpips(max={"nvfp4": 0.0046})`` with what it replaces: keys to put into the test's marker."""
    cell, show = verdict.cell, verdict.show
    key = f"{cell.format}-emulated" if verdict.emulated else cell.format
    return f'mxq_{cell.gate}({name}={{"{key}": {bound:g}}})  # was {show(was)}, seen {show(seen)}'


def refresh_nodeid(cell: Cell) -> str:
    """Return the nodeid that refreshes a cell's case alone.

    >>> from pytest_mxq.gates.verdict import Cell
    >>> refresh_nodeid(Cell(nodeid="t.py::x[wide-nvfp4-lpips-b4]", model="m", case="c", format="nvfp4", gate="lpips"))
    't.py::x[wide-bf16-refresh-b4]'
    """
    before, _, after = cell.nodeid.rpartition(f"{cell.format}-{cell.gate}")
    return f"{before}bf16-refresh{after}" if before else cell.nodeid


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
        return _hint(verdict, bound, seen, f"red for {reds} runs, {said} {scale.show(seen)}")
    if red_streak(since) or len(values) < MIN_RUNS:
        return None
    seen = worst(values)
    proposed = rounded_bound(seen, higher_is_better=scale.higher_is_better)
    is_loose = proposed > bound * 1.05 if scale.higher_is_better else proposed < bound / 2
    return _hint(verdict, bound, seen, f"{len(values)} runs {said} {scale.show(seen)}") if is_loose else None


def red_streak(points: Sequence[Point], of: Collection[Outcome] = FAILURES) -> int:
    """Count the failures at the end of a history."""
    count = 0
    for point in reversed(points):
        if point.cell.outcome not in of:
            break
        count += 1
    return count


def _hint(verdict: Verdict, bound: float, seen: float, said: str) -> Hint:
    higher = verdict.scale is not None and verdict.scale.higher_is_better
    proposed = rounded_bound(seen, higher_is_better=higher)
    line = marker_line(verdict, _limit(verdict), proposed, was=bound, seen=seen)
    return Hint(sentence=f"bound {verdict.show(bound)}, {said}", line=line)


def _limit(verdict: Verdict) -> str:
    if verdict.memory is not None:
        return "max_ratio"
    return "min" if verdict.scale is not None and verdict.scale.higher_is_better else "max"


def _decisive(verdict: Verdict) -> float:
    """Return the number that has to keep the bound: of a speedup the lower end of its interval."""
    return verdict.speed.lower if verdict.speed is not None else verdict.observed or 0.0


def _is_number(value: float | None) -> bool:
    return value is not None and isfinite(value)
