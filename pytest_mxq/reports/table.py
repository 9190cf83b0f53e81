"""The table of verdicts in the terminal: one row a gate, below the case and the reference that it belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.failure import WORSE, word_of
from pytest_mxq.reports.paths import shown_path
from pytest_mxq.reports.shortening import wrap

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mxq.gates.verdict import Verdict
    from pytest_mxq.planning.settings import Settings

Markup: TypeAlias = dict[str, bool]
Line: TypeAlias = tuple[str, Markup]

_COLOURS: Mapping[Outcome, Markup] = {
    Outcome.PASS: {"green": True},
    Outcome.MARGINAL: {"green": True},
    Outcome.REFRESHED: {"green": True},
    Outcome.KNOWN_REGRESSION: {"yellow": True},
    Outcome.SKIPPED: {"yellow": True},
}
_HEADINGS = ("format", "gate", "verdict", "observed", "worst", "bound")
_MAX_REASON_LINES = 6
MAX_DETAILS = 40
"""Lines of reasons in a table; `report.json` has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the terminal shows verdicts.

    Attributes:
        width: columns that a row may take; numbers are never cut, so a row of long names may take more.
        has_skips: whether pytest lists the skips and their reasons below (``-rs``).
        report: the report's folder.
    """

    width: int
    has_skips: bool
    report: Path

    @classmethod
    def of(cls, terminal: Any, settings: Settings) -> Layout:
        """Return the layout for pytest's terminal reporter and the run's settings."""
        width = terminal.config.get_terminal_writer().fullwidth
        is_narrow = terminal.isatty or "COLUMNS" in os.environ  # a pipe has no width; pytest takes 80
        return cls(
            width=min(100, width) if is_narrow else 100,
            has_skips=terminal.hasopt("s") and not settings.strict,  # strict: a skip is a failure
            report=settings.report,
        )


def table_lines(verdicts: Sequence[Verdict], layout: Layout) -> Iterator[Line]:
    """Yield the rows, each case below its name and its reference, and why a verdict is not a pass."""
    if not verdicts:
        return
    rows = {id(verdict): _row(verdict) for verdict in verdicts}
    widths = [max(len(row[column]) for row in [_HEADINGS, *rows.values()]) for column in range(len(_HEADINGS))]
    is_wide = sum(widths) + 2 * len(widths) <= layout.width
    if is_wide:
        yield _aligned(_HEADINGS, widths), {"bold": True}
    details = 0
    for title, group in _groups(verdicts).items():
        yield title, {"bold": True}
        for verdict, following in zip_longest(group, group[1:]):
            markup = _COLOURS.get(verdict.outcome, {"red": True})
            shown = [_aligned(rows[id(verdict)], widths)] if is_wide else _stacked(rows[id(verdict)], layout.width)
            yield from ((line, markup) for line in shown)
            found = list(_details(verdict, following, layout))
            yield from ((line, markup) for line in islice(found, max(0, MAX_DETAILS - details)))
            details += len(found)
    if details > MAX_DETAILS:
        yield f"  ... {details - MAX_DETAILS} more lines of reasons: {shown_path(layout.report / 'report.json')}", {}


def _groups(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        cell, reference = verdict.cell, verdict.reference
        title = f"{cell.model}/{cell.case}" if cell.model else cell.case
        if reference is not None:
            title += f": reference {reference.mode}" + (f": {reference.reason}" if reference.mode == "live" else "")
        groups.setdefault(title, []).append(verdict)
    return groups


def _details(verdict: Verdict, following: Verdict | None, layout: Layout) -> Iterator[str]:
    """Yield why a verdict is not a pass, once for rows that follow each other, and what to do about it."""
    is_last = following is None or (following.outcome, following.sentence) != (verdict.outcome, verdict.sentence)
    if not verdict.outcome.is_good and not is_said_by_numbers(verdict) and is_last:
        yield from cut_lines(verdict.sentence, layout.width)
    is_last_command = following is None or following.next_command != verdict.next_command
    if verdict.outcome.is_failure and verdict.outcome not in WORSE and verdict.next_command and is_last_command:
        yield f"    next     {verdict.next_command}"


def is_said_by_numbers(verdict: Verdict) -> bool:
    """Tell whether the row itself says why: an observed number beside its bound."""
    return verdict.outcome is Outcome.REGRESSION and (verdict.scores is not None or verdict.speed is not None)


def cut_lines(text: str, width: int) -> list[str]:
    """Return a text in lines of at most ``width`` columns, indented by four, and dots where there are too many."""
    lines = _wrapped(text, width)
    return [*lines[:_MAX_REASON_LINES], "    ..."] if len(lines) > _MAX_REASON_LINES else lines


def _wrapped(text: str, width: int) -> list[str]:
    lines = wrap(" ".join(text.split()), width - 4, break_long_words=False)
    return [f"    {line}" for line in lines]


def _aligned(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _stacked(row: tuple[str, ...], width: int) -> list[str]:
    """Return a row for a narrow terminal: its numbers below it."""
    number_format, gate, word, observed, worst, bound = row
    numbers = ", ".join([observed, *(f"{name} {text}" for name, text in (("worst", worst), ("bound", bound)))])
    return [f"  {number_format}  {gate}  {word}", *([] if observed == "-" else _wrapped(numbers, width))]


def _row(verdict: Verdict) -> tuple[str, ...]:
    cell, show = verdict.cell, verdict.show
    sign = ">=" if verdict.scale is not None and verdict.scale.higher_is_better else "<="
    bounds = [bound for bound in (verdict.bound, verdict.worst_bound) if bound is not None]
    observed, worst = _observed(verdict)
    return (
        cell.format + (" (emulated)" if verdict.emulated else ""),
        cell.gate,
        word_of(verdict.outcome),
        observed,
        worst,
        f"{sign} {', '.join(map(show, bounds))}" if bounds else "-",
    )


def _observed(verdict: Verdict) -> tuple[str, str]:
    """Return the number that was compared, and the worst output, the interval or the peak beside it."""
    shown = "-" if verdict.observed is None else verdict.show(verdict.observed)
    if verdict.scores is not None:
        return shown, verdict.show(verdict.scores.worst)
    if verdict.speed is not None:
        return shown, f"[{verdict.speed.lower:.3f}, {verdict.speed.upper:.3f}]"
    if verdict.memory is not None:
        return shown, f"{verdict.memory.peak_gib:.2f} GiB"
    return "-", "-"
