"""A gate is judged once, whatever runs its test again."""

import pytest
from gate_project import GateDirectory

TWICE = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for log in {logs}:
        item._initrequest()
        runtestprotocol(item, nextitem=nextitem, log=log)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""
UNTIL_GREEN = """
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    for _ in range(3):
        if report.when != "call" or report.passed:
            break
        again = pytest.CallInfo.from_call(lambda: item.ihook.pytest_runtest_call(item=item), when="call")
        report.outcome = "passed" if again.excinfo is None else report.outcome
    return report
"""
WITHIN_THE_CALL = """
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        yield
    except Exception:
        pass
    item.runtest()
"""
GREEN_AT_THE_SECOND = """
import pathlib
def bodies():
    path = pathlib.Path("bodies.txt")
    path.write_text(path.read_text() + "x" if path.exists() else "x")
    return len(path.read_text())
"""


def interfere(gates: GateDirectory, source: str, name: str = "conftest.py") -> None:
    path = gates.path / name
    path.write_text(f"{path.read_text()}\n{source}")


def bodies(gates: GateDirectory) -> int:
    return sum(line.startswith("generate demo test_gate mxfp8") for line in gates.backend_log())


@pytest.mark.parametrize("logs", [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("shift", [50, 1])
def test_a_test_that_is_run_twice_is_an_error_and_its_first_verdict_stands(
    gates: GateDirectory, logs: tuple[bool, bool], shift: int
) -> None:
    interfere(gates, TWICE.format(logs=logs))
    gates.behave(shift={"mxfp8": shift})
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-gates=lpips")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert gates.outcomes() == {"mxfp8-lpips": "regression" if shift == 50 else "pass"}
    assert bodies(gates) == 1
    assert "were run again" in gates.report()["problems"][-1]
    if logs[1]:
        result.stdout.fnmatch_lines(["*first verdict*stand*"])
        assert result.parseoutcomes()["error" if "error" in result.parseoutcomes() else "errors"] == 1


@pytest.mark.parametrize("source", [UNTIL_GREEN, WITHIN_THE_CALL])
def test_a_call_that_is_repeated_until_it_is_green_stays_a_regression(gates: GateDirectory, source: str) -> None:
    interfere(gates, source)
    gates.behave(shift={"mxfp8": 50})
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-gates=lpips")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert gates.outcomes() == {"mxfp8-lpips": "regression"}
    assert bodies(gates) == 1


def test_a_body_that_raises_once_is_not_run_again_until_it_does_not(gates: GateDirectory) -> None:
    interfere(gates, UNTIL_GREEN)
    path = gates.path / "test_it.py"
    text = path.read_text().replace("    return mxq", "    assert bodies() > 1\n    return mxq")
    path.write_text(GREEN_AT_THE_SECOND + text)
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-gates=lpips")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert gates.outcomes() == {"mxfp8-lpips": "error"}
    assert (gates.path / "bodies.txt").read_text() == "x"


@pytest.mark.parametrize("where", ["function", "module", "options"])
def test_reruns_do_not_run_a_gate_again(gates: GateDirectory, where: str) -> None:
    mark = "pytest.mark.flaky(reruns=2)"
    path = gates.path / "test_it.py"
    text = path.read_text()
    if where == "function":
        path.write_text(text.replace("@pytest.mark.mxq(", f"@{mark}\n@pytest.mark.mxq("))
    elif where == "module":
        path.write_text(f"{text}\npytestmark = {mark}\n")
    gates.behave(shift={"nvfp4": 50})
    result = gates.emulated(*(["--reruns=2"] if where == "options" else []))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(errors=1, passed=3)
    assert gates.outcomes()["nvfp4-lpips"] == "regression"
    assert sum(line.startswith("generate demo test_gate nvfp4") for line in gates.backend_log()) == 1
    result.stdout.fnmatch_lines(["demo nvfp4 (emulated) lpips   mean 0.0500 > 0.0200*", "  next   *"])


def test_reruns_under_xdist_do_not_run_a_gate_again(gates: GateDirectory) -> None:
    gates.behave(shift={"mxfp8": 50})
    result = gates.run_apart("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-gates=lpips", "--reruns=2", "-n1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert gates.outcomes() == {"mxfp8-lpips": "regression"}
    assert bodies(gates) == 1
    assert "were run again" in gates.report()["problems"][-1]


def test_a_known_regression_that_is_run_again_is_an_error(gates: GateDirectory) -> None:
    interfere(gates, TWICE.format(logs=(False, True)))
    path = gates.path / "test_it.py"
    path.write_text(path.read_text().replace("@pytest.mark.mxq(", "@pytest.mark.xfail(reason='x')\n@pytest.mark.mxq("))
    gates.behave(shift={"mxfp8": 50})
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-gates=lpips")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(errors=1)


def test_other_tests_are_rerun_as_ever(gates: GateDirectory) -> None:
    gates.write(GREEN_AT_THE_SECOND + "\ndef test_own():\n    assert bodies() > 1\n", "test_own.py")
    result = gates.emulated("--reruns=2")
    result.assert_outcomes(passed=5)
    assert result.ret == 0
