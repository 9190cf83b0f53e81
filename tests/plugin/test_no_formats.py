"""Gate tests without formats: said in one line, also in a run that did not ask for gates."""

import pytest
from gate_project import GateDirectory

LINE = "mxq: 1 gate test and no formats: nothing was gated; add --mxq-formats=mxfp8,nvfp4"


@pytest.mark.parametrize("options", [(), ("-q",), ("--mxq-models=demo",), ("--mxq-strict",)])
def test_a_run_without_formats_says_that_nothing_was_gated(gates: GateDirectory, options: tuple[str, ...]) -> None:
    result = gates.run(*options)
    said = sum("no formats: " in line for line in result.stdout.lines if "skipped" in line or line == LINE)
    assert said == 1
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if "--mxq-strict" in options else 0)


def test_it_counts_the_gate_tests_and_no_other_skip(gates: GateDirectory) -> None:
    path = gates.path / "test_it.py"
    path.write_text(path.read_text() + "\n\ndef test_own():\n    pytest.skip('own')\n")
    gates.write(path.read_text().replace("test_gate", "test_more"), "test_two.py")
    result = gates.run_apart("-n2")
    result.stdout.fnmatch_lines(["mxq: 2 gate tests and no formats: nothing was gated; *"])


@pytest.mark.parametrize("options", [("--mxq-formats=mxfp8", "--mxq-emulate"), ("--mxq-refresh",), ("-kno_such",)])
def test_it_is_not_said_where_formats_are_given_or_no_gate_test_is_there(
    gates: GateDirectory, options: tuple[str, ...]
) -> None:
    assert "no formats" not in gates.run(*options).stdout.str()


@pytest.mark.parametrize("options", [(), ("--mxq-strict", "--mxq-reference=live")])
def test_a_pipeline_that_is_asked_for_by_name_in_the_body_is_an_error(
    gates: GateDirectory, options: tuple[str, ...]
) -> None:
    gates.write('def test_own(request):\n    request.getfixturevalue("mxq_pipeline")\n', "test_own.py")
    result = gates.emulated(*options)
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*ask for mxq_pipeline as an argument of a test marked mxq*"])
    assert "no formats" not in result.stdout.str()
