"""Which markers of one name a test may have."""

import pytest
from gate_project import GateDirectory

FUNCTION = """
import pytest

@pytest.mark.mxq("demo", prompts=2){more}
@pytest.mark.mxq_lpips(max=1e-5)
def test_gate(mxq_pipeline, mxq_prompt{names}):
    return mxq_pipeline(mxq_prompt)
"""
ADDED = """
import pytest

def pytest_itemcollected(item):
    item.add_marker(pytest.mark.{marker})
"""


def outcomes(gates: GateDirectory, source: str) -> tuple[set[str], str]:
    gates.write(source)
    gates.behave(shift={"mxfp8": 15})
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate")
    verdicts = gates.report()["verdicts"]
    return {verdict["outcome"] for verdict in verdicts}, verdicts[0]["sentence"]


def add_to_conftest(gates: GateDirectory, marker: str) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(f"{conftest.read_text()}\n{ADDED.format(marker=marker)}")


@pytest.mark.parametrize("marker", ["mxq_lpips(max=0.2, worst=0.2)", "mxq('demo', prompts=1)"])
@pytest.mark.parametrize("more", ["", "\n@pytest.mark.parametrize('x', [1])"])
def test_a_marker_that_a_conftest_adds_to_the_tests_own_is_a_fault(
    gates: GateDirectory, marker: str, more: str
) -> None:
    add_to_conftest(gates, marker)
    found, sentence = outcomes(gates, FUNCTION.format(more=more, names=", x" if more else ""))
    assert found == {"error"}
    assert "max=1e-05" in sentence or "prompts=2" in sentence
    assert "max=0.2" in sentence or "prompts=1" in sentence


def test_a_marker_that_a_conftest_adds_to_a_parameters_own_is_a_fault(gates: GateDirectory) -> None:
    add_to_conftest(gates, "mxq_lpips(max=0.3)")
    values = "[pytest.param(1, marks=pytest.mark.mxq_lpips(max=0.02))]"
    more = f"\n@pytest.mark.parametrize('x', {values})"
    assert outcomes(gates, FUNCTION.format(more=more, names=", x"))[0] == {"error"}


def test_two_markers_of_one_gate_on_one_function_are_a_fault(gates: GateDirectory) -> None:
    more = "\n@pytest.mark.mxq_lpips(max=0.02)"
    assert outcomes(gates, FUNCTION.format(more=more, names=""))[0] == {"error"}


def test_a_parameters_marker_takes_the_place_of_the_functions(gates: GateDirectory) -> None:
    values = "[pytest.param(1, marks=pytest.mark.mxq_lpips(max=0.02))]"
    more = f"\n@pytest.mark.parametrize('x', {values})"
    assert outcomes(gates, FUNCTION.format(more=more, names=", x"))[0] == {"pass"}


def test_the_same_marker_twice_is_one(gates: GateDirectory) -> None:
    add_to_conftest(gates, "mxq_lpips(max=1e-5)")
    assert outcomes(gates, FUNCTION.format(more="", names=""))[0] == {"regression"}


def test_a_functions_marker_takes_the_place_of_its_modules(gates: GateDirectory) -> None:
    source = FUNCTION.format(more="", names="").replace("1e-5", "0.02")
    assert outcomes(gates, f"{source}\npytestmark = pytest.mark.mxq_lpips(max=1e-5)\n")[0] == {"pass"}
