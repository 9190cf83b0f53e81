"""What GitHub Actions shows of a run: annotations at its tests, and a section of the job's summary page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

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
        path = root / cell.nodeid.partition("::")[0]
        file = path.relative_to(workspace) if path.is_relative_to(workspace) else Path(path.name)
        title = f"{word_of(verdict.outcome)} {cell.model} {cell.format} {cell.gate}"
        yield f"::error file={_property(file.as_posix())},title={_property(title)}::{_data(verdict.sentence)}"


def append_summary(report: Report, environment: Mapping[str, str]) -> None:
    """Append a run's summary to the page of its job, where GitHub names one and it has space for it.

    Raises:
        OSError: it could not be written.
    """
    name = environment.get("GITHUB_STEP_SUMMARY")
    if not name:
        return
    path, data = Path(name), f"\n{summary_markdown(report)}".encode()
    if (path.stat().st_size if path.exists() else 0) + len(data) <= MAX_SUMMARY_BYTES:
        with path.open("ab") as file:
            file.write(data)


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
