"""The exit code belongs to the recorded verdicts, whatever a conftest.py makes of pytest's outcomes."""

import json

import pytest
from gate_project import GateDirectory
from manifest_examples import resealed

REPORTS_PASS = """
import json

import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.outcome = "passed"
    return report
"""
REPORTS_REPLACED = """
import json

import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    return pytest.TestReport(report.nodeid, report.location, {}, "passed", None, report.when)
"""
BODIES_PASS = """
import json

import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    try:
        yield
    except BaseException:
        pass
    return True
"""
EXIT_ZERO = """
def pytest_sessionfinish(session):
    session.exitstatus = 0
"""
EXIT_ZERO_LAST = """
def pytest_unconfigure(config):
    session = config.pluginmanager.get_plugin("session")
    session.exitstatus = 0
"""
SYSTEM_EXIT = """
import sys

import pytest

@pytest.hookimpl(trylast=True)
def pytest_{hook}():
    sys.exit(0)
"""
MAIN_ZERO = """
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config):
    yield
    return 0
"""
UNREGISTERED = """
import pytest

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report.outcome = "passed"
    return report

def pytest_sessionstart(session):
    session.config.pluginmanager.unregister(name="{name}")
"""
ANOTHER_BODY = """
import json

import pytest

@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    try:
        yield
    except BaseException:
        pass
    return True

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    item.runtest = lambda: None
"""
# A folder's conftest.py is registered after our session: its hooks come around ours.
IN_A_FOLDER = "sub"


def interfere(gates: GateDirectory, source: str, *, in_folder: bool) -> None:
    if not in_folder:
        conftest = gates.path / "conftest.py"
        conftest.write_text(conftest.read_text() + source)
        return
    folder = gates.path / IN_A_FOLDER
    folder.mkdir()
    (folder / "conftest.py").write_text(source)
    (gates.path / "test_it.py").rename(folder / "test_it.py")


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("source", [REPORTS_PASS, REPORTS_REPLACED, BODIES_PASS])
def test_a_regression_that_pytest_counts_as_a_pass_fails_the_run_and_is_said(
    gates: GateDirectory, source: str, in_folder: bool
) -> None:
    interfere(gates, source, in_folder=in_folder)
    gates.behave(shift={"nvfp4": 50})
    result = gates.emulated("--mxq-gates=lpips")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert gates.outcomes() == {"mxfp8-lpips": "pass", "nvfp4-lpips": "regression"}
    if source is BODIES_PASS or in_folder:  # a conftest.py of the root comes within ours, and pytest counts a failure
        result.assert_outcomes(passed=2)
        result.stdout.fnmatch_lines(["*1 verdict is a failure although pytest counted passes: *nvfp4-lpips*"])
        assert "although pytest counted passes" in gates.report()["problems"][0]


@pytest.mark.parametrize("options", [(), ("--mxq-strict",)])
@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("source", [EXIT_ZERO, EXIT_ZERO_LAST])
def test_an_exit_status_that_is_set_to_zero_does_not_hide_a_regression(
    gates: GateDirectory, source: str, in_folder: bool, options: tuple[str, ...]
) -> None:
    interfere(gates, source, in_folder=in_folder)
    gates.run("--mxq-refresh")
    gates.behave(shift={"nvfp4": 50})
    assert gates.emulated("--mxq-gates=lpips", *options).ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(("shift", "code"), [(50, pytest.ExitCode.TESTS_FAILED), (0, pytest.ExitCode.OK)])
@pytest.mark.parametrize("hook", ["sessionfinish", "unconfigure"])
def test_a_hook_that_ends_the_process_well_does_not_hide_a_regression(
    gates: GateDirectory, hook: str, shift: int, code: pytest.ExitCode
) -> None:
    interfere(gates, SYSTEM_EXIT.format(hook=hook), in_folder=False)
    gates.behave(shift={"nvfp4": shift} if shift else {})
    assert gates.run_apart("--mxq-formats=nvfp4", "--mxq-emulate", "--mxq-gates=lpips").ret == code


def test_a_conftest_that_returns_zero_for_the_whole_run_does_not_hide_a_regression(gates: GateDirectory) -> None:
    interfere(gates, MAIN_ZERO, in_folder=False)
    gates.behave(shift={"nvfp4": 50})
    assert gates.emulated("--mxq-gates=lpips").ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("name", ["mxq-controller", "mxq-session"])
def test_a_part_of_the_plugin_that_is_unregistered_is_an_error(gates: GateDirectory, name: str) -> None:
    interfere(gates, UNREGISTERED.format(name=name), in_folder=False)
    gates.behave(shift={"nvfp4": 50})
    result = gates.run_apart("--mxq-formats=nvfp4", "--mxq-emulate", "--mxq-strict", "--mxq-reference=live")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *unregistered*"])


def test_an_exit_status_that_is_set_to_zero_does_not_hide_a_problem_of_strict(gates: GateDirectory) -> None:
    interfere(gates, EXIT_ZERO, in_folder=False)
    assert gates.run("--mxq-strict", "-kno_such_test").ret == pytest.ExitCode.TESTS_FAILED


def test_a_passing_run_stays_a_passing_run(gates: GateDirectory) -> None:
    interfere(gates, REPORTS_PASS + EXIT_ZERO, in_folder=False)
    assert gates.emulated().ret == 0
    assert gates.report()["problems"] == []


def test_a_body_that_another_plugin_ran_in_our_place_is_an_error(gates: GateDirectory) -> None:
    interfere(gates, ANOTHER_BODY, in_folder=False)
    result = gates.emulated()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert set(gates.outcomes().values()) == {"error"}


def test_a_run_that_ends_early_with_exit_code_zero_fails_for_what_did_not_run(gates: GateDirectory) -> None:
    interfere(
        gates,
        "\nimport pytest\ndef pytest_runtest_teardown(item):\n    pytest.exit('enough', returncode=0)\n",
        in_folder=False,
    )
    result = gates.emulated()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "not-run" in gates.outcomes().values()


def test_a_verdict_that_a_worker_reports_as_passed_fails_the_run(gates: GateDirectory) -> None:
    interfere(gates, REPORTS_REPLACED, in_folder=True)
    gates.behave(shift={"nvfp4": 50})
    result = gates.run_apart("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "-n2")
    result.assert_outcomes(passed=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert gates.outcomes()["nvfp4-lpips"] == "regression"


@pytest.mark.parametrize("option", ["--collect-only", "--setup-only"])
def test_a_run_that_is_to_run_nothing_is_quiet(gates: GateDirectory, option: str) -> None:
    assert gates.emulated(option).ret == 0


@pytest.mark.parametrize("options", [(), ("-n1",)])
def test_the_short_summary_has_one_line_a_failure_also_where_ci_is_set(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    gates.behave(shift={"nvfp4": 50})
    monkeypatch.setenv("CI", "true")
    result = gates.run_apart("--mxq-formats=nvfp4", "--mxq-emulate", "--mxq-gates=lpips", "-rA", *options)
    lines = result.stdout.lines
    summary = lines[next(index for index, line in enumerate(lines) if "short test summary" in line) + 1 : -1]
    assert len(summary) == 1
    assert summary[0].startswith("REGRESSION test_it.py::test_gate[nvfp4-lpips] - mean 0.0500 > 0.0200, ")
    assert sum(line.startswith("  next ") for line in lines) == 1


def test_the_failure_of_a_stale_baseline_says_its_reason_once(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh")
    path = next((gates.path / "baselines").rglob("*.json"))
    document = json.loads(path.read_text())
    document["fingerprint"]["hard"]["torch"] = "1.0"
    path.write_text(json.dumps(resealed(document)))
    result = gates.run(
        "--mxq-formats=nvfp4", "--mxq-emulate", "--mxq-gates=lpips", "--mxq-reference=stored", "--no-header"
    )
    lines = result.stdout.lines
    begin, end = (next(i for i, line in enumerate(lines) if word in line) for word in ("mxq verdicts", "short test"))
    assert sum("torch 1.0" in line for line in lines[begin:end]) == 1
    assert sum(line.startswith("    next     ") and "--mxq-refresh" in line for line in lines[begin:end]) == 1
