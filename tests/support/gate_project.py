"""A project of one gate test on a pretended machine, in which the plugin's options are tried."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mxq.reports.records import decode_report

if TYPE_CHECKING:
    import pytest

    from pytest_mxq.reports.records import Report

CONFTEST = """
from dataclasses import replace

from pytest_mxq import testing

DEVICE = testing.CPU

def pytest_mxq_machine():
    return testing.fake_machine(DEVICE)
"""

SPEED_TEST = """
import pytest

@pytest.mark.mxq("demo", prompts=2)
@pytest.mark.mxq_speedup(min={"mxfp8": 1.15, "nvfp4": 1.40})
@pytest.mark.mxq_memory(max_ratio={"mxfp8": 0.75, "nvfp4": 0.65})
def test_speed(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""

GATE_TEST = """
import pytest

@pytest.mark.mxq("demo", prompts=3)
@pytest.mark.mxq_lpips(max={"mxfp8": 0.02, "nvfp4": 0.02}, worst=0.04)
@pytest.mark.mxq_ssim(min=0.9)
def test_gate(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""


def flat(result: pytest.RunResult) -> str:
    """The output in one line: the terminal's reasons are wrapped."""
    return " ".join(result.stdout.str().split())


class GateDirectory:
    """A project of one gate test."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path

    def behave(self, **behaviour: Any) -> None:
        """How the fake backend behaves from now on."""
        (self.path / "behaviour.json").write_text(json.dumps(behaviour))

    def write(self, source: str, name: str = "test_it.py") -> None:
        """Replace the project's test."""
        (self.path / name).write_text(source)

    def run(self, *options: str) -> pytest.RunResult:
        """Run pytest within this process (a second faster than in one of its own)."""
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly", *options)

    def run_apart(self, *options: str) -> pytest.RunResult:
        """Run pytest in a process of its own."""
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:randomly", *options)

    def emulated(self, *options: str) -> pytest.RunResult:
        """Run with both published formats, emulated."""
        return self.run("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", *options)

    def report(self) -> dict[str, Any]:
        """The report of the last run, as anybody's JSON reader sees it."""
        document: dict[str, Any] = json.loads(self.report_file.read_text())
        return document

    def typed_report(self) -> Report:
        """The report of the last run, as the package reads it."""
        return decode_report(self.report_file.read_bytes(), where="report.json")

    @property
    def report_file(self) -> Path:
        """Where the report of the last run lies."""
        return self.path / "mxq-report" / "report.json"

    def pretend(self, name: str, **changes: Any) -> None:
        """Pretend a device of `pytest_mxq.testing` from now on, with some fields changed."""
        fields = "".join(f", {field}={value!r}" for field, value in changes.items())
        conftest = self.path / "conftest.py"
        line = f"DEVICE = replace(testing.{name}{fields})"
        conftest.write_text(re.sub(r"^DEVICE = .*$", line, conftest.read_text(), flags=re.MULTILINE))

    def on_blackwell(self, source: str = SPEED_TEST) -> None:
        """Pretend that the device is a B200, with a fake benchmark."""
        self.pretend("B200")
        self.write(source)

    def outcomes(self) -> dict[str, str]:
        """format-gate -> outcome, of the last run."""
        cells = [(record["cell"], record["outcome"]) for record in self.report()["verdicts"]]
        return {f"{cell['format']}-{cell['gate']}": outcome for cell, outcome in cells}

    def backend_log(self) -> list[str]:
        """What the fake backend did."""
        path = self.path / "backend.log"
        return path.read_text().splitlines() if path.exists() else []
