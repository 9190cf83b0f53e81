"""The published plugins that run tests again, each alone; skipped where it is not installed."""

import shlex
from importlib.metadata import distributions

import pytest
from gate_project import GateDirectory

BLOCKED = [word for name in ("pytest-retry", "flaky", "repeat", "rerunfailures") for word in ("-p", f"no:{name}")]
BAD = {"mxfp8": 50, "nvfp4": 1}


def run(gates: GateDirectory, plugin: str, *options: str) -> pytest.RunResult:
    """Run both formats' LPIPS gates in a process of its own, with one of the plugins."""
    at = BLOCKED.index(f"no:{plugin}")
    others = BLOCKED[: at - 1] + BLOCKED[at + 1 :]
    return gates.run_apart("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "--mxq-gates=lpips", *others, *options)


def require(distribution: str) -> None:
    """Skip the test where a distribution is not installed: together, these plugins disturb each other and the suite."""
    if distribution not in {found.name for found in distributions()}:
        pytest.skip(f"{distribution} is not installed")


def bodies(gates: GateDirectory) -> int:
    return sum(line == "generate demo test_gate mxfp8" for line in gates.backend_log())


@pytest.mark.parametrize(
    ("plugin", "options"),
    [
        ("pytest-retry", ("--retries", "3")),
        ("flaky", ("--force-flaky", "--max-runs", "3")),
    ],
)
def test_a_regression_is_not_retried_until_it_is_green(
    gates: GateDirectory, plugin: str, options: tuple[str, ...]
) -> None:
    require(plugin)
    gates.behave(shift=BAD)
    result = run(gates, plugin, *options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert gates.outcomes() == {"mxfp8-lpips": "regression", "nvfp4-lpips": "pass"}
    assert bodies(gates) == 1
    assert "were run again" in gates.report()["problems"][-1]
    summary = [line for line in result.stdout.lines if line.startswith("REGRESSION test_it.py")]
    assert len(summary) == 1
    assert "- Failed: REGRESSION" in summary[0]


def test_flaky_s_second_run_of_a_pass_is_an_error(gates: GateDirectory) -> None:
    require("flaky")
    result = run(gates, "flaky", "--force-flaky", "--max-runs", "3", "--min-passes", "2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert gates.outcomes() == {"mxfp8-lpips": "pass", "nvfp4-lpips": "pass"}
    assert bodies(gates) == 1


def test_each_repeat_is_a_gate_of_one_case_and_its_commands_collect_it(gates: GateDirectory) -> None:
    require("pytest-repeat")
    gates.behave(shift=BAD)
    run(gates, "repeat", "--count", "2").assert_outcomes(failed=2, passed=2)
    again = gates.report()["verdicts"][0]["next_command"]
    run(gates, "repeat", "--count", "2", "--mxq-reference=stored").assert_outcomes(failed=4)
    refresh = gates.report()["verdicts"][0]["next_command"]
    for command, outcome in ((again, "failed"), (refresh, "passed")):
        words = shlex.split(command)
        gates.run_apart(*words[words.index("pytest") + 1 :]).assert_outcomes(**{outcome: 1})
