"""The terminal's section of what got worse: a headline for each, and below it what one needs to look into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_mxq.reports.failure import WORSE, fact_lines, models_of_several, subject, way_lines, word_of
from pytest_mxq.reports.paths import PAGE, shown_path
from pytest_mxq.reports.shortening import wrap
from pytest_mxq.reports.table import is_said_by_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mxq.gates.verdict import Verdict
    from pytest_mxq.reports.table import Layout, Line

MAX_LINES = 40
"""Lines of the section; the page has all of it."""

_MAX_FACT_LINES = 3
_INDENT = " " * 12


def regression_lines(verdicts: Sequence[Verdict], root: Path, layout: Layout) -> Iterator[Line]:
    """Yield a headline for each verdict that says that something got worse, with its details while there is space.

    Args:
        verdicts: every verdict.
        root: the project's root, to which a manifest's path is relative.
        layout: the terminal's.
    """
    worse = [verdict for verdict in verdicts if verdict.outcome in WORSE]
    several = models_of_several(verdict.cell for verdict in verdicts)
    headlines = [_headline(verdict, several, layout.width) for verdict in worse]
    left, said = MAX_LINES - sum(map(len, headlines)), set[str]()
    for place, (verdict, headline) in enumerate(zip(worse, headlines, strict=True)):
        if sum(map(len, headlines[: place + 1])) >= MAX_LINES:
            yield f"... {len(worse) - place} more: {shown_path(layout.report / PAGE)}", {}
            return
        yield from ((line, {"red": True}) for line in headline)
        facts = [line for line in fact_lines(verdict, root) if line not in said]  # gates of one arm share some
        details = [*_wrapped(facts, layout.width), *way_lines(verdict, layout.report)]
        if len(details) <= left:
            left -= len(details)
            said.update(facts)
            yield from ((line, {}) for line in details)


def _headline(verdict: Verdict, several: frozenset[str], width: int) -> list[str]:
    """Return what got worse and its numbers; a sentence that the table has is not said again."""
    said = verdict.sentence if is_said_by_numbers(verdict) else word_of(verdict.outcome)
    return wrap(f"{subject(verdict, several)}   {said}", width, subsequent_indent="  ", break_long_words=False)


def _wrapped(facts: Sequence[str], width: int) -> Iterator[str]:
    for fact in facts:
        lines = wrap(fact, width, subsequent_indent=_INDENT)
        yield from lines[:_MAX_FACT_LINES]
        yield from [f"{_INDENT}..."] if len(lines) > _MAX_FACT_LINES else []
