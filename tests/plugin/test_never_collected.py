"""Gate tests that something keeps from becoming items: a strict run says them and fails."""

import pytest
from gate_project import GATE_TEST, GateDirectory

LOST = """
def pytest_pycollect_makeitem(name):
    return [] if name == "test_lost" else None
"""
IGNORED = "collect_ignore = ['test_lost.py']"
IN_A_CLASS = """
import pytest

@pytest.mark.mxq("demo", prompts=2)
@pytest.mark.mxq_lpips(max=0.02)
class TestLost:
    def test_lost(self, mxq_pipeline, mxq_prompt):
        return mxq_pipeline(mxq_prompt)
"""
NO_TESTS = """
class Base:
    def test_lost(self, mxq_pipeline, mxq_prompt):
        return mxq_pipeline(mxq_prompt)

TEXT = "@pytest.mark.mxq def test_lost(mxq_pipeline)"

def helper(mxq_pipeline):
    pass
"""


def problems(gates: GateDirectory, conftest: str, source: str, *options: str) -> list[str]:
    path = gates.path / "conftest.py"
    path.write_text(f"{path.read_text()}\n{conftest}")
    gates.write(source, "test_lost.py")
    result = (gates.run_apart if "-n1" in options else gates.run)(
        "--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-reference=live", "--mxq-strict", *options
    )
    found: list[str] = gates.report()["problems"]
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if found else 0)
    return found


@pytest.mark.parametrize("source", [GATE_TEST.replace("test_gate", "test_lost"), IN_A_CLASS])
@pytest.mark.parametrize("conftest", [LOST, IGNORED])
def test_a_gate_test_that_never_became_an_item_fails_a_strict_run(
    gates: GateDirectory, conftest: str, source: str
) -> None:
    (problem,) = problems(gates, conftest, source)
    assert "test_lost.py::" in problem


def test_the_workers_of_xdist_tell_what_they_collected(gates: GateDirectory) -> None:
    (problem,) = problems(gates, LOST, GATE_TEST.replace("test_gate", "test_lost"), "-n1")
    assert "test_lost.py::test_lost" in problem
    assert "test_gate" not in problem


def test_what_pytest_does_not_take_for_a_test_is_none(gates: GateDirectory) -> None:
    assert problems(gates, "", NO_TESTS) == []


def test_a_file_that_was_not_asked_for_may_be_left_out(gates: GateDirectory) -> None:
    assert problems(gates, IGNORED, IN_A_CLASS, "test_it.py") == []
