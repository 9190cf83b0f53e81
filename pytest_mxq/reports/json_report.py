"""The report's files: ``report.jsonl`` line by line as it happens, ``report.json`` whole at the end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mxq.reports.commit import find_commit
from pytest_mxq.reports.records import (
    DeviceFacts,
    FingerprintFacts,
    Report,
    RunSettings,
    cell_record,
    encode_report,
    to_record,
)

if TYPE_CHECKING:
    from pytest_mxq.environment.device import Device
    from pytest_mxq.environment.fingerprint import Fingerprint
    from pytest_mxq.gates.verdict import Cell, Verdict
    from pytest_mxq.planning.settings import Settings


class Journal:
    """Writes the report below a directory; an earlier report goes when the first line is written.

    Attributes:
        fault: why the report could not be written, or None; a full disk must not end the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fault: str | None = None
        self._started = False
        self._planned: set[str] = set()

    def start(self) -> None:
        """Remove the report of an earlier run: one that dies must not leave its green one behind."""
        for name in ("report.json", "report.jsonl", "index.html"):
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                self.fault = f"the earlier report could not be removed: {error}"

    def plan(self, cells: Iterable[Cell]) -> None:
        """Note what is going to run, so that a crash or a timeout leaves a trail."""
        new = [cell for cell in cells if cell.nodeid not in self._planned]
        self._planned.update(cell.nodeid for cell in new)
        self._write([{"event": "planned", **cell_record(cell)} for cell in new])

    def verdict(self, verdict: Verdict) -> None:
        """Note one verdict."""
        self._write([{"event": "verdict", **to_record(verdict)}])

    def finish(self, report: Report) -> None:
        """Write ``report.json``."""
        path = self.folder / "report.json"
        draft = path.with_suffix(".json.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(encode_report(report))
            draft.replace(path)
        except OSError as error:
            self.fault = f"the report could not be written: {error}"

    def _write(self, lines: list[dict[str, Any]]) -> None:
        if not lines:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "report.jsonl").open("a" if self._started else "w", encoding="utf-8") as file:
                file.writelines(json.dumps(line, allow_nan=False) + "\n" for line in lines)
            self._started = True
        except OSError as error:
            self.fault = f"the report could not be written: {error}"


def make_report(
    settings: Settings, device: Device, fingerprint: Fingerprint, verdicts: Iterable[Verdict], **notes: Iterable[str]
) -> Report:
    """Return the report of a run.

    Args:
        settings: its options.
        device: what it ran on.
        fingerprint: of the controller.
        verdicts: every verdict.
        notes: ``problems`` and ``cautions``.
    """
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=find_commit(settings.root),
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
        verdicts=tuple(verdicts),
        problems=tuple(notes.get("problems", ())),
        cautions=tuple(notes.get("cautions", ())),
    )
