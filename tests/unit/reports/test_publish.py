"""What is made of a finished report, and that no fault of it reaches the run."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
from page_examples import judged, report

from pytest_mxq.gates.bounds import Bound
from pytest_mxq.planning.settings import Reference, Settings
from pytest_mxq.reports import publish as module
from pytest_mxq.reports.publish import publish

REPORT = report(judged([0.1, 0.2], Bound(mean=0.5, worst=None)))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        formats=("nvfp4",),
        models=(),
        gates=(),
        baselines=tmp_path / "baselines",
        media=None,
        reference=Reference.AUTO,
        refresh=False,
        emulate=False,
        strict=False,
        report=tmp_path / "report",
        root=tmp_path,
        history=tmp_path / "history.jsonl",
    )


def test_a_report_becomes_a_page_and_a_line_of_the_history(settings: Settings) -> None:
    assert publish(REPORT, settings) == []
    assert (settings.report / "index.html").is_file()
    assert settings.history is not None
    assert settings.history.read_text().count("\n") == 1


def test_a_line_of_the_history_by_a_newer_version_is_a_caution(settings: Settings) -> None:
    assert settings.history is not None
    settings.history.write_text('{"schema_version": 9, "runs": []}\n' * 2)
    [caution] = publish(REPORT, settings)
    assert "history.jsonl line 1: schema_version 9" in caution
    assert "(2 such lines)" in caution


@pytest.mark.parametrize("error", [KeyError("anchor"), OSError("full"), ModuleNotFoundError("jinja2")])
def test_a_defect_of_the_page_is_a_caution(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(module, "write_page", broken)
    [caution] = publish(REPORT, settings)
    assert type(error).__name__ in caution


@pytest.mark.parametrize("error", [OSError("held"), PermissionError("read-only")])
def test_a_history_that_cannot_be_written_leaves_the_page(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(module, "append_run", broken)
    [caution] = publish(REPORT, settings)
    assert str(error) in caution
    assert (settings.report / "index.html").is_file()
