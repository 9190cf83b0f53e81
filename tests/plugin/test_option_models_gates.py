import pytest
from gate_project import GateDirectory

TWO_MODELS = """
import pytest

@pytest.mark.mxq("demo", prompts=2)
@pytest.mark.mxq_lpips(max=0.02)
def test_demo(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)

@pytest.mark.mxq("own/model", prompts=2)
@pytest.mark.mxq_lpips(max=0.02)
@pytest.mark.mxq_psnr(min=20)
def test_hub(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)

def test_ordinary():
    pass
"""


def test_models_keeps_the_tests_of_these_models_and_leaves_ordinary_tests_alone(gates: GateDirectory) -> None:
    gates.write(TWO_MODELS)
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-models=demo")
    result.assert_outcomes(passed=2, deselected=2)
    assert gates.outcomes() == {"mxfp8-lpips": "pass"}


def test_a_hub_id_may_be_named(gates: GateDirectory) -> None:
    gates.write(TWO_MODELS)
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-models=own/model").assert_outcomes(passed=3, deselected=1)


def test_an_unknown_model_lists_the_choices(gates: GateDirectory) -> None:
    result = gates.emulated("--mxq-models=dmeo")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown model 'dmeo' (did you mean 'demo'?); models: demo*"])


def test_gates_keeps_these_gates_and_deselects_a_test_that_is_left_with_none(gates: GateDirectory) -> None:
    gates.write(TWO_MODELS)
    result = gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-gates=psnr")
    result.assert_outcomes(passed=2, deselected=1)
    assert gates.outcomes() == {"mxfp8-psnr": "pass"}


def test_an_unknown_gate_lists_the_choices(gates: GateDirectory) -> None:
    result = gates.emulated("--mxq-gates=speed")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown gate 'speed'*gates: lpips, ssim, psnr*"])


def test_a_hook_registers_a_model_of_ones_own(gates: GateDirectory) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + """
from pytest_mxq.models import Recipe, SelectionRule
def pytest_mxq_models():
    return [Recipe(name="mine", source="x/y", rule=SelectionRule(min_features=64), prompts=("one", "two"))]
"""
    )
    gates.write(TWO_MODELS.replace('"demo", prompts=2', '"mine"'))
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-models=mine").assert_outcomes(passed=2, deselected=2)
    assert gates.report()["verdicts"][0]["cell"]["model"] == "mine"
