"""Findings of an examination of the machine, and their layout on a screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from textwrap import wrap

WIDTH = 100  # columns
_LONGEST_SUBJECT = 24


class Mark(StrEnum):
    """The severity of a finding."""

    FINE = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was examined.

    Attributes:
        subject: What was examined.
        text: What was found.
        fix: What to do about it; None where nothing is to be done.
    """

    mark: Mark
    subject: str
    text: str
    fix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Findings of one kind, under a title."""

    title: str
    findings: tuple[Finding, ...]


_COLOURS = {Mark.FINE: {"green": True}, Mark.NOTE: {"yellow": True}, Mark.FAULT: {"red": True}}


def laid_out(sections: Sequence[Section]) -> Iterator[tuple[str, dict[str, bool]]]:
    """Yield a screen's lines and their colours: marks, subjects and texts aligned, each fix beneath its finding."""
    subjects = [len(finding.subject) for section in sections for finding in section.findings]
    column = min(max(subjects, default=0), _LONGEST_SUBJECT)
    for section in sections:
        yield section.title, {"bold": True}
        for finding in section.findings:
            yield from ((line, _COLOURS[finding.mark]) for line in _lines(finding, column))


def _lines(finding: Finding, column: int) -> Iterator[str]:
    indent = " " * (column + 11)
    width = WIDTH - len(indent)
    # Not wrap() alone: it would close up the columns of a text that fits.
    text = [finding.text] if len(finding.text) <= width else wrap(finding.text, width, break_on_hyphens=False)
    head = f"  {finding.mark:<5}  {finding.subject:<{column}}  "
    if len(head) > len(indent):
        yield head.rstrip()
    else:
        yield (head + text.pop(0)).rstrip()
    yield from (indent + line for line in text)
    fix = wrap(finding.fix or "", width - 3, break_on_hyphens=False, break_long_words=False)
    yield from (f"{indent}{'   ' if number else '-> '}{line}" for number, line in enumerate(fix))
