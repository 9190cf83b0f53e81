"""What the page shows of a run: the headline, the matrix of all cells, what was not run, and each cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import Verdict
from pytest_mxq.reports.failure import models_of_several
from pytest_mxq.reports.history import Key, Point, points_of
from pytest_mxq.reports.page_cells import CellView, Look, view_cell
from pytest_mxq.reports.paths import anchor_of

if TYPE_CHECKING:
    from pytest_mxq.reports.records import Report

_SOFTWARE = ("torch", "torchao", "diffusers", "transformers", "triton", "driver_major", "python")

MAX_MISSING = 20
"""Cases with missing gates that the page names; the matrix has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many cells have an outcome."""

    outcome: str
    look: Look
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the matrix: a case, and its cells in the order of the columns; None where nothing was planned."""

    model: str
    case: str
    cells: tuple[CellView | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRun:
    """Cells that were not judged for one reason."""

    reason: str
    look: Look
    cells: tuple[CellView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page.

    Attributes:
        headline: the answer to "what got worse?".
        group: how it looks: "bad", "unclear", "good" or "skip".
        counts: the outcomes with their number, failures first.
        heads: the formats of the matrix, each with its gates.
        cells: every cell, failures first.
        red: those that fail.
        missing: the cases with planned gates of which the report has no verdict, each with those gates' names.
        facts: what ran where, as (name, value).
        filters: what the cells can be filtered by, as (name, values); a name with one value is left out.
    """

    report: Report
    headline: str
    group: str
    counts: tuple[Count, ...]
    heads: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[Row, ...]
    cells: tuple[CellView, ...]
    red: tuple[CellView, ...]
    missing: tuple[tuple[str, str], ...]
    not_run: tuple[NotRun, ...]
    facts: tuple[tuple[str, str], ...]
    filters: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def several(self) -> frozenset[str]:
        """Return the models with more than one case, whose name alone does not tell which one is meant."""
        return models_of_several(view.cell for view in self.cells)

    @property
    def data(self) -> dict[str, Any]:
        """Return what the page's script knows of the cells."""
        return {
            "cells": [
                {
                    "anchor": view.anchor,
                    "verdict": view.verdict.outcome.value,
                    "model": view.cell.model,
                    "format": view.cell.format,
                    "gate": view.cell.gate,
                    "accept": None if view.accept is None else {"kind": view.accept.kind, "text": view.accept.text},
                }
                for view in self.cells
            ]
        }


def build_page(report: Report, history: Mapping[Key, list[Point]]) -> Page:
    """Return the page of a report.

    Args:
        report: the report.
        history: the runs of each cell, this one included.
    """
    views = list(_views(report, history))
    cells = tuple(sorted(views, key=lambda view: view.look.rank))
    red = tuple(view for view in cells if view.look.group in {"bad", "unclear"})
    headline, group = _headline(cells, report.problems)
    if report.status != "finished":
        judged = f"{len(report.verdicts)} of {len(report.planned)} gates were judged"
        headline, group = f"This run did not finish: {judged} when this page was written. {headline}", "bad"
    heads = _heads(views)
    return Page(
        report=report,
        headline=headline,
        group=group,
        counts=tuple(_counts(cells)),
        heads=heads,
        rows=tuple(_rows(views, heads)),
        cells=cells,
        red=red,
        missing=tuple(_missing(report)),
        not_run=tuple(_not_run(cells)),
        facts=tuple(_facts(report)),
        filters=tuple(_filters(cells)),
    )


def _views(report: Report, history: Mapping[Key, list[Point]]) -> Iterator[CellView]:
    taken: Counter[str] = Counter()
    for verdict in [*report.verdicts, *_unjudged(report)]:
        anchor = anchor_of(verdict.cell)
        taken[anchor] += 1
        unique = anchor if taken[anchor] == 1 else f"{anchor}-{taken[anchor]}"
        points = points_of(history, report.device.slug, verdict.cell, emulated=verdict.emulated)
        yield view_cell(verdict, points, report.fingerprint.recorded, unique)


def _unjudged(report: Report) -> Iterator[Verdict]:
    """Yield a verdict for each planned cell of which the report has none."""
    judged = {verdict.cell.nodeid for verdict in report.verdicts}
    for cell in report.planned:
        if cell.nodeid not in judged:
            yield Verdict(cell=cell, outcome=Outcome.NOT_RUN, sentence="planned, and not judged by then")


def _missing(report: Report) -> Iterator[tuple[str, str]]:
    parts: dict[str, list[str]] = {}
    for cell in (verdict.cell for verdict in _unjudged(report)):
        parts.setdefault(f"{cell.model} {cell.case}".strip(), []).append(f"{cell.format} {cell.gate}")
    for name, gates in list(parts.items())[:MAX_MISSING]:
        yield name, ", ".join(gates)
    if len(parts) > MAX_MISSING:
        yield "and more", f"{len(parts) - MAX_MISSING} cases"


def _headline(cells: Sequence[CellView], problems: Sequence[str]) -> tuple[str, str]:
    groups = Counter(view.look.group for view in cells)
    judged = len(cells) - groups["skip"]
    gates = "1 gate" if judged == 1 else f"{judged} gates"
    unclear = f"{groups['unclear']} could not be judged"
    if groups["bad"]:
        return f"{groups['bad']} of {gates} got worse" + (f", {unclear}" if groups["unclear"] else ""), "bad"
    if groups["unclear"]:
        return f"Nothing got worse as far as it was judged; {unclear} of {gates}", "unclear"
    if not judged:
        return "Nothing was judged", "unclear" if problems else "skip"
    if problems:
        return f"{gates} passed, and the run has a problem", "unclear"
    if groups["known"]:
        return f"Nothing new: {groups['known']} known of {gates}", "good"
    return "The gate passed" if judged == 1 else f"All {gates} passed", "good"


def _counts(cells: Iterable[CellView]) -> Iterator[Count]:
    found = Counter(view.verdict.outcome for view in cells)
    for outcome in sorted(found, key=lambda outcome: Look.of(outcome).rank):
        yield Count(outcome=outcome.value, look=Look.of(outcome), count=found[outcome])


def _heads(views: Iterable[CellView]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    gates: dict[str, dict[str, None]] = {}
    for view in views:
        gates.setdefault(view.label, {})[view.cell.gate] = None
    return tuple((name, tuple(found)) for name, found in gates.items())


def _rows(views: Iterable[CellView], heads: Sequence[tuple[str, tuple[str, ...]]]) -> Iterator[Row]:
    columns = {(name, gate): place for place, (name, gate) in enumerate((n, g) for n, gates in heads for g in gates)}
    rows: dict[tuple[str, str], list[CellView | None]] = {}
    for view in views:
        row = rows.setdefault((view.cell.model, view.cell.case), [None] * len(columns))
        row[columns[view.label, view.cell.gate]] = view
    for (model, case), cells in rows.items():
        yield Row(model=model, case=case, cells=tuple(cells))


def _not_run(cells: Iterable[CellView]) -> Iterator[NotRun]:
    groups: dict[tuple[Outcome, str], list[CellView]] = {}
    for view in cells:
        if view.verdict.outcome in {Outcome.NOT_RUN, Outcome.SKIPPED}:
            groups.setdefault((view.verdict.outcome, view.verdict.sentence), []).append(view)
    for (outcome, reason), found in groups.items():
        yield NotRun(reason=reason, look=Look.of(outcome), cells=tuple(found))


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    settings = report.settings
    known = {**report.fingerprint.recorded, **report.fingerprint.hard}
    yield "run", report.created.replace("T", " ")
    yield "commit", report.commit or "not known"
    yield "device", f"{report.device.name} ({report.device.slug})"
    yield "software", ", ".join(f"{name.replace('_', ' ')} {known[name]}" for name in _SOFTWARE if name in known)
    yield "reference", _references(report.verdicts, settings.reference)
    age = baseline_age(report.verdicts, report.created)
    if age is not None:
        yield "baselines", age
    flags = [name for name in ("refresh", "emulate", "strict", "random_weights") if getattr(settings, name)]
    if flags:
        yield "options", ", ".join(flag.replace("_", " ") for flag in flags)


def _references(verdicts: Iterable[Verdict], chosen: str) -> str:
    """Return which reference was chosen, and what the cases were held against."""
    used = {(v.cell.model, v.cell.case): v.reference.mode for v in verdicts if v.reference is not None}
    modes = Counter(used.values())
    said = [mode if len(modes) == 1 else f"{mode} for {count} of {len(used)} cases" for mode, count in modes.items()]
    return ": ".join(dict.fromkeys([chosen, ", ".join(said) or chosen]))


def baseline_age(verdicts: Iterable[Verdict], now: str) -> str | None:
    """Return how old the stored baselines are, from the oldest to the newest, used or not; None without any."""
    notes = [verdict.reference for verdict in verdicts if verdict.reference is not None]
    dates = sorted({note.created[:10] for note in notes if note.created})
    if not dates:
        return None
    try:
        days = (datetime.fromisoformat(now[:10]) - datetime.fromisoformat(dates[0])).days
    except ValueError:
        return ", ".join(dates)
    stored = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    unused = "" if any(note.mode == "stored" for note in notes) else ", not used"
    return f"stored {stored}, {days} {'day' if days == 1 else 'days'} old{unused}"


def _filters(cells: Sequence[CellView]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in ("model", "format", "gate"):
        values = tuple(dict.fromkeys(getattr(view.cell, name) for view in cells))
        if len(values) > 1:
            yield name, values
