"""The report before the session begins: an earlier run's result must not outlive a run that is killed early."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_mxq.environment.device import Device
from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.planning.folders import REPORT, named_folder
from pytest_mxq.planning.settings import Reference, Settings
from pytest_mxq.reports.json_report import Journal, make_report
from pytest_mxq.reports.publish import FILES, WRITERS
from pytest_mxq.reports.records import Report

EARLIER: pytest.StashKey[bytes] = pytest.StashKey()
"""The report that an earlier run left, until `take_earlier` asks for it."""


def mark_as_starting(config: pytest.Config) -> None:
    """Put a report that says that a run has begun in place of an earlier one, which is kept in memory.

    Without an earlier one nothing is written, nor where the run is only planned.
    """
    folder = named_folder(config, config.known_args_namespace.mxq_report, config.getini("mxq_report") or REPORT)
    if folder is None:
        return
    config.stash[EARLIER] = _content(folder / FILES[0])
    if not config.known_args_namespace.mxq_plan and any((folder / name).exists() for name in FILES):
        Journal(folder, WRITERS).start(_unknown_report(folder))


def take_earlier(config: pytest.Config) -> bytes:
    """Return the report that an earlier run left, empty without one; it is not kept for the rest of the run."""
    content = config.stash.get(EARLIER, b"")
    config.stash[EARLIER] = b""
    return content


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _unknown_report(folder: Path) -> Report:
    """Return the report of a run of which nothing is known: conftest files may add formats, models and a machine."""
    settings = Settings(
        formats=(),
        models=(),
        gates=(),
        baselines=folder,
        media=None,
        reference=Reference.AUTO,
        refresh=False,
        emulate=False,
        strict=False,
        report=folder,
        root=folder,
    )
    device = Device(kind="", name="not known", capability=None, slug="", total_memory_gib=None, facts={})
    nothing = Fingerprint(hard={}, recorded={})
    report = make_report(settings, device, nothing, status="running", commit=None, cells=((), ()))
    return replace(report, settings=replace(report.settings, baselines="", reference="not known"))
