"""The report's files: ``report.jsonl`` line by line as it happens, ``report.json`` whole from the start to the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, thread_time
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_mxq.baselines.storage import remove_temporary_files, write_atomically
from pytest_mxq.reports.records import (
    DeviceFacts,
    FingerprintFacts,
    Report,
    RunSettings,
    Status,
    cell_record,
    encode_report,
    jsonable,
    to_record,
)

if TYPE_CHECKING:
    from pytest_mxq.environment.device import Device
    from pytest_mxq.environment.fingerprint import Fingerprint
    from pytest_mxq.gates.verdict import Cell, Verdict
    from pytest_mxq.planning.settings import Settings


ReportWriter: TypeAlias = Callable[[Path, Report], None]
"""Writes a file of the report's folder from what is known of the run. Called when the run starts, as verdicts come and
when it ends; a run that is killed leaves what was written last, so each file must say its report's status."""

PAUSE = 9
"""Times the CPU time of a file's last update before its next one: each takes at most a tenth of a run's."""


def write_json(folder: Path, report: Report) -> None:
    """Write ``report.json``.

    Raises:
        OSError: it could not be written; the file is as it was.
    """
    write_atomically(folder / "report.json", encode_report(report))


class Journal:
    """Writes the report below a directory, from the start of a run to its end.

    Args:
        folder: the directory.
        writers: write its files but ``report.jsonl``.
        portable: takes paths and secrets out of the texts of ``report.jsonl``.

    Attributes:
        fault: why the report could not be written, or None; a full disk must not end the run.
    """

    def __init__(self, folder: Path, writers: Sequence[ReportWriter], portable: Callable[[str], str] = str) -> None:
        self.folder = folder
        self.fault: str | None = None
        self._writers = writers
        self._portable = portable
        self._planned: set[str] = set()
        self._next_updates = dict.fromkeys(writers, 0.0)

    def start(self, report: Report) -> None:
        """Put the report of a run that has judged nothing in place of an earlier run's."""
        try:
            remove_temporary_files(self.folder)
            for name in ("report.json", "report.jsonl"):
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            self.fault = f"the earlier report could not be removed: {error}"
        self._write(lambda: report, self._writers)

    def plan(self, cells: Iterable[Cell]) -> None:
        """Note what is going to run."""
        new = [cell for cell in cells if cell.nodeid not in self._planned]
        self._planned.update(cell.nodeid for cell in new)
        self._append([{"event": "planned", **cell_record(cell)} for cell in new])

    def verdict(self, verdict: Verdict) -> None:
        """Note one verdict."""
        self._append([{"event": "verdict", **to_record(verdict)}])

    def update(self, report: Callable[[], Report]) -> None:
        """Write the report as it is by now, unless the last update was too recent for what it cost.

        Args:
            report: makes it.
        """
        due = [write for write in self._writers if monotonic() >= self._next_updates[write]]
        if due:
            self._write(report, due)

    def finish(self, report: Report) -> None:
        """Write the report of the whole run."""
        self._write(lambda: report, self._writers)

    def _write(self, make: Callable[[], Report], writers: Sequence[ReportWriter]) -> None:
        start = thread_time()
        report = make()
        for write in writers:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                write(self.folder, report)
            except OSError as error:
                self.fault = f"the report could not be written: {error}"
            end = thread_time()
            self._next_updates[write] = monotonic() + PAUSE * (end - start)
            start = end

    def _append(self, lines: list[dict[str, Any]]) -> None:
        if not lines:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "report.jsonl").open("a", encoding="utf-8") as file:
                plain = (jsonable(line, self._portable) for line in lines)
                file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in plain)
        except OSError as error:
            self.fault = f"the report could not be written: {error}"


def make_report(
    settings: Settings,
    device: Device,
    fingerprint: Fingerprint,
    *,
    status: Status,
    commit: str | None,
    cells: tuple[Iterable[Cell], Iterable[Verdict]],
    **notes: Iterable[str],
) -> Report:
    """Return the report of a run.

    Args:
        settings: its options.
        device: what it runs on.
        fingerprint: of the controller.
        commit: of the project that is tested.
        status: how far it came.
        cells: what was planned, and the verdicts of what was judged.
        notes: ``problems`` and ``cautions``.
    """
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        status=status,
        commit=commit,
        settings=RunSettings(
            formats=settings.formats,
            models=settings.models,
            gates=settings.gates,
            reference=settings.reference.value,
            refresh=settings.refresh,
            emulate=settings.emulate,
            strict=settings.strict,
            random_weights=settings.random_weights,
            alpha=settings.alpha,
            baselines=settings.from_root(settings.baselines),
            media=None if settings.media is None else settings.from_root(settings.media),
            sources={name: settings.from_root(folder) for name, folder in settings.sources},
        ),
        device=DeviceFacts(name=device.name, slug=device.slug, kind=device.kind),
        fingerprint=FingerprintFacts(hard=dict(fingerprint.hard), recorded=dict(fingerprint.recorded)),
        planned=tuple(cells[0]),
        verdicts=tuple(cells[1]),
        problems=tuple(notes.get("problems", ())),
        cautions=tuple(notes.get("cautions", ())),
    )
