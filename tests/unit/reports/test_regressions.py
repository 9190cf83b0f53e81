"""The terminal's section of what got worse."""

from pathlib import Path

import pytest
from report_examples import make_cell, make_verdict

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import Verdict
from pytest_mxq.reports.regressions import MAX_LINES, regression_lines
from pytest_mxq.reports.table import Layout

ROOT = Path("project")


def shown(*verdicts: Verdict, width: int = 100) -> list[str]:
    layout = Layout(width=width, has_skips=False, report=Path("mxq-report"))
    return [line for line, _ in regression_lines(verdicts, ROOT, layout)]


def test_a_regression_has_its_numbers_its_place_on_the_page_and_the_next_command() -> None:
    lines = shown(make_verdict(comparisons=("demo/test_0/nvfp4/00-sheet.png", "another")))
    assert lines[0] == "demo nvfp4 lpips   mean 0.0500 > 0.0200"
    assert lines[-3:] == [
        "  look at   mxq-report/demo/test_0/nvfp4/00-sheet.png",
        "  report    mxq-report/index.html#demo-test_0-nvfp4-lpips",
        "  next      pytest 'tests/test_it.py::test_0[nvfp4-lpips]' --mxq-formats=nvfp4",
    ]


def test_what_could_not_be_judged_is_no_regression() -> None:
    assert shown(make_verdict(Outcome.STALE), make_verdict(Outcome.PASS), make_verdict(Outcome.SKIPPED)) == []


def test_a_sentence_that_the_table_has_is_not_said_again() -> None:
    lines = shown(make_verdict(Outcome.DEGENERATE, scores=None, sentence="image 0 is constant"))
    assert lines[0] == "demo nvfp4 lpips   degenerate"
    assert not [line for line in lines if "constant" in line]


def test_a_case_is_named_where_its_model_has_several() -> None:
    lines = shown(make_verdict(number=0), make_verdict(Outcome.PASS, number=1))
    assert lines[0] == "demo/test_0 nvfp4 lpips   mean 0.0500 > 0.0200"


@pytest.mark.parametrize("width", range(20, 120))
def test_no_line_ends_between_a_number_and_its_unit(width: int) -> None:
    sentence = "mean 41.49 dB < 44.00 dB, worst 39.25 dB < 40.00 dB; BF16 2.10 s -> 1.60 s at 95 %"
    lines = shown(make_verdict(sentence=sentence), width=width)
    assert not [line for line in lines if line.rstrip().endswith(("41.49", "44.00", "39.25", "40.00", "2.10", "95"))]


def test_what_two_gates_of_one_arm_share_is_said_once() -> None:
    lines = shown(make_verdict(), make_verdict(cell=make_cell(gate="ssim")))
    assert sum(line.startswith("  baseline") for line in lines) == 1
    assert sum(line.startswith("  next") for line in lines) == 2


@pytest.mark.parametrize("count", [1, 5, 39, 41, 500])
def test_it_has_at_most_forty_lines_and_says_how_many_are_left(count: int) -> None:
    lines = shown(*(make_verdict(number=number) for number in range(count)))
    assert len(lines) <= MAX_LINES
    named = sum(line.startswith(("demo nvfp4", "demo/test_")) for line in lines)
    assert named == count or lines[-1] == f"... {count - named} more: mxq-report/index.html"


@pytest.mark.parametrize("width", [60, 100])
def test_a_long_prompt_is_wrapped_and_cut_and_a_command_is_whole(width: int) -> None:
    lines = shown(make_verdict(worst_prompt="x" * 10_000, cell=make_cell(case="long")), width=width)
    assert max(len(line) for line in lines if not line.startswith("  next")) <= width
    assert "            ..." in lines
    assert lines[-1].endswith("--mxq-formats=nvfp4")
