"""``mxq(prompts="drawbench")``: fetched when the first gate is set up, never at collection."""

from dataclasses import dataclass

import pytest
from gate_project import GateDirectory, flat

from pytest_mxq.errors import MxqError, PromptsUnavailableError
from pytest_mxq.models import drawbench

PROMPTS = tuple(f"prompt {number}" for number in range(200))
TEST = """
import pytest

@pytest.mark.mxq("demo", prompts="drawbench", batch_size=50)
@pytest.mark.mxq_lpips(max=0.02)
@pytest.mark.mxq_ssim(min=0.9)
def test_gate(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""


@dataclass
class Hub:
    """Answers in place of the Hub, and counts how often it is asked."""

    answer: tuple[str, ...] | Exception = PROMPTS
    asked: int = 0

    def fetch(self) -> tuple[str, ...]:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def hub(gates: GateDirectory, monkeypatch: pytest.MonkeyPatch) -> Hub:
    gates.write(TEST)
    hub = Hub()
    monkeypatch.setattr(drawbench, "read_drawbench", hub.fetch)
    return hub


def test_all_200_are_generated_and_fetched_once_for_all_gates(gates: GateDirectory, hub: Hub) -> None:
    gates.emulated().assert_outcomes(passed=4)
    assert {len(record["scores"]["values"]) for record in gates.report()["verdicts"]} == {200}
    assert hub.asked == 1


@pytest.mark.usefixtures("hub")
def test_a_refresh_stores_them_and_a_gate_finds_its_baseline(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh").assert_outcomes(passed=1)
    gates.emulated("--mxq-reference=stored").assert_outcomes(passed=4)


def test_nothing_is_fetched_where_nothing_is_generated(gates: GateDirectory, hub: Hub) -> None:
    assert gates.emulated("--collect-only").ret == 0
    gates.run("--mxq-formats=mxfp8").assert_outcomes(skipped=2)  # no GPU
    gates.run().assert_outcomes(skipped=1)
    assert hub.asked == 0


def test_a_hub_out_of_reach_is_asked_once_and_every_gate_skips_with_its_sentence(
    gates: GateDirectory, hub: Hub
) -> None:
    hub.answer = PromptsUnavailableError("DrawBench is out of reach")
    result = gates.emulated("-rs")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(["SKIPPED*4*DrawBench is out of reach"])
    assert hub.asked == 1
    assert gates.backend_log() == []
    gates.emulated("--mxq-strict").assert_outcomes(errors=4)


def test_another_file_is_a_fault(gates: GateDirectory, hub: Hub) -> None:
    hub.answer = MxqError("it holds 3 prompts")
    result = gates.emulated()
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*fault of the test: it holds 3 prompts*"])


def test_another_name_is_refused_with_the_choices(gates: GateDirectory) -> None:
    gates.write(TEST.replace('"drawbench"', '"drawbnech"'))
    result = gates.emulated()
    result.assert_outcomes(errors=4)
    assert "or the name of a set (drawbench); got 'drawbnech'" in flat(result)


@pytest.mark.parametrize("value", ["'  '", "''", "('drawbench', 'drawbench')"])
def test_a_text_that_is_no_set_is_no_list_of_prompts(gates: GateDirectory, value: str) -> None:
    gates.write(TEST.replace('"drawbench"', value))
    gates.emulated().assert_outcomes(errors=4)
