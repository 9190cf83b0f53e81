"""What is made of a finished report: a line of the history, and the page."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_mxq.reports.history import Key, Point, append_run, read_history, run_of
from pytest_mxq.reports.html import write_page
from pytest_mxq.reports.json_report import write_json
from pytest_mxq.reports.markdown import write_markdown
from pytest_mxq.reports.paths import PAGE

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mxq.planning.settings import Settings
    from pytest_mxq.reports.records import Report


def write_unfinished_page(folder: Path, report: Report) -> None:
    """Write the page of a run that has not ended, so that one that is killed says so; no page stays where it cannot."""
    if report.status == "running":
        try:
            write_page(folder, report, {}, embed=False)
        except Exception:  # noqa: BLE001  `publish` says it at the end
            with suppress(OSError):
                (folder / PAGE).unlink(missing_ok=True)


WRITERS = (write_json, write_markdown, write_unfinished_page)
"""Write the files of the report's folder, from the start of a run on."""

FILES = ("report.json", "report.jsonl", "summary.md", PAGE)
"""What says how a run went."""


def publish(report: Report, settings: Settings) -> list[str]:
    """Add a report to the history and write its page; return what could not be written.

    No fault of either reaches the run: its verdicts are decided.
    """
    cautions: list[str] = []
    history = _history(report, settings, cautions)
    try:
        write_page(settings.report, report, history, embed=settings.report_embed)
    except Exception as error:  # noqa: BLE001  a full disk, jinja2 missing, or a defect of the template
        cautions.append(f"the report's page could not be written: {type(error).__name__}: {error}")
    return cautions


def _history(report: Report, settings: Settings, cautions: list[str]) -> dict[Key, list[Point]]:
    path, run = settings.history, run_of(report)
    if path is None:
        return {}
    try:
        if run is not None:
            append_run(path, run)
        left_out: list[str] = []
        history = read_history(path, left_out.append)
        if left_out:
            more = f" ({len(left_out)} such lines)" if len(left_out) > 1 else ""
            cautions.append(f"the page leaves out a run of the history: {left_out[0]}{more}")
        return history
    except OSError as error:
        cautions.append(f"the history could not be written: {error}")
        return {}
