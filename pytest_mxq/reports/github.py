"""What GitHub Actions shows of a run: annotations at its tests, and a section of the job's summary page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from pytest_mxq.baselines.storage import write_atomically
from pytest_mxq.planning.gate_param import file_of
from pytest_mxq.reports.failure import word_of
from pytest_mxq.reports.markdown import summary_markdown

if TYPE_CHECKING:
    from pytest_mxq.gates.verdict import Verdict
    from pytest_mxq.reports.records import Report

MAX_ANNOTATIONS = 10
"""GitHub shows as many errors of one step."""

MAX_SUMMARY_BYTES = 2**20
"""GitHub rejects a step's whole summary where it is larger."""


def error_commands(verdicts: Iterable[Verdict], root: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a workflow command for each of the first ten failures; none outside of GitHub Actions.

    Args:
        verdicts: every verdict.
        root: the project's root, to which nodeids are relative.
        environment: the process's variables.
    """
    if environment.get("GITHUB_ACTIONS") != "true":
        return
    workspace = Path(environment.get("GITHUB_WORKSPACE") or root)
    failures = (verdict for verdict in verdicts if verdict.outcome.is_failure)
    for verdict in islice(failures, MAX_ANNOTATIONS):
        cell = verdict.cell
        path = root / file_of(cell.nodeid)
        file = path.relative_to(workspace) if path.is_relative_to(workspace) else Path(path.name)
        title = f"{word_of(verdict.outcome)} {cell.model} {cell.format} {cell.gate}"
        yield f"::error file={_property(file.as_posix())},title={_property(title)}::{_data(verdict.sentence)}"


class StepSummary:
    """Writes a run's part of the page of its GitHub job, from its start on: a cancelled job is killed without a word.

    What others wrote before and behind it stays, and it is left out where the page has no space for it.

    Args:
        path: the file that GitHub names.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        name = uuid4().hex[:8]
        self._start, self._end = f"\n<!-- pytest-mxq run {name} -->\n".encode(), f"<!-- end of {name} -->\n".encode()

    def __call__(self, _folder: Path, report: Report) -> None:
        """Write it in place of what was written of the run by now.

        Raises:
            OSError: it could not be written; the file is as it was.
        """
        old = self._path.read_bytes() if self._path.exists() else b""
        before, _, rest = old.partition(self._start)
        after = rest.partition(self._end)[2]
        data = b"".join([before, self._start, summary_markdown(report).encode(), self._end, after])
        if len(data) <= MAX_SUMMARY_BYTES:
            write_atomically(self._path, data)


def step_summaries(environment: Mapping[str, str]) -> list[StepSummary]:
    """Return what writes the page of the job; nothing outside of GitHub Actions."""
    name = environment.get("GITHUB_STEP_SUMMARY")
    return [StepSummary(Path(name))] if name else []


def _data(text: str) -> str:
    r"""Return a message as GitHub's runner reads it (actions/toolkit, ``escapeData``).

    >>> _data("5 %\n::error::no")
    '5 %25%0A::error::no'
    """
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Return the value of a command's property (actions/toolkit, ``escapeProperty``).

    >>> _property("a:b,c")
    'a%3Ab%2Cc'
    """
    return _data(text).replace(":", "%3A").replace(",", "%2C")
