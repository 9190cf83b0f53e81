"""The report's files: ``report.jsonl`` line by line as it happens, ``report.json`` whole at the end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_mxq.environment.device import Device
    from pytest_mxq.environment.fingerprint import Fingerprint
    from pytest_mxq.gates.verdict import Cell
    from pytest_mxq.planning.settings import Settings

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """What a report says of a run beside its verdicts."""

    settings: Settings
    device: Device
    fingerprint: Fingerprint


class Journal:
    """Writes the report below a directory; the directory is made, and an old journal replaced, at the first line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started = False
        self._planned: set[str] = set()
        self.fault = ""  # why the report could not be written; a full disk must not end the run

    def plan(self, cells: Iterable[Cell]) -> None:
        """Note what is going to run, so that a crash or a timeout leaves a trail."""
        new = [cell for cell in cells if cell.nodeid not in self._planned]
        self._planned.update(cell.nodeid for cell in new)
        self._write([{"event": "planned", **asdict(cell)} for cell in new])

    def verdict(self, record: Mapping[str, Any]) -> None:
        """Note one verdict."""
        self._write([{"event": "verdict", **record}])

    def finish(
        self, header: RunHeader, records: list[dict[str, Any]], problems: list[str], cautions: list[str]
    ) -> None:
        """Write ``report.json``: settings, device, fingerprint, every verdict, what strictness found, cautions."""
        device, fingerprint = header.device, header.fingerprint
        document = {
            "schema_version": SCHEMA_VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": {name: _plain(value) for name, value in asdict(header.settings).items()},
            "device": {"name": device.name, "slug": device.slug, "kind": device.kind},
            "fingerprint": {"hard": fingerprint.hard, "recorded": fingerprint.recorded},
            "verdicts": records,
            "problems": problems,
            "cautions": cautions,
        }
        path = self.folder / "report.json"
        draft = path.with_suffix(".json.tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
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


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
