"""Where the marks of the page's charts stand, in percent of a chart's width and height; the template makes SVG of them.

Percentages let a chart take any width while its dots stay round and its letters keep their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite, isnan
from statistics import median
from typing import TYPE_CHECKING

from pytest_mxq.gates.scores import worst_first

if TYPE_CHECKING:
    from pytest_mxq.gates.base import Scale
    from pytest_mxq.gates.memory import MemoryFacts
    from pytest_mxq.gates.scores import Scores
    from pytest_mxq.gates.speedup import SpeedFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One value: its place from the left and from the top, how it looks, and what is said of it."""

    x: float
    y: float
    kind: str
    label: str
    index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A value that holds for the whole chart, or from one place to another; a ``label`` stands in the legend.

    Attributes:
        y: its place from the top; of an upright line its start.
        left: where it begins, from the left.
        right: where it ends.
        end: where an upright line ends, from the top; None of a level one.
    """

    y: float
    kind: str
    label: str = ""
    left: float = 0.0
    right: float = 100.0
    end: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Dots over lines.

    Attributes:
        summary: what the chart shows, in one sentence: its alternative text.
        low: the number at the bottom, as people read it.
        high: the number at the top.
    """

    summary: str
    dots: tuple[Dot, ...]
    lines: tuple[Line, ...]
    low: str
    high: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A ratio with its interval against a bound, from left to right."""

    lower: float
    middle: float
    upper: float
    bound: float
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A length in percent of the longest, and the part of it that is shaded."""

    name: str
    length: float
    shaded: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Numbers from the bottom of a chart to its top; what is not finite stands at the edge."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float], *, from_zero: bool) -> Axis:
        """Return an axis that shows all finite values with a little space at both ends.

        >>> Axis.over([1.0, 3.0], from_zero=False)
        Axis(low=0.84, high=3.16)
        """
        finite = [value for value in values if isfinite(value)] or [0.0]
        low, high = min(finite), max(finite)
        if from_zero:
            low = min(0.0, low)
        space = 0.08 * (high - low) or abs(high) or 1.0
        return cls(low=low if from_zero and low == 0 else low - space, high=high + space)

    def top(self, value: float) -> float:
        """Return the place of a value, in percent from the top.

        >>> Axis(low=0.0, high=4.0).top(1.0)
        75.0
        """
        if isnan(value):
            return 2.0
        share = (value - self.low) / (self.high - self.low)
        return round(100 - 100 * min(0.98, max(0.02, share)), 1)


def across(index: int, count: int) -> float:
    """Return the place of one of some columns, in percent from the left.

    >>> [across(index, 4) for index in range(4)]
    [12.5, 37.5, 62.5, 87.5]
    """
    return round(100 * (index + 0.5) / count, 2)


def score_strip(
    scores: Scores, scale: Scale, names: Sequence[str], bounds: Sequence[tuple[str, str, float | None]]
) -> Chart:
    """Return every output's value, the worst first: one chaotic prompt and a shift of all are told apart.

    Args:
        scores: the values; of a video its worst frame.
        scale: how they read.
        names: what is said of each output: its prompt.
        bounds: further values as (kind, name, value), such as the bound; those of None are left out.
    """
    order = worst_first(scores.values, higher_is_better=scale.higher_is_better, frames=scores.frames)
    lines = [*bounds, ("mean", "mean", scores.mean)]
    stated = [(kind, name, value) for kind, name, value in lines if value is not None]
    limits = {kind: value for kind, _, value in stated}
    axis = Axis.over([*scores.values, *limits.values()], from_zero=not scale.higher_is_better)
    dots = []
    for rank, place in enumerate(order):
        value, output = scores.values[place], place // scores.frames
        label = f"{scale.show(value)}  {names[output] if output < len(names) else ''}"
        kind = _dot_kind(value, limits, scale)
        dots.append(Dot(x=across(rank, len(order)), y=axis.top(value), kind=kind, label=label, index=output))
    shown = ", ".join(f"{name} {scale.show(value)}" for _, name, value in stated)
    return Chart(
        summary=f"{len(order)} values, the worst first, from {scale.show(scores.worst)}; {shown}",
        dots=tuple(dots),
        lines=tuple(
            Line(y=axis.top(value), kind=kind, label=f"{name} {scale.show(value)}") for kind, name, value in stated
        ),
        low=scale.show(axis.low),
        high=scale.show(axis.high),
    )


def _dot_kind(value: float, limits: dict[str, float], scale: Scale) -> str:
    """Return "bad" beyond the worst output's bound, "over" beyond the mean's, "good" within both."""
    if "worst" in limits and not scale.holds(value, limits["worst"]):
        return "bad"
    return "over" if "bound" in limits and not scale.holds(value, limits["bound"]) else "good"


def rounds_chart(speed: SpeedFacts) -> Chart:
    """Return every round of both arms, in the order in which they ran; of stored times each session's median."""
    samples = speed.samples
    bf16 = samples.bf16 or tuple(median(session) for session in samples.sessions)
    axis = Axis.over([*bf16, *samples.quantized], from_zero=False)
    said = "round" if samples.bf16 else "median of stored session"
    arms = (("bf16", "BF16", bf16, said), ("quantized", "quantized", samples.quantized, "round"))
    dots = [
        Dot(
            x=across(index, len(times)),
            y=axis.top(value),
            kind=kind,
            label=f"{name}, {what} {index + 1}: {value:.4f} s",
        )
        for kind, name, times, what in arms
        for index, value in enumerate(times)
    ]
    medians = (("bf16", "BF16", speed.bf16_seconds), ("quantized", "quantized", speed.quantized_seconds))
    return Chart(
        summary=f"seconds a call: BF16 median {speed.bf16_seconds:.4f}, quantized {speed.quantized_seconds:.4f}",
        dots=tuple(dots),
        lines=tuple(
            Line(y=axis.top(value), kind=kind, label=f"{name} median {value:.4f} s") for kind, name, value in medians
        ),
        low=f"{axis.low:.3f} s",
        high=f"{axis.high:.3f} s",
    )


def speed_interval(speed: SpeedFacts, bound: float) -> Interval:
    """Return the speedup with its interval against the bound."""
    axis = Axis.over([speed.lower, speed.upper, bound, 1.0], from_zero=False)

    def left(value: float) -> float:
        return round(100 - axis.top(value), 1)

    return Interval(
        lower=left(speed.lower),
        middle=left(speed.speedup),
        upper=left(speed.upper),
        bound=left(bound),
        summary=f"speedup {speed.speedup:.3f}x, interval {speed.lower:.3f} to {speed.upper:.3f}, bound {bound:.3f}",
    )


def memory_bars(memory: MemoryFacts, *, weights_gib: float | None, bf16_weights_gib: float | None) -> tuple[Bar, ...]:
    """Return peak memory of both arms, with the part that the quantized weights (or theirs in BF16) take."""
    rows = [("BF16", memory.bf16_peak_gib, bf16_weights_gib), ("quantized", memory.peak_gib, weights_gib)]
    stated = [(name, peak, weights or 0.0) for name, peak, weights in rows if peak is not None]
    longest = max((peak for _, peak, _ in stated if isfinite(peak)), default=1.0) or 1.0
    return tuple(
        Bar(
            name=name,
            length=round(100 * peak / longest, 1) if isfinite(peak) else 100.0,
            shaded=round(100 * min(weights / longest, 1.0), 1),
            label=f"{peak:.2f} GiB"
            + (f", of it {weights:.2f} GiB in the quantized layers' weights" if weights else ""),
        )
        for name, peak, weights in stated
    )


def history_chart(points: Sequence[tuple[float, float | None, bool, str]], scale: Scale) -> Chart:
    """Return one cell's values over the runs, the latest last, each with the bound that held then.

    Args:
        points: (value, bound, whether it passed, what is said of the run), the oldest first.
        scale: how they read.
    """
    bounds = [bound for _, bound, _, _ in points if bound is not None]
    axis = Axis.over([*(value for value, *_ in points), *bounds], from_zero=not scale.higher_is_better)
    dots = [
        Dot(x=across(index, len(points)), y=axis.top(value), kind="good" if passed else "bad", label=label)
        for index, (value, _, passed, label) in enumerate(points)
    ]
    return Chart(
        summary=f"{len(points)} runs, the latest last: {scale.show(points[-1][0])}",
        dots=tuple(dots),
        lines=tuple(_bound_steps([bound for _, bound, _, _ in points], axis, scale)),
        low=scale.show(axis.low),
        high=scale.show(axis.high),
    )


def _bound_steps(bounds: Sequence[float | None], axis: Axis, scale: Scale) -> Iterator[Line]:
    """Yield the bound of each run as a line with steps; the latest one and the one before it are named."""
    steps = [(bound, len(list(run))) for bound, run in groupby(bounds)]
    stated = [bound for bound, _ in steps if bound is not None]
    was = f" (before: {scale.show(stated[-2])})" if len(stated) > 1 else ""
    start, before = 0, None
    for place, (bound, count) in enumerate(steps, 1):
        left, right = (round(100 * index / len(bounds), 2) for index in (start, start + count))
        start += count
        if bound is not None and before is not None:
            yield Line(y=axis.top(before), end=axis.top(bound), kind="bound", left=left, right=left)
        if bound is not None:
            label = f"bound {scale.show(bound)}{was}" if place == len(steps) else ""
            yield Line(y=axis.top(bound), kind="bound", label=label, left=left, right=right)
        before = bound


def curve(values: Sequence[float], *, from_zero: bool) -> str:
    """Return the points of a polyline over 100 x 100 units, such as one video's values by frame.

    >>> curve([0.0, 1.0], from_zero=True)
    '0.0,98.0 100.0,7.4'
    """
    axis, last = Axis.over(values, from_zero=from_zero), max(1, len(values) - 1)
    return " ".join(f"{round(100 * index / last, 1)},{axis.top(value)}" for index, value in enumerate(values))
