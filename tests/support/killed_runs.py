"""Runs of gates that are ended by a signal at chosen moments, and what their reports say afterwards.

As a script it prints one JSON line of counts: `python killed_runs.py FOLDER POINTS`. Runs are forked from one process,
in which pytest and the plugin were imported once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from gate_project import CONFTEST, GATE_TEST

from pytest_mxq import testing  # noqa: F401  imported once, for all runs
from pytest_mxq.reports.records import Report, decode_report
from pytest_mxq.session import report_plugin  # noqa: F401  the same

BEGUN = """
import pytest
from pathlib import Path

@pytest.hookimpl(trylast=True)
def pytest_sessionstart():
    Path("begun").touch()
"""
EARLIER = "2001-01-01T00:00:00+00:00"
CELLS = 4


def run_until(folder: Path, number: int | None, delay: float) -> Counter[str]:
    """Run gates of a project where an earlier report lies, send a signal some time after the session's start.

    Args:
        folder: the project, which is made.
        number: the signal; None: none.
        delay: seconds after the session's start.

    Returns:
        One count for what the report says (its status, or "earlier" or "unreadable"), and one for each untruth.
    """
    _make_project(folder)
    pid = os.fork()
    if pid == 0:
        _run(folder)
    while not (folder / "begun").exists():
        time.sleep(0.001)
    if number is not None:
        time.sleep(delay)
        os.kill(pid, number)
    _, status = os.waitpid(pid, 0)
    return _judged(folder, os.waitstatus_to_exitcode(status))


def measure(folder: Path, points: int) -> dict[str, Any]:
    """End runs at points spread evenly over the time that a whole one takes, by both signals in turn."""
    whole = run_until(folder / "whole", None, 0.0)
    seconds = (folder / "whole/mxq-report/report.json").stat().st_mtime - (folder / "whole/begun").stat().st_mtime
    totals: dict[str, Counter[str]] = {"SIGKILL": Counter(), "SIGTERM": Counter()}
    for point in range(points):
        name = ("SIGKILL", "SIGTERM")[point % 2]
        totals[name] += run_until(folder / str(point), getattr(signal, name), point * seconds / points)
    return {"points": points, "seconds": round(seconds, 2), "whole": whole, **totals}


def _make_project(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "conftest.py").write_text(CONFTEST + BEGUN)
    slow = "    import time\n    time.sleep(0.1)\n    return mxq_pipeline"
    (folder / "test_it.py").write_text(GATE_TEST.replace("    return mxq_pipeline", slow))
    (folder / "mxq-report").mkdir()
    (folder / "mxq-report/report.json").write_text(json.dumps({"created": EARLIER}))


def _run(folder: Path) -> None:
    os.chdir(folder)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with Path(os.devnull).open("w") as quiet:
        os.dup2(quiet.fileno(), 1)
        os.dup2(quiet.fileno(), 2)
    options = ["-p", "pytest_mxq.plugin", "-p", "no:cacheprovider", "--mxq-formats=mxfp8,nvfp4", "--mxq-emulate"]
    try:
        os._exit(pytest.main(options))
    finally:  # KeyboardInterrupt outside of the session
        os._exit(1)


def _judged(folder: Path, code: int) -> Counter[str]:
    data = (folder / "mxq-report/report.json").read_bytes()
    try:
        report = decode_report(data, where="report.json")
    except Exception:  # noqa: BLE001  whatever it is, nobody can read it
        return Counter({"earlier" if EARLIER.encode() in data else "unreadable": 1})
    return Counter([report.status, *_untruths(folder, report, code)])


def _untruths(folder: Path, report: Report, code: int) -> list[str]:
    judged = {verdict.cell.nodeid for verdict in report.verdicts}
    planned = {cell.nodeid for cell in report.planned}
    path = folder / "mxq-report/report.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    written = {event["cell"]["nodeid"] for event in map(json.loads, lines) if event["event"] == "verdict"}
    checks = {
        "a verdict of nothing planned": judged <= planned,
        "a verdict that the journal lacks": judged <= written,
        "more than one verdict behind the journal": len(written - judged) <= 1,
        "verdicts without their plan": not written or len(planned) == CELLS,
        "finished without all verdicts": report.status != "finished" or len(judged) == CELLS,
        "interrupted, and exit code 0": report.status != "interrupted" or code != 0,
        "not finished, and exit code 0": report.status == "finished" or code != 0,
    }
    return [f"untrue: {name}" for name, holds in checks.items() if not holds]


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201
