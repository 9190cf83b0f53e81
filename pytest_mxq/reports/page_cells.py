"""What the page shows of one cell: its numbers, charts, images, evidence, environment and history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.charts import (
    Bar,
    Chart,
    Interval,
    curve,
    history_chart,
    memory_bars,
    rounds_chart,
    score_strip,
    speed_interval,
)
from pytest_mxq.reports.failure import word_of
from pytest_mxq.reports.proposals import Accept, Hint, accepting, history_hint, red_streak

if TYPE_CHECKING:
    from pytest_mxq.gates.evidence import Evidence
    from pytest_mxq.gates.speedup import SpeedFacts
    from pytest_mxq.gates.verdict import Cell, JudgedOutput, ReferenceNote, Verdict
    from pytest_mxq.reports.history import Point

_GIB = 2.0**30

# How an outcome looks: its group, and a symbol, so that nothing is told by colour alone.
_LOOKS: Mapping[Outcome, tuple[str, str]] = {
    Outcome.PASS: ("good", "✓"),
    Outcome.MARGINAL: ("good", "≈"),
    Outcome.REFRESHED: ("good", "↻"),
    Outcome.REGRESSION: ("bad", "✗"),
    Outcome.DEGENERATE: ("bad", "▦"),
    Outcome.NOT_QUANTIZED: ("bad", "∅"),
    Outcome.DEQUANTIZED: ("bad", "↩"),
    Outcome.KNOWN_REGRESSION: ("known", "◐"),
    Outcome.INCONCLUSIVE: ("unclear", "?"),
    Outcome.STALE: ("unclear", "≠"),
    Outcome.MISSING: ("unclear", "○"),
    Outcome.ENVIRONMENT: ("unclear", "⚠"),
    Outcome.ERROR: ("unclear", "!"),
    Outcome.NOT_RUN: ("unclear", "…"),
    Outcome.SKIPPED: ("skip", "-"),
}
_ORDER = ("bad", "unclear", "known", "good", "skip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How an outcome looks: its word, its group ("bad", "unclear", "known", "good", "skip") and its symbol."""

    word: str
    group: str
    symbol: str

    @classmethod
    def of(cls, outcome: Outcome) -> Look:
        """Return the look of an outcome."""
        group, symbol = _LOOKS[outcome]
        return cls(word=word_of(outcome), group=group, symbol=symbol)

    @property
    def rank(self) -> int:
        """Return the place among the groups, failures first."""
        return _ORDER.index(self.group)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRow:
    """One image or video: its value (of a video its worst frame's), prompt and files."""

    index: int
    value: str
    group: str
    output: JudgedOutput
    curve: str | None = None

    @property
    def is_copy(self) -> bool:
        """Tell whether its images are compressed: their difference is not that of the outputs alone."""
        return (self.output.quantized or "").endswith(".jpg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A named fact, here and in the baseline; ``stored`` is None where only this run has it."""

    name: str
    here: str
    stored: str | None = None

    @property
    def differs(self) -> bool:
        """Tell whether the baseline comes from another."""
        return self.stored is not None and self.stored != self.here


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One cell's runs: the chart, how many failed in a row at the end, and what to do about the bound."""

    chart: Chart
    red: int
    hint: Hint | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView:
    """One cell on the page; parts that it has no data for are None or empty.

    Attributes:
        anchor: its element's id, and its name in a link.
        host: where it ran, for pages of several runs.
    """

    anchor: str
    cell: Cell
    look: Look
    verdict: Verdict
    observed: str
    limit: str
    figures: tuple[tuple[str, str], ...]
    strip: Chart | None
    outputs: tuple[OutputRow, ...]
    rounds: Chart | None
    interval: Interval | None
    bars: tuple[Bar, ...]
    environment: tuple[Fact, ...]
    history: History | None
    accept: Accept | None
    host: str | None = None

    @property
    def label(self) -> str:
        """Return format and, where it was so, that it was emulated."""
        return f"{self.cell.format} (emulated)" if self.verdict.emulated else self.cell.format

    @property
    def shown(self) -> tuple[OutputRow, ...]:
        """Return the outputs that files show, the worst first."""
        return tuple(row for row in self.outputs if row.output.quantized is not None)

    @property
    def picks(self) -> tuple[OutputRow, ...]:
        """Return those of them that have a button above the images: the worst ones, which are lossless."""
        return tuple(row for row in self.shown if not row.is_copy)


def view_cell(verdict: Verdict, points: Sequence[Point], here: Mapping[str, str], anchor: str) -> CellView:
    """Return what the page shows of a verdict.

    Args:
        verdict: the verdict.
        points: its history, the oldest first, this run included.
        here: what is recorded of this machine beside the verdict's own fingerprint.
        anchor: its name, which no other cell has.
    """
    look, scale, strip = Look.of(verdict.outcome), verdict.scale, _strip(verdict)
    speed, memory, evidence = verdict.speed, verdict.memory, verdict.evidence
    return CellView(
        anchor=anchor,
        cell=verdict.cell,
        look=look,
        verdict=verdict,
        observed="" if verdict.observed is None else verdict.show(verdict.observed),
        limit=_limit(verdict, verdict.bound),
        figures=tuple(_figures(verdict)),
        strip=strip,
        outputs=tuple(_output_rows(verdict, strip)),
        rounds=rounds_chart(speed) if speed is not None and speed.samples.quantized else None,
        interval=speed_interval(speed, verdict.bound) if speed is not None and verdict.bound is not None else None,
        bars=()
        if memory is None
        else memory_bars(
            memory,
            weights_gib=evidence.weight_bytes / _GIB if evidence is not None else None,
            bf16_weights_gib=evidence.bf16_bytes / _GIB if evidence is not None else None,
        ),
        environment=tuple(_environment(verdict.reference, verdict.fingerprint or {}, here)),
        history=_history(points, verdict) if scale is not None else None,
        accept=accepting(verdict),
    )


def _limit(verdict: Verdict, bound: float | None) -> str:
    """Return a bound as people read it, ``≤ 0.0020``; empty without one."""
    if bound is None or verdict.scale is None:
        return ""
    return f"{'≥' if verdict.scale.higher_is_better else '≤'} {verdict.show(bound)}"


def _bounded(verdict: Verdict, value: float, bound: float | None) -> str:
    limit = _limit(verdict, bound)
    return f"{verdict.show(value)}, bound {limit}" if limit else verdict.show(value)


def _figures(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Yield the numbers behind a verdict, as (name, value)."""
    show, scores = verdict.show, verdict.scores
    if scores is not None:
        yield "mean", _bounded(verdict, scores.mean, verdict.bound)
        yield "worst", _bounded(verdict, scores.worst, verdict.worst_bound)
        yield "90 % are not beyond", show(scores.p90)
        if isfinite(scores.mean_bound_95):
            yield "95 % bound of the mean", show(scores.mean_bound_95)
    if verdict.speed is not None:
        yield from _speed_figures(verdict.speed)
    if verdict.memory is not None:
        yield "reserved by torch", f"{verdict.memory.reserved_gib:.2f} GiB"
        yield "quantized weights", f"{verdict.memory.weight_ratio:.3f} of BF16's"
    if scores is not None and verdict.reference is not None and verdict.reference.noise_repeat is not None:
        compiled = verdict.reference.noise_compiled
        tail = "" if compiled is None else f", eager against compiled {compiled:.4f}"
        yield "BF16 against BF16", f"{verdict.reference.noise_gate} {verdict.reference.noise_repeat:.4f}{tail}"


def _speed_figures(speed: SpeedFacts) -> Iterator[tuple[str, str]]:
    samples = speed.samples
    yield "interval", f"{speed.lower:.3f}x to {speed.upper:.3f}x, each end right with {1 - speed.alpha:.0%}"
    yield "rounds", f"{speed.n}, {speed.mode}" + (f", {len(samples.voided)} voided" if samples.voided else "")
    if samples.throttle_share is not None:
        yield "slowed down", f"in {samples.throttle_share:.0%} of the rounds"
    if samples.power_cap_share is not None:
        yield "at the power cap", f"in {samples.power_cap_share:.0%} of the rounds (normal under load)"
    if samples.first_call:
        yield "first calls", " and ".join(f"{seconds:.1f} s" for seconds in samples.first_call)
    if samples.execution:
        yield "execution", samples.execution


def _strip(verdict: Verdict) -> Chart | None:
    scores, scale = verdict.scores, verdict.scale
    if scores is None or scale is None:
        return None
    bounds = [
        ("bound", "bound of the mean", verdict.bound),
        ("worst", "bound of the worst", verdict.worst_bound),
        ("noise", "BF16 against BF16", _noise(verdict)),
    ]
    names = [_short(output.prompt) for output in verdict.outputs]
    return score_strip(scores, scale, names, bounds)


def _noise(verdict: Verdict) -> float | None:
    """Return BF16 against BF16 on the gate's own scale: as stored at refresh, or as this run's drift check found it."""
    reference = verdict.reference
    if reference is None:
        return None
    if reference.noise_gate == verdict.cell.gate:
        return reference.noise_repeat
    return next((drift.value for drift in reference.drift if drift.gate == verdict.cell.gate), None)


def _output_rows(verdict: Verdict, strip: Chart | None) -> Iterator[OutputRow]:
    """Yield every output, the worst first; without scores in their order."""
    scores, scale, outputs = verdict.scores, verdict.scale, verdict.outputs
    if scores is None or scale is None or strip is None:
        for index, output in enumerate(outputs):
            yield OutputRow(index=index, value="", group="none", output=output)
        return
    for dot in strip.dots:
        if dot.index is None or dot.index >= len(outputs):  # a record of an earlier version knows no outputs
            continue
        values = scores.values[dot.index * scores.frames : (dot.index + 1) * scores.frames]
        worst = min(values) if scale.higher_is_better else max(values)
        shows_curve = scores.frames > 1 and outputs[dot.index].quantized is not None
        yield OutputRow(
            index=dot.index,
            value=scale.show(worst),
            group=dot.kind,
            output=outputs[dot.index],
            curve=curve(values, from_zero=not scale.higher_is_better) if shows_curve else None,
        )


def _environment(
    reference: ReferenceNote | None, hard: Mapping[str, str], recorded: Mapping[str, str]
) -> Iterator[Fact]:
    """Yield the facts of this run beside the baseline's, those that differ first."""
    stored = reference.fingerprint if reference is not None else None
    if stored is None:
        return
    pairs = [(stored.hard, hard), (stored.recorded, recorded)]
    facts = [
        Fact(name=name, here=here.get(name, "(absent)"), stored=there.get(name, "(absent)"))
        for there, here in pairs
        for name in sorted(there.keys() | here.keys())
    ]
    yield from sorted(facts, key=lambda fact: not fact.differs)


def _history(points: Sequence[Point], verdict: Verdict) -> History | None:
    scale = verdict.scale
    shown = [point for point in points if point.cell.observed is not None]
    if scale is None or len(shown) < 2:
        return None
    rows = [
        (
            point.cell.observed or 0.0,
            point.cell.bound,
            not point.cell.outcome.is_failure,
            f"{scale.show(point.cell.observed or 0.0)}  {point.cell.outcome}  {_when(point)}",
        )
        for point in shown
    ]
    return History(chart=history_chart(rows, scale), red=red_streak(points), hint=history_hint(points, verdict))


def _when(point: Point) -> str:
    return f"{point.created[:16].replace('T', ' ')}  {point.commit or ''}".strip()


def quantized_layers(evidence: Evidence) -> tuple[tuple[str, int], ...]:
    """Return the names of the quantized layers, numbers written as ``*``, with their count, the most first."""
    return tuple(sorted(evidence.layers.items(), key=lambda item: (-item[1], item[0])))


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:120]}…"
