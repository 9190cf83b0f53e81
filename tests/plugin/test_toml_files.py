"""Options in a pyproject.toml: pytest 9's own table, with types, and the older one."""

import pytest
from gate_project import GateDirectory

NATIVE = pytest.mark.skipif(pytest.version_tuple < (9, 0), reason="[tool.pytest] is pytest 9's")


def configure(gates: GateDirectory, table: str, *lines: str) -> None:
    (gates.path / "tox.ini").unlink()
    (gates.path / "pyproject.toml").write_text("\n".join([f"[{table}]", *lines]) + "\n")


@pytest.mark.parametrize("table", [pytest.param("tool.pytest", marks=NATIVE), "tool.pytest.ini_options"])
def test_numbers_flags_and_lists_have_their_types(gates: GateDirectory, table: str) -> None:
    configure(gates, table, "mxq_alpha = 0.02", "mxq_strict = true", 'mxq_formats = ["mxfp8"]', 'mxq_report = "out"')
    gates.run("--mxq-refresh", "-o", "mxq_strict=false").assert_outcomes(passed=1)
    result = gates.run("--mxq-emulate", "--mxq-report=mxq-report")
    result.assert_outcomes(passed=2)
    settings = gates.report()["settings"]
    assert (settings["alpha"], settings["strict"], settings["formats"]) == (0.02, True, ["mxfp8"])


@NATIVE
@pytest.mark.parametrize(
    "line", ['mxq_alpha = "low"', "mxq_alpha = 0.9", 'mxq_formats = "mxfp8"', 'mxq_strict = "yes"']
)
def test_a_value_of_another_type_is_a_usage_error_that_names_the_option(gates: GateDirectory, line: str) -> None:
    configure(gates, "tool.pytest", line)
    result = gates.run("--mxq-models=demo")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "INTERNALERROR" not in result.stderr.str() + result.stdout.str()
    assert line.partition(" ")[0].partition("_")[2] in result.stderr.str()


@NATIVE
def test_a_list_that_is_a_text_is_a_usage_error_also_of_an_idle_run(gates: GateDirectory) -> None:
    configure(gates, "tool.pytest", 'mxq_formats = "mxfp8"')
    assert gates.run().ret == pytest.ExitCode.USAGE_ERROR
