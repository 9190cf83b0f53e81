"""``summary.md``: what a run found, as text for a comment on a pull request and for the summary page of a CI job."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mxq.baselines.storage import write_atomically
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.failure import word_of

if TYPE_CHECKING:
    from pytest_mxq.gates.verdict import Cell, Verdict
    from pytest_mxq.reports.records import Report

MARK = "<!-- pytest-mxq -->"
"""The first line, by which a bot finds its earlier comment."""

MAX_TEXT = 300
"""Characters of one text of a row."""

MAX_LENGTH = 60_000
"""Characters of the whole: a comment on GitHub may have 65,536."""

_ROWS = (25, 5, 0)  # as many as the length allows
_ACTIVE = re.compile(r"[\\`*_{}\[\]<>()#|~&$!]")
_REFERENCE = re.compile(r"(?<=@)|(?<=&#35;)")
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")


def write_markdown(folder: Path, report: Report) -> None:
    """Write ``summary.md``.

    Raises:
        OSError: it could not be written; the file is as it was.
    """
    write_atomically(folder / "summary.md", summary_markdown(report).encode())


def summary_markdown(report: Report) -> str:
    """Return a report in GitHub's and GitLab's Markdown: one line where all is well, what is not, what was refreshed.

    It has at most 25 rows, and fewer where they would be too long for a comment.
    """
    texts = ("\n\n".join([MARK, *_parts(report, rows)]) + "\n" for rows in _ROWS)
    return next((text for text in texts if len(text) <= MAX_LENGTH), f"{MARK}\n")


def _parts(report: Report, rows: int) -> Iterator[str]:
    failures = [verdict for verdict in report.verdicts if verdict.outcome.is_failure]
    known = [verdict for verdict in report.verdicts if verdict.outcome is Outcome.KNOWN_REGRESSION]
    commands = [verdict.next_command for verdict in failures if verdict.next_command]
    yield f"**pytest-mxq**: {_headline(report)}"
    if report.status != "finished":
        yield _unfinished(report, rows)
    if rows and report.problems:
        yield "\n".join(f"- {escaped(text)}" for text in report.problems[:rows])
    if rows and (failures or known):
        yield _table([*failures, *known], rows)
    if rows and commands:
        yield f"<details><summary>next</summary>\n\n{_verbatim(commands[:rows])}\n</details>"
    refreshed = [verdict.sentence for verdict in report.verdicts if verdict.outcome is Outcome.REFRESHED]
    if rows and refreshed:
        lines = [line for sentence in refreshed[:rows] for line in sentence.splitlines()]
        yield _verbatim(lines) + _more(len(refreshed) - rows)


def escaped(text: str, limit: int = MAX_TEXT) -> str:
    r"""Return a text that Markdown shows as it is: no markup, no HTML, no mention, no reference to an issue, one line.

    >>> escaped("a|b `c` <img> @me #1")
    'a&#124;b &#96;c&#96; &#60;img&#62; @&#8203;me &#35;&#8203;1'
    """
    flat = _INVISIBLE.sub(" ", text).strip()
    cut = flat if len(flat) <= limit else f"{flat[: limit - 3]}..."
    entities = _ACTIVE.sub(lambda found: f"&#{ord(found.group())};", cut)
    return _REFERENCE.sub("&#8203;", entities)


def _headline(report: Report) -> str:
    counts = Counter(word_of(verdict.outcome) for verdict in report.verdicts)
    tally = ", ".join(f"{count} {word}" for word, count in counts.items()) or "no verdicts"
    return f"{tally} on {escaped(report.device.name)}"


def _unfinished(report: Report, rows: int) -> str:
    judged = {verdict.cell.nodeid for verdict in report.verdicts if verdict.outcome is not Outcome.NOT_RUN}
    left = [cell for cell in report.planned if cell.nodeid not in judged]
    text = f"**This run did not finish**: {len(judged)} of {len(report.planned)} planned gates were judged."
    names = f" Not judged: {', '.join(_name(cell) for cell in left[:rows])}" if left and rows else ""
    return f"{text}{names}{_more(len(left) - rows)}"


def _name(cell: Cell) -> str:
    return escaped(" ".join(filter(None, (cell.model, cell.case, cell.format, cell.gate))))


def _table(verdicts: Sequence[Verdict], rows: int) -> str:
    lines = ["| verdict | model | case | format | gate | reason |", "|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(map(escaped, _row(verdict)))} |" for verdict in verdicts[:rows]]
    return "\n".join(lines) + (f"\n\n{_more(len(verdicts) - rows)}" if len(verdicts) > rows else "")


def _row(verdict: Verdict) -> Iterator[str]:
    cell = verdict.cell
    yield from (word_of(verdict.outcome), cell.model, cell.case)
    yield cell.format + (" (emulated)" if verdict.emulated else "")
    yield from (cell.gate, verdict.sentence)


def _verbatim(lines: Sequence[str]) -> str:
    shown = "\n".join(html.escape(_INVISIBLE.sub(" ", line)) for line in lines)
    return f"<pre>\n{shown}\n</pre>"


def _more(count: int) -> str:
    return f" and {count} more: report.json" if count > 0 else ""
