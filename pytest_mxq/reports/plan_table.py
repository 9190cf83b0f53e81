"""The table of ``--mxq-plan``: what would run, in which order, with memory, time, and what is sure to fail."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_mxq.reports.progress import clock

if TYPE_CHECKING:
    from pytest_mxq.gates.outcome import Outcome
    from pytest_mxq.gates.verdict import Cell
    from pytest_mxq.reports.table import Line

_HEADINGS = ("case", "format", "gate", "memory", "time", "estimated from", "BF16")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One planned cell.

    Attributes:
        memory_gib: what it needs of the device, GiB; None: its model does not say, or it runs on a CPU.
        seconds: how long it takes; None: nothing tells.
        source: what tells.
        reference: "stored" or "live"; empty where nothing is compared.
        note: which reference it has, or why it does not run.
        outcome: the failure that it is sure to end in; None: none.
        runs: whether it is judged at all.
    """

    cell: Cell
    memory_gib: float | None = None
    seconds: float | None = None
    source: str = ""
    reference: str = ""
    note: str = ""
    outcome: Outcome | None = None
    runs: bool = True


def plan_lines(rows: Sequence[PlanRow], width: int) -> Iterator[Line]:
    """Yield a row a cell in the order of the run, each note below the first row that it belongs to, and the total.

    Args:
        rows: the planned cells.
        width: columns of a note.
    """
    table = [_HEADINGS, *map(_cells, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADINGS))]
    yield _aligned(_HEADINGS, widths), {"bold": True}
    said = {""}
    for row, cells in zip(rows, table[1:], strict=True):
        yield _aligned(cells, widths), _markup(row)
        if row.note not in said:
            yield from ((f"      {line}", _markup(row)) for line in _wrapped(row.note, width))
        said.add(row.note)
    yield _total(rows), {"bold": True}


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  " + "  ".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True)).rstrip()


def _cells(row: PlanRow) -> tuple[str, ...]:
    cell = row.cell
    return (
        f"{cell.model}/{cell.case}" if cell.model else cell.case,
        cell.format,
        cell.gate,
        "-" if row.memory_gib is None else f"{row.memory_gib:.0f} GiB",
        "-" if row.seconds is None else clock(row.seconds),
        row.source or "-",
        _fate(row),
    )


def _fate(row: PlanRow) -> str:
    if row.outcome is not None:
        return f"{row.outcome}: will be red"
    return row.reference or "-" if row.runs else "skipped"


def _markup(row: PlanRow) -> dict[str, bool]:
    if row.outcome is not None:
        return {"red": True}
    return {} if row.runs else {"yellow": True}


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), max(20, width - 6), break_long_words=False, break_on_hyphens=False)


def _total(rows: Sequence[PlanRow]) -> str:
    """Return the last line.

    >>> _total([])
    'total: nothing would run'
    """
    running = [row for row in rows if row.runs]
    seconds = [row.seconds for row in running if row.seconds is not None]
    memory = [row.memory_gib for row in running if row.memory_gib is not None]
    counts = (
        (len(rows) - len(running), "skipped"),
        (sum(row.outcome is not None for row in rows), "will be red"),
        (sum(row.seconds is None and row.outcome is None for row in running), "without an estimate"),
    )
    parts = [f"{len(running)} would run"] if running else ["nothing would run"]
    parts += [f"about {clock(sum(seconds))}"] if seconds else []
    parts += [f"at most {max(memory):.0f} GiB"] if memory else []
    return "total: " + "; ".join([*parts, *(f"{count} {what}" for count, what in counts if count)])
