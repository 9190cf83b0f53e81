"""Gates that a project registers by hook: with the rights of the built-in ones, and clear errors where they are not."""

from pathlib import Path

import pytest
from gate_project import GateDirectory

from pytest_mxq.testing import FakeScorer

OWN = (Path(__file__).parents[2] / "examples" / "own_gate" / "conftest.py").read_text()
TEST = """
import pytest

@pytest.mark.mxq("demo", prompts=3)
@pytest.mark.mxq_mae({bounds})
def test_gate(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""


@pytest.fixture
def own(gates: GateDirectory) -> GateDirectory:
    add(gates, OWN)
    gates.write(TEST.format(bounds='max={"mxfp8": 0.02, "nvfp4": 0.02}, worst=0.04'))
    return gates


def add(gates: GateDirectory, source: str) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(f"{source}\n{conftest.read_text()}")


@pytest.mark.parametrize("options", [(), ("-n1",)])
def test_it_is_planned_judged_reported_and_selected_by_name(own: GateDirectory, options: tuple[str, ...]) -> None:
    own.behave(shift={"nvfp4": 50})
    own.run_apart("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "--mxq-gates=mae", *options).assert_outcomes(
        passed=1, failed=1
    )
    assert own.outcomes() == {"mxfp8-mae": "pass", "nvfp4-mae": "regression"}
    worst = own.typed_report().verdicts[1]
    assert (worst.bound, worst.worst_bound, worst.scale and worst.scale.digits) == (0.02, 0.04, 2)


def test_its_marker_is_declared_with_its_text(own: GateDirectory) -> None:
    lines = own.run_apart("--markers").stdout.str()
    assert "@pytest.mark.mxq_mae(max=, worst=): bound of the mean absolute error of pixels" in lines


def test_a_bound_is_read_by_format_and_its_faults_are_the_test_s(own: GateDirectory) -> None:
    own.write(TEST.format(bounds='max={"mxfp8": 0.02}, worst=0.01'))
    own.emulated().assert_outcomes(errors=2)
    sentences = [verdict.sentence for verdict in own.typed_report().verdicts]
    assert "worst=0.01 is stricter than max=0.02" in sentences[0]
    assert "states no bound for format 'nvfp4'" in sentences[1]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def pytest_mxq_gates():\n    return [object()]\n", "must return a list of Gate*without read_bound"),
        ("def pytest_mxq_gates():\n    return 3\n", "must return a list of Gate, got 3"),
        ("def pytest_mxq_gates():\n    raise RuntimeError('no such board')\n", "raised RuntimeError: no such board"),
        (
            "from pytest_mxq.gates.psnr import PSNR\ndef pytest_mxq_gates():\n    return [PSNR]\n",
            "gate 'psnr' is registered twice; gates: lpips, ssim, psnr",
        ),
        (
            "from pytest_mxq import Gate, Scale\nclass Bare(Gate):\n    needs = None\ndef pytest_mxq_gates():\n"
            "    return [Bare(name='bare', summary='', scale=Scale(higher_is_better=True))]\n",
            "raised TypeError*read_bound",
        ),
        (
            "from pytest_mxq import Gate, Scale\nclass Odd(Gate):\n    needs = arguments = None\n    read_bound = None\n"
            "def pytest_mxq_gates():\n"
            "    return [Odd(name='odd', summary='', scale=Scale(higher_is_better=True))]\n",
            "must return AccuracyGate, SpeedGate or MemoryGate, got 'odd', a Odd",
        ),
        (
            OWN.replace('name="mae"', 'name="my-gate"'),
            "gate name 'my-gate' is not allowed",
        ),
    ],
)
def test_a_hook_that_is_no_gate_s_is_a_usage_error_that_names_it(gates: GateDirectory, source: str, said: str) -> None:
    add(gates, source)
    result = gates.run_apart("--mxq-formats=mxfp8", "--mxq-emulate")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{said}*"])
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    ("lambdas", "said"),
    [
        ("default_worst=lambda mean: 1 / 0", "gate 'mae': ZeroDivisionError: division by zero"),
        ("default_worst=lambda mean: 'x'", "gate 'mae': TypeError"),
    ],
)
def test_an_exception_of_a_gate_s_own_code_is_a_fault_of_its_tests_alone(
    own: GateDirectory, lambdas: str, said: str
) -> None:
    conftest = own.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace("default_worst=lambda mean: 2 * mean", lambdas))
    own.write(TEST.format(bounds="max=0.02") + "\ndef test_plain():\n    pass\n")
    own.run("--mxq-formats=mxfp8", "--mxq-emulate").assert_outcomes(errors=1, passed=1)
    (verdict,) = own.typed_report().verdicts
    assert (verdict.outcome.value, said in verdict.sentence) == ("error", True)


def test_a_gate_s_hook_may_be_a_generator(gates: GateDirectory) -> None:
    add(gates, OWN.replace("return [MAE]", "yield MAE"))
    gates.write(TEST.format(bounds="max=0.02"))
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("values", "said"), [([0.1], "returned 1 values for 3 images"), ([], "returned 0 values for 3 images")]
)
def test_a_score_of_another_number_of_values_is_an_error_of_that_gate(
    own: GateDirectory, monkeypatch: pytest.MonkeyPatch, values: list[float], said: str
) -> None:
    monkeypatch.setattr(FakeScorer, "score", lambda *_: values)
    own.run("--mxq-formats=mxfp8", "--mxq-emulate").assert_outcomes(failed=1)
    verdict = own.typed_report().verdicts[0]
    assert (verdict.outcome.value, said in verdict.sentence) == ("error", True)
