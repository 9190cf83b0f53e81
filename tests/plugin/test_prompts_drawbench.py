"""``mxq(prompts="drawbench")``: fetched when the first gate is set up, never at collection."""

import pytest
from gate_project import GateDirectory

FETCH = """
import pytest_mxq.models.drawbench as drawbench
from pathlib import Path
from pytest_mxq.errors import MxqError, PromptsUnavailableError

def fetch(_fetch=None):
    with open("fetched.txt", "a") as file:
        file.write("x")
    {answer}
drawbench.read_drawbench = fetch
"""
PROMPTS = "return tuple(f'prompt {number}' for number in range(200))"
TEST = """
import pytest

@pytest.mark.mxq("demo", prompts="drawbench", batch_size=50)
@pytest.mark.mxq_lpips(max=0.02)
@pytest.mark.mxq_ssim(min=0.9)
def test_gate(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""


def prepare(gates: GateDirectory, answer: str) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text("\n".join([conftest.read_text(), FETCH.format(answer=answer)]))
    gates.write(TEST)


def times_fetched(gates: GateDirectory) -> int:
    path = gates.path / "fetched.txt"
    return len(path.read_text()) if path.exists() else 0


def test_all_200_are_generated_and_fetched_once_for_all_gates(gates: GateDirectory) -> None:
    prepare(gates, PROMPTS)
    gates.emulated().assert_outcomes(passed=4)
    assert {len(record["scores"]["values"]) for record in gates.report()["verdicts"]} == {200}
    assert times_fetched(gates) == 1


def test_a_refresh_stores_them_and_a_gate_finds_its_baseline(gates: GateDirectory) -> None:
    prepare(gates, PROMPTS)
    gates.run("--mxq-refresh").assert_outcomes(passed=1)
    gates.emulated("--mxq-reference=stored").assert_outcomes(passed=4)


def test_nothing_is_fetched_where_nothing_is_generated(gates: GateDirectory) -> None:
    prepare(gates, "raise AssertionError('fetched')")
    assert gates.emulated("--collect-only").ret == 0
    gates.run("--mxq-formats=mxfp8").assert_outcomes(skipped=2)  # no GPU
    gates.run().assert_outcomes(skipped=1)
    assert times_fetched(gates) == 0


def test_a_hub_out_of_reach_is_asked_once_and_every_gate_skips_with_its_sentence(gates: GateDirectory) -> None:
    prepare(gates, "raise PromptsUnavailableError('DrawBench cannot be had here')")
    result = gates.emulated("-rs")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(["4 skipped: DrawBench cannot be had here", "SKIPPED*DrawBench cannot be had here"])
    assert times_fetched(gates) == 1
    assert gates.backend_log() == []
    gates.emulated("--mxq-strict").assert_outcomes(errors=4)


def test_another_file_is_a_fault(gates: GateDirectory) -> None:
    prepare(gates, "raise MxqError('it holds 3 prompts')")
    result = gates.emulated()
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*fault of the test: it holds 3 prompts*"])


def test_another_name_is_refused_with_the_choices(gates: GateDirectory) -> None:
    gates.write(TEST.replace('"drawbench"', '"drawbnech"'))
    result = gates.emulated()
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*or the name of a set (drawbench); got 'drawbnech'*"])


@pytest.mark.parametrize("value", ["'  '", "''", "('drawbench', 'drawbench')"])
def test_a_text_that_is_no_set_is_no_list_of_prompts(gates: GateDirectory, value: str) -> None:
    gates.write(TEST.replace('"drawbench"', value))
    gates.emulated().assert_outcomes(errors=4)
