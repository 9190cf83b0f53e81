"""xfail: a regression that is known, with its reason, and nothing else."""

import pytest
from gate_project import GateDirectory

BAD = {"mxfp8": 50, "nvfp4": 50}
BOTH = pytest.mark.parametrize("options", [(), ("--mxq-strict",)])


def mark(gates: GateDirectory, line: str, body: str | None = None) -> None:
    path = gates.path / "test_it.py"
    text = path.read_text().replace("@pytest.mark.mxq(", f"{line}\n@pytest.mark.mxq(")
    path.write_text(text if body is None else text.replace("    return mxq", f"    {body}\n    return mxq"))


def gate(gates: GateDirectory, *options: str) -> pytest.RunResult:
    return gates.emulated("--mxq-gates=lpips", *options)


@BOTH
def test_a_regression_with_a_reason_is_a_verdict_of_its_own_and_no_failure(
    gates: GateDirectory, options: tuple[str, ...]
) -> None:
    mark(gates, "@pytest.mark.xfail(reason='issue 12')")
    gates.run("--mxq-refresh")
    gates.behave(shift=BAD)
    result = gate(gates, "--junit-xml=junit.xml", *options)
    result.assert_outcomes(xfailed=2)
    assert result.ret == 0
    assert gates.outcomes() == {"mxfp8-lpips": "known-regression", "nvfp4-lpips": "known-regression"}
    assert "issue 12" in gates.report()["verdicts"][0]["sentence"]
    result.stdout.fnmatch_lines(["*2 known-regression; report: *"])
    assert "known-regression" in (gates.path / "junit.xml").read_text()


def test_a_known_regression_crosses_xdist(gates: GateDirectory) -> None:
    mark(gates, "@pytest.mark.xfail(reason='issue 12')")
    gates.behave(shift=BAD)
    result = gates.run_apart("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-gates=lpips", "-n1")
    assert result.ret == 0
    assert gates.outcomes() == {"mxfp8-lpips": "known-regression"}


@BOTH
@pytest.mark.parametrize("line", ["@pytest.mark.xfail", "@pytest.mark.xfail(reason=' ')"])
def test_a_regression_without_a_reason_fails_and_says_why(
    gates: GateDirectory, line: str, options: tuple[str, ...]
) -> None:
    mark(gates, line)
    gates.run("--mxq-refresh")
    gates.behave(shift=BAD)
    result = gate(gates, *options)
    result.assert_outcomes(failed=2)
    assert "xfail covers a known regression only with a reason" in " ".join(result.stdout.str().split())
    assert set(gates.outcomes().values()) == {"regression"}


@pytest.mark.parametrize("options", [(), ("--mxq-strict",)])
def test_a_pass_under_a_strict_xfail_fails_as_pytest_says(gates: GateDirectory, options: tuple[str, ...]) -> None:
    mark(gates, "@pytest.mark.xfail(reason='issue 12', strict=True)")
    gates.run("--mxq-refresh")
    result = gate(gates, *options)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*XPASS(strict)*"])
    assert set(gates.outcomes().values()) == {"pass"}


def test_a_regression_under_a_strict_xfail_is_known(gates: GateDirectory) -> None:
    mark(gates, "@pytest.mark.xfail(reason='issue 12', strict=True)")
    gates.behave(shift=BAD)
    gate(gates).assert_outcomes(xfailed=2)


def test_a_pass_under_xfail_is_a_pass(gates: GateDirectory) -> None:
    mark(gates, "@pytest.mark.xfail(reason='issue 12')")
    result = gate(gates)
    result.assert_outcomes(xpassed=2)
    assert result.ret == 0


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        ({"quantized": 0}, "not-quantized"),
        ({"faults": {"mxfp8": ["constant"], "nvfp4": ["constant"]}}, "degenerate"),
        ({"weights": "folder:1"}, "stale"),
        ({}, "error"),
    ],
)
@BOTH
def test_xfail_covers_nothing_but_a_regression(
    gates: GateDirectory, behaviour: dict[str, object], outcome: str, options: tuple[str, ...]
) -> None:
    mark(gates, "@pytest.mark.xfail(reason='issue 12')")
    gates.run("--mxq-refresh")
    if not behaviour:
        path = gates.path / "test_it.py"
        path.write_text(path.read_text().replace("    return mxq", "    raise AssertionError('own')\n    return mxq"))
    gates.behave(**behaviour)
    options = ("--mxq-reference=stored", *options)
    result = gate(gates, *options)
    result.assert_outcomes(failed=2)
    assert set(gates.outcomes().values()) == {outcome}


def test_xfail_does_not_cover_a_missing_baseline(gates: GateDirectory) -> None:
    mark(gates, "@pytest.mark.xfail(reason='issue 12')")
    gate(gates, "--mxq-strict").assert_outcomes(failed=2)
    assert set(gates.outcomes().values()) == {"missing"}


def test_xfail_does_not_cover_a_fault_of_the_test(gates: GateDirectory) -> None:
    mark(gates, "@pytest.mark.xfail(reason='issue 12')")
    path = gates.path / "test_it.py"
    path.write_text(path.read_text().replace("prompts=3", "promts=3"))
    gates.emulated().assert_outcomes(errors=4)


@pytest.mark.parametrize("where", ["body", "fixture"])
def test_an_xfail_that_is_called_is_an_error(gates: GateDirectory, where: str) -> None:
    if where == "body":
        mark(gates, "", "pytest.xfail('later')")
    else:
        mark(gates, "@pytest.fixture(autouse=True)\ndef early():\n    pytest.xfail('later')\n")
    result = gate(gates)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "xfailed" not in result.parseoutcomes()
    assert set(gates.outcomes().values()) == {"error"}
    assert "pytest.xfail() was called" in gates.report()["verdicts"][0]["sentence"]


def test_a_test_that_xfail_does_not_run_is_not_run_and_fails_under_strict_alone(gates: GateDirectory) -> None:
    mark(gates, "@pytest.mark.xfail(reason='crashes', run=False)")
    result = gate(gates)
    result.assert_outcomes(xfailed=2)
    assert result.ret == 0
    assert set(gates.outcomes().values()) == {"not-run"}
    result = gate(gates, "--mxq-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(errors=2)
    assert set(gates.outcomes().values()) == {"not-run"}


def test_a_report_that_a_conftest_calls_xfailed_covers_nothing(gates: GateDirectory) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + "\nimport pytest\n@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_makereport():\n    report = yield\n"
        "    if report.failed:\n        report.outcome, report.wasxfail = 'skipped', 'mine'\n    return report\n"
    )
    gates.behave(shift=BAD)
    gate(gates).assert_outcomes(failed=2)
    assert set(gates.outcomes().values()) == {"regression"}
