"""A project of one gate test with fake backend, in which the plugin's options are tried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

HERE = Path(__file__).parent
CONFTEST = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
from pytest_mxq.session.runtime import Runtime
from mxq_fakes import FakeBackend
Runtime.backend = property(lambda self: self.__dict__.setdefault("fakes", FakeBackend()))
"""

BLACKWELL = """
import pytest_mxq.session.gate_plugin
from mxq_fakes import FakeBenchmark
from pytest_mxq.environment.device import Device
pytest_mxq.session.gate_plugin.find_device = lambda: Device(
    kind="cuda", name="NVIDIA B200", capability=(10, 0), slug="nvidia-b200-sm100", total_memory_gib=180.0, facts={}
)
Runtime.benchmark = property(lambda self: self.__dict__.setdefault("watch", FakeBenchmark(self.backend)))
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


class GateDirectory:
    """A project of one gate test."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path

    def behave(self, **behaviour: Any) -> None:
        """How the fake backend behave from now on."""
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
        """The report of the last run."""
        document: dict[str, Any] = json.loads((self.path / "mxq-report" / "report.json").read_text())
        return document

    def on_blackwell(self, source: str = SPEED_TEST) -> None:
        """Pretend that the device is a B200, with a fake benchmark."""
        conftest = self.path / "conftest.py"
        conftest.write_text(conftest.read_text() + BLACKWELL)
        self.write(source)

    def outcomes(self) -> dict[str, str]:
        """format-gate -> outcome, of the last run."""
        cells = [(record["cell"], record["outcome"]) for record in self.report()["verdicts"]]
        return {f"{cell['format']}-{cell['gate']}": outcome for cell, outcome in cells}

    def backend_log(self) -> list[str]:
        """What the fake backend did."""
        path = self.path / "engine.log"
        return path.read_text().splitlines() if path.exists() else []
