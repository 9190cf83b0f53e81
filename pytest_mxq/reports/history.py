"""The history of all cells: one line a run in ``history.jsonl``. The page shows it; no verdict depends on it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from pytest_mxq.baselines.storage import locked
from pytest_mxq.errors import ReportInvalidError
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.records import converted, jsonable

if TYPE_CHECKING:
    from pytest_mxq.gates.verdict import Cell, Verdict
    from pytest_mxq.reports.records import Report

SCHEMA_VERSION: Final = 1

SHOWN_RUNS = 50
"""Runs of a cell that the page shows."""

_READ_RUNS = 200
"""Lines that are read from the end: a run of a few cells must not hide the history of the others."""

_NOT_JUDGED = {Outcome.SKIPPED, Outcome.NOT_RUN, Outcome.REFRESHED}

# Numbers of two devices, or of emulated and native numerics, are no series.
Key: TypeAlias = tuple[str, str, str, str, str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRun:
    """One cell in one run, with the numbers of its verdict."""

    model: str
    case: str
    format: str
    gate: str
    emulated: bool
    outcome: Outcome
    observed: float | None = None
    worst: float | None = None
    bound: float | None = None
    worst_bound: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: when, of which commit, on which kind of device, and its judged cells; one line of the file."""

    schema_version: Literal[1] = SCHEMA_VERSION
    created: str
    commit: str | None
    device: str
    cells: tuple[CellRun, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One cell in one run, with the run's date and commit."""

    created: str
    commit: str | None
    cell: CellRun


def run_of(report: Report) -> Run | None:
    """Return the line of a report; None where it judged nothing."""
    cells = tuple(_cell_run(verdict) for verdict in report.verdicts if verdict.outcome not in _NOT_JUDGED)
    return Run(created=report.created, commit=report.commit, device=report.device.slug, cells=cells) if cells else None


def append_run(path: Path, run: Run) -> None:
    """Add a run's line; a line that another writer left unfinished stays apart from it.

    Raises:
        OSError: it cannot be written, or it cannot be locked within a minute.
    """
    text = json.dumps(jsonable(msgspec.to_builtins(run), str), allow_nan=False, separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock")) as is_locked:
        if not is_locked:
            raise OSError(f"{path.name}: its file system has no locks; choose another place by --mxq-history=FILE")
        with path.open("ab+") as file:
            start = "\n" if file.tell() and not _ends_a_line(file.name) else ""
            file.write(f"{start}{text}\n".encode())


def read_history(path: Path, tell: Callable[[str], object] = str) -> dict[Key, list[Point]]:
    """Return the last runs of each cell, the oldest first; lines that hold no run are left out, and stay in the file.

    Args:
        path: the file.
        tell: is told of a line that another version of this package seems to have written.

    Raises:
        OSError: the file is there and cannot be read.
    """
    found: dict[Key, deque[Point]] = {}
    for run in _read_runs(path, tell):
        for cell in run.cells:
            key = (run.device, cell.model, cell.case, cell.format, cell.gate, cell.emulated)
            points = found.setdefault(key, deque(maxlen=SHOWN_RUNS))
            points.append(Point(created=run.created, commit=run.commit, cell=cell))
    return {key: list(points) for key, points in found.items()}


def points_of(history: Mapping[Key, list[Point]], device: str, cell: Cell, *, emulated: bool) -> list[Point]:
    """Return the history of one cell on one kind of device, the oldest first."""
    return history.get((device, cell.model, cell.case, cell.format, cell.gate, emulated), [])


def _cell_run(verdict: Verdict) -> CellRun:
    cell, scores = verdict.cell, verdict.scores
    return CellRun(
        model=cell.model,
        case=cell.case,
        format=cell.format,
        gate=cell.gate,
        emulated=verdict.emulated,
        outcome=verdict.outcome,
        observed=verdict.observed,
        worst=scores.worst if scores is not None else None,
        bound=verdict.bound,
        worst_bound=verdict.worst_bound,
    )


def _ends_a_line(name: str) -> bool:
    with Path(name).open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _read_runs(path: Path, tell: Callable[[str], object]) -> Iterable[Run]:
    if not path.exists():
        return
    with path.open("rb") as file:
        lines = deque(enumerate(file, 1), maxlen=_READ_RUNS)
    for number, line in lines:
        try:
            document = json.loads(line)
        except ValueError:  # cut off by a full disk or a killed run
            continue
        try:
            run: Run = converted(document, Run, f"{path.name} line {number}")
        except ReportInvalidError as error:
            if isinstance(document, dict):
                tell(_why_left_out(document, number, path.name) or str(error))
            continue
        yield run


def _why_left_out(document: dict[str, object], number: int, name: str) -> str | None:
    """Return that a newer version wrote a line; None: it did not say so."""
    version = document.get("schema_version")
    if not isinstance(version, int) or version <= SCHEMA_VERSION:
        return None
    return (
        f"{name} line {number}: schema_version {version}, this pytest-mxq reads up to {SCHEMA_VERSION}: written by a "
        "newer pytest-mxq; upgrade pytest-mxq"
    )
