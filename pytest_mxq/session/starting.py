"""The report before the session begins: an earlier run's result must not outlive a run that is killed early."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pytest_mxq.planning.folders import REPORT, named_folder
from pytest_mxq.reports.json_report import Journal
from pytest_mxq.reports.publish import FILES, WRITERS
from pytest_mxq.reports.records import DeviceFacts, FingerprintFacts, Report, RunSettings

EARLIER: pytest.StashKey[bytes] = pytest.StashKey()
"""The report that an earlier run left, which tells how long its gates took."""


def mark_as_starting(config: pytest.Config) -> None:
    """Put a report that says that a run has begun in place of an earlier one, which is kept in memory.

    Without an earlier one nothing is written, nor where the run is only planned.
    """
    folder = named_folder(config, config.known_args_namespace.mxq_report, config.getini("mxq_report") or REPORT)
    if folder is None:
        return
    config.stash[EARLIER] = _content(folder / FILES[0])
    if not config.known_args_namespace.mxq_plan and any((folder / name).exists() for name in FILES):
        Journal(folder, WRITERS).start(_unknown_report())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _unknown_report() -> Report:
    """Return the report of a run of which nothing is known: conftest files may add formats, models and a machine."""
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        status="running",
        commit=None,
        settings=RunSettings(
            formats=(),
            models=(),
            gates=(),
            reference="not known",
            refresh=False,
            emulate=False,
            strict=False,
            random_weights=False,
            alpha=0.05,
            baselines="",
            media=None,
            sources={},
        ),
        device=DeviceFacts(name="not known", slug="", kind=""),
        fingerprint=FingerprintFacts(hard={}, recorded={}),
        planned=(),
        verdicts=(),
        problems=(),
        cautions=(),
    )
