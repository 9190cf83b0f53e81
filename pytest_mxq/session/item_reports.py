"""What becomes of one item's report: the verdict of a test that never came to its gate, xfail, and strict skips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from pytest_mxq.environment.secrets import without_secrets
from pytest_mxq.evaluation.run import said_of
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import Verdict
from pytest_mxq.planning.plans import InvalidPlan, Plan
from pytest_mxq.reports.records import jsonable


def verdict_of_report(draft: Verdict, plan: Plan, report: pytest.TestReport, call: pytest.CallInfo[None]) -> Verdict:
    """Return the verdict of an item that never came to its gate: skipped, faulty, or broken."""
    draft = replace(draft, seconds=call.duration)
    if call.excinfo is not None:
        error = call.excinfo.value
        outcome, sentence = said_of(error)
        is_fault = isinstance(plan, InvalidPlan) and isinstance(error, pytest.fail.Exception)
        return draft.because(outcome, str(error) if is_fault else sentence)
    if report.skipped:
        return draft.because(Outcome.SKIPPED, report.longreprtext)
    sentence = "the test's body was not run as a workload: another plugin or a conftest.py ran in its place"
    return draft.because(Outcome.ERROR, sentence)


def fail_again(report: pytest.TestReport) -> None:
    """Fail the report of a test that was run again, whatever xfail says."""
    if not report.failed or hasattr(report, "wasxfail"):
        _fail(report, "the test was run again after its verdict")


def settle_xfail(item: pytest.Item, report: pytest.TestReport, error: BaseException, verdict: Verdict) -> Verdict:
    """Return the verdict of an item that pytest calls xfailed, and fail its report where xfail does not cover it.

    Only a marker with a reason covers anything, and only a regression.
    """
    reason = str(getattr(report, "wasxfail", "")).removeprefix("reason: ")
    markers = list(item.iter_markers("xfail"))
    if isinstance(error, pytest.xfail.Exception):
        if reason.startswith("[NOTRUN]") and any(marker.kwargs.get("run") is False for marker in markers):
            return verdict.because(Outcome.NOT_RUN, f"xfail(run=False): {reason.removeprefix('[NOTRUN]').strip()}")
        fault = "pytest.xfail() was called; a known regression is marked by @pytest.mark.xfail(reason=...)"
        verdict = verdict.because(Outcome.ERROR, f"{fault}: {error}")
    elif verdict.outcome is not Outcome.REGRESSION:
        fault = f"xfail covers a regression alone, and this is {verdict.outcome}"
        verdict = verdict.because(verdict.outcome, f"{verdict.sentence}; {fault}")
    elif not markers or not reason.strip():
        fault = "xfail covers a known regression only with a reason: @pytest.mark.xfail(reason=...)"
        verdict = verdict.because(verdict.outcome, f"{verdict.sentence}; {fault}")
    else:
        return verdict.because(Outcome.KNOWN_REGRESSION, f"{verdict.sentence}; known: {reason}")
    _fail(report, fault)
    return verdict


def settle_skip(item: pytest.Item, report: pytest.TestReport, verdict: Verdict, *, strict: bool) -> None:
    """Fail a skip and a test that does not run under ``--mxq-strict``; else say where the skipped test stands."""
    word = "not run" if verdict.outcome is Outcome.NOT_RUN else "skipped"
    if strict:
        _fail(report, None)
        report.longrepr = f"--mxq-strict: {word}: {verdict.sentence}"
    elif not hasattr(report, "wasxfail"):
        path, line, _ = item.location  # where the test stands, not where the plugin skipped it
        report.longrepr = (path, (line or 0) + 1, f"Skipped: {verdict.sentence}")


def has_traceback(report: pytest.TestReport) -> bool:
    """Tell whether a failure's text is more than the message that it was failed with."""
    traceback = getattr(report.longrepr, "reprtraceback", None)
    return traceback is not None and traceback.style != "value"


def shorten_crash(report: pytest.TestReport, verdict: Verdict) -> None:
    """Let a failure's message begin with the numbers, and keep one line of it: pytest's short summary shows it."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        is_ours = verdict.outcome.is_failure and not has_traceback(report)
        crash.message = (verdict.sentence if is_ours else crash.message).partition("\n")[0]


def hide_secrets(report: pytest.TestReport, config: pytest.Config, values: Sequence[str]) -> None:
    """Take the secrets out of a report's text and of the output that was captured."""

    def clean(text: str) -> str:
        return without_secrets(text, values)

    report.sections = [(name, clean(text)) for name, text in report.sections]
    found = report.longrepr
    if isinstance(found, tuple):
        report.longrepr = (found[0], found[1], clean(found[2]))
    elif isinstance(found, str):
        report.longrepr = clean(found)
    elif clean(report.longreprtext) != report.longreprtext:
        hook: Any = config.hook
        data = hook.pytest_report_to_serializable(config=config, report=report)
        plain = {**data, "longrepr": jsonable(data["longrepr"], clean)}
        report.longrepr = hook.pytest_report_from_serializable(config=config, data=plain).longrepr


def _fail(report: pytest.TestReport, fault: str | None) -> None:
    report.outcome = "failed"
    report.__dict__.pop("wasxfail", None)
    if fault is not None:
        report.longrepr = "\n".join(filter(None, [report.longreprtext, fault]))
