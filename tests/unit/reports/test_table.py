from pathlib import Path
from typing import Any

import pytest
from report_examples import make_cell, make_verdict

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import ReferenceNote, Verdict
from pytest_mxq.reports.table import MAX_DETAILS, Layout, table_lines


def shown(*verdicts: Verdict, width: int = 100, **layout: Any) -> list[str]:
    fields = {"has_skips": False, "report": Path("mxq-report"), **layout}
    return [line for line, _ in table_lines(verdicts, Layout(width=width, **fields))]


def without_numbers(outcome: Outcome, number: int = 0, sentence: str = "why") -> Verdict:
    return make_verdict(outcome, number, scores=None, observed=None, sentence=sentence)


BUILT_IN = [
    make_verdict(outcome, cell=make_cell(gate=gate, format="nvfp4", case="test_qwen_image[b4-wide]"), emulated=True)
    for outcome in (Outcome.PASS, Outcome.KNOWN_REGRESSION, Outcome.NOT_QUANTIZED)
    for gate in ("lpips", "speedup")
]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_rows_and_reasons_stay_within_the_width(width: int) -> None:
    long = [without_numbers(Outcome.STALE, sentence="the baseline is of other hardware or software: " * 5)]
    lines = shown(*BUILT_IN, *long, width=width)
    assert max(len(line) for line in lines if not line.startswith("    next")) <= width  # a command is never broken


@pytest.mark.parametrize("width", [10, 60, 100])
def test_a_number_is_never_cut(width: int) -> None:
    text = "\n".join(shown(make_verdict(observed=0.123456, worst_bound=0.04), width=width))
    assert {"0.1235", "0.0200", "0.0400", "0.0600"} <= set(text.replace(",", " ").split())


def test_a_case_has_its_name_and_its_reference_above_its_rows() -> None:
    live = ReferenceNote(mode="live", reason="no stored baseline")
    one, two = make_verdict(), make_verdict(number=1, reference=live)
    lines = shown(one, two, one)
    titles = [line for line in lines if not line.startswith(" ")]
    assert titles == ["demo/test_0: reference stored", "demo/test_1: reference live: no stored baseline"]
    assert [line.startswith(" ") for line in lines] == [True, False, True, True, False, True]


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if not outcome.is_good])
def test_every_row_that_is_not_a_pass_carries_its_reason(outcome: Outcome) -> None:
    assert "    because" in shown(without_numbers(outcome, sentence="because"))


def test_numbers_beside_their_bound_are_reason_enough() -> None:
    assert len(shown(make_verdict())) == 3


def test_one_reason_of_rows_that_follow_each_other_is_said_once() -> None:
    cells = [make_cell(gate=gate) for gate in ("lpips", "ssim", "psnr")]
    stale = [make_verdict(Outcome.STALE, cell=cell, sentence="of then") for cell in cells]
    assert shown(*stale).count("    of then") == 1


def test_what_could_not_be_judged_says_what_is_next_once_for_one_command() -> None:
    stale = [without_numbers(Outcome.STALE, sentence="of then") for _ in range(2)]
    assert shown(*stale)[-2:] == ["    of then", f"    next     {stale[0].next_command}"]


def test_the_next_command_of_what_got_worse_is_left_to_the_section_of_regressions() -> None:
    assert not [line for line in shown(make_verdict()) if "next" in line]


def test_reasons_take_at_most_forty_lines_and_the_rest_is_counted() -> None:
    lines = shown(*(without_numbers(Outcome.DEGENERATE, number, f"reason {number}") for number in range(200)))
    assert sum(line.startswith("    ") for line in lines) == MAX_DETAILS
    assert lines[-1] == "  ... 160 more lines of reasons: mxq-report/report.json"
