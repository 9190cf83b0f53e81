"""What the controller says in the terminal: header, baselines, words of the verdicts, and the sections at the end."""

from __future__ import annotations

import copy
import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mxq.environment.secrets import without_secrets
from pytest_mxq.evaluation.preview import Previewer
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.failure import word_of
from pytest_mxq.reports.github import error_commands
from pytest_mxq.reports.records import from_record
from pytest_mxq.reports.shortening import display_width, shorten
from pytest_mxq.reports.summary import summary_lines
from pytest_mxq.reports.table import Layout
from pytest_mxq.session.gate_plugin import RECORD
from pytest_mxq.session.item_reports import has_traceback

if TYPE_CHECKING:
    from pytest_mxq.gates.verdict import Verdict
    from pytest_mxq.session.report_plugin import ReportPlugin

_CATEGORIES = ("failed", "error")


class TerminalPlugin:
    """Says what the controller knows; no line of it holds a secret.

    Args:
        controller: knows plans and verdicts.
        said_once: keeps pytest's own sections from saying the same.
    """

    def __init__(self, controller: ReportPlugin, said_once: SaidOnce) -> None:
        self._controller = controller
        self._said_once = said_once
        self._settings = controller.settings
        self._session = controller.session

    def _clean(self, text: str) -> str:
        return without_secrets(text, self._settings.secrets)

    def pytest_report_header(self) -> str:
        """Say what this run gates, on what."""
        settings, device = self._settings, self._session.runtime.device
        what = "refresh" if settings.refresh else f"formats {', '.join(settings.formats) or 'none'}"
        parts = [f"mxq: {what}", f"reference {settings.reference}", f"device {device.slug} ({device.name})"]
        parts += [f"only {','.join(names)}" for names in (settings.models, settings.gates) if names]
        parts += [name for name in ("emulate", "strict") if getattr(settings, name)]
        return self._clean("; ".join(parts))

    def pytest_report_collectionfinish(self) -> list[str]:
        """Say which baselines the cases have, whether they can be used here, and what is known to go wrong.

        Lines of our own, not warnings: under ``filterwarnings = error`` one raised at collection is an INTERNALERROR.
        """
        cautions = (f"mxq: caution: {text}" for text in self._session.cautions)
        return [self._clean(line) for line in (*self._references(), *cautions)]

    def _references(self) -> Iterator[str]:
        if self._settings.refresh or not self._settings.formats:
            return
        runtime = self._session.runtime
        previewer = Previewer(settings=self._settings, store=runtime.store, fingerprint=runtime.fingerprint)
        for (model, case), plan in self._session.cases.items():
            yield f"mxq: {model}/{case}: {previewer.of_outputs(plan.case, runtime.weights(plan.case)).text}"

    def pytest_report_teststatus(self, report: pytest.CollectReport | pytest.TestReport) -> Any:
        """Name the verdict in the progress line; the category stays "failed", so that ``-rf`` and the like hold."""
        verdict = _verdict_of(report)
        if verdict is None or report.when == "teardown" or not report.failed:
            return None
        if verdict.outcome.is_good:
            return None  # it was run again, or passed where xfail(strict=True) expects a regression
        word = word_of(verdict.outcome).upper()
        category, letter = ("failed", "F") if report.when == "call" else ("error", "E")
        return category, letter, word

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the table of all verdicts, what got worse, and what is worth a look."""
        self._said_once.give_back(terminalreporter)
        if terminalreporter.config.option.collectonly:
            return
        controller = self._controller
        verdicts = list(controller.verdicts.values())
        notes = [*controller.notices, *controller.new_cautions()]
        problems = [*controller.problems, *(f"--mxq-strict: {problem}" for problem in controller.strict_problems)]
        layout = Layout.of(terminalreporter, self._settings)
        for line, markup in summary_lines(verdicts, problems, notes, self._settings, layout):
            if markup is None:
                terminalreporter.write_sep("=", line)
            else:
                terminalreporter.write_line(self._clean(line), **markup)
        for command in error_commands(verdicts, self._settings.root, os.environ):
            terminalreporter.write_line(self._clean(command))


class SaidOnce:
    """Leaves out of pytest's own sections what the controller's say: each failure is explained in one place.

    Tracebacks and captured output stay where pytest shows them, and the short summary names every failure but the skips
    of a strict run, which the table counts by their reason.
    """

    def __init__(self) -> None:
        self._whole: dict[str, list[Any]] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None, None, None]:
        """Take the reports out before pytest writes its failures and errors, and give them back at the end."""
        stats, option = terminalreporter.stats, terminalreporter.config.option
        has_output = option.tbstyle != "line" and option.showcapture != "no"
        self._whole = {category: stats[category] for category in _CATEGORIES if category in stats}
        for category, reports in self._whole.items():
            blocks = (_block(report, has_output=has_output) for report in reports)
            stats[category] = [block for block in blocks if block is not None]
        try:
            yield
        finally:
            stats.update(self._whole)

    def give_back(self, terminalreporter: Any) -> None:
        """Give the reports back to the short summary, which pytest writes after everyone else's sections."""
        config = terminalreporter.config
        for category, reports in self._whole.items():
            shown = [report for report in reports if not _is_skip(report)]
            terminalreporter.stats[category] = [_shortened(report, config) for report in shown]


def _block(report: Any, *, has_output: bool) -> Any:
    """Return what pytest is to show of a failure: all of it, its captured output alone, or nothing (None)."""
    verdict = _verdict_of(report)
    if verdict is None or has_traceback(report) or not (verdict.outcome.is_failure or _is_skip(report)):
        return report
    if not report.sections or not has_output:
        return None
    block = copy.copy(report)
    block.longrepr = None
    return block


def _shortened(report: Any, config: pytest.Config) -> Any:
    """Return a failure of ours with as much of its message as its line in the short summary takes: pytest cuts numbers.

    On CI and under ``-vv`` pytest writes whole messages.
    """
    is_whole = config.option.verbose >= 2 or any(os.environ.get(name) for name in ("CI", "BUILD_NUMBER"))
    crash = getattr(report.longrepr, "reprcrash", None)
    text = report.longrepr if isinstance(report.longrepr, str) else getattr(crash, "message", None)
    is_whole = is_whole and not getattr(config.option, "force_short_summary", False)
    if RECORD not in report.__dict__ or text is None or is_whole:
        return report
    *_, word = config.hook.pytest_report_teststatus(report=report, config=config)
    path, separator, rest = report.nodeid.partition("::")
    place = os.path.relpath(config.rootpath / path, config.invocation_params.dir)
    start = f"{word if isinstance(word, str) else word[0]} {place}{separator}{rest} - "
    message = shorten(text, config.get_terminal_writer().fullwidth - display_width(start))
    short = copy.copy(report)
    short.longrepr = None
    if message and crash is None:
        short.longrepr = message
    elif message:
        short.longrepr = copy.copy(report.longrepr)
        short.longrepr.reprcrash = copy.copy(crash)
        short.longrepr.reprcrash.message = message
    return short


def _is_skip(report: Any) -> bool:
    verdict = _verdict_of(report)
    return verdict is not None and verdict.outcome is Outcome.SKIPPED


def _verdict_of(report: Any) -> Verdict | None:
    record = report.__dict__.get(RECORD)
    return None if record is None else from_record(record)
