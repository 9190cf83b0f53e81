"""Where the marks of the page's charts stand."""

from __future__ import annotations

from math import inf, nan

import pytest
from page_examples import measured, timed

from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.psnr import PSNR
from pytest_mxq.gates.scores import summarize
from pytest_mxq.reports.charts import Axis, history_chart, memory_bars, rounds_chart, score_strip, speed_interval


def test_a_strip_has_the_worst_first_and_each_value_by_its_output() -> None:
    scores = summarize([0.1, 0.4, 0.2], higher_is_better=False)
    chart = score_strip(scores, LPIPS.scale, ["a", "b", "c"], [("bound", "bound", 0.15), ("worst", "worst", 0.3)])
    assert [dot.index for dot in chart.dots] == [1, 2, 0]
    assert [dot.kind for dot in chart.dots] == ["bad", "over", "good"]
    assert [dot.x for dot in chart.dots] == sorted(dot.x for dot in chart.dots)
    assert chart.dots[0].y < chart.dots[1].y < chart.dots[2].y  # from the top
    assert [line.kind for line in chart.lines] == ["bound", "worst", "mean"]
    assert chart.dots[0].label.endswith("b")


def test_one_chaotic_prompt_and_a_shift_of_all_look_different() -> None:
    bounds = [("bound", "bound", 0.1)]
    chaotic = score_strip(summarize([0.05, 0.05, 0.6], higher_is_better=False), LPIPS.scale, "abc", bounds)
    shifted = score_strip(summarize([0.23, 0.24, 0.23], higher_is_better=False), LPIPS.scale, "abc", bounds)
    assert [dot.kind for dot in chaotic.dots] == ["over", "good", "good"]
    assert [dot.kind for dot in shifted.dots] == ["over", "over", "over"]


def test_higher_is_better_turns_the_order_and_the_bounds() -> None:
    scores = summarize([30.0, 20.0, 40.0], higher_is_better=True)
    chart = score_strip(scores, PSNR.scale, ["a", "b", "c"], [("bound", "bound", 25.0)])
    assert [dot.index for dot in chart.dots] == [1, 0, 2]
    assert [dot.kind for dot in chart.dots] == ["over", "good", "good"]


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_a_number_that_is_not_finite_stands_at_the_edge(value: float) -> None:
    chart = score_strip(summarize([value, 0.1], higher_is_better=False), LPIPS.scale, ["a", "b"], [])
    assert all(0 <= dot.y <= 100 for dot in chart.dots)
    assert {
        dot.kind
        for dot in score_strip(
            summarize([value, 0.1], higher_is_better=False), LPIPS.scale, "ab", [("bound", "bound", 0.2)]
        ).dots
    } == {"over", "good"}


def test_of_a_video_each_has_one_dot_of_its_worst_frame() -> None:
    scores = summarize([0.1, 0.3, 0.2, 0.25], higher_is_better=False, frames=2)
    chart = score_strip(scores, LPIPS.scale, ["a", "b"], [])
    assert [dot.index for dot in chart.dots] == [0, 1]
    assert chart.dots[0].label.startswith("0.3000")


def test_equal_values_have_an_axis() -> None:
    axis = Axis.over([2.0, 2.0], from_zero=False)
    assert axis.low < 2.0 < axis.high


def test_rounds_show_every_round_of_both_arms() -> None:
    speed = timed().speed
    assert speed is not None
    chart = rounds_chart(speed)
    assert [sum(dot.kind == kind for dot in chart.dots) for kind in ("bf16", "quantized")] == [24, 24]
    assert chart.lines[0].y < chart.lines[1].y


def test_an_interval_lies_left_of_a_bound_that_it_does_not_reach() -> None:
    speed = timed(factor=1.31).speed
    assert speed is not None
    found = speed_interval(speed, 1.40)
    assert found.lower < found.middle < found.upper < found.bound


def test_the_longest_bar_is_whole_and_weights_are_a_part_of_each() -> None:
    memory = measured(peak=15.5).memory
    assert memory is not None
    bf16, quantized = memory_bars(memory, weights_gib=6.2, bf16_weights_gib=22.0)
    assert (bf16.length, quantized.length) == (100.0, 50.0)
    assert [bf16.shaded, quantized.shaded] == pytest.approx([71.0, 20.0])


def test_a_history_is_red_where_a_run_failed() -> None:
    chart = history_chart([(0.1, 0.2, True, "a"), (0.3, 0.2, False, "b")], LPIPS.scale)
    assert [dot.kind for dot in chart.dots] == ["good", "bad"]
    assert [line.label for line in chart.lines] == ["bound 0.2000"]


def test_each_run_of_a_history_stands_against_the_bound_of_its_time() -> None:
    bounds = [0.4, 0.4, 0.2, 0.2]
    chart = history_chart([(0.1, bound, True, "") for bound in bounds], LPIPS.scale)
    level = [(line.left, line.right, line.y) for line in chart.lines if line.end is None]
    assert [(left, right) for left, right, _ in level] == [(0.0, 50.0), (50.0, 100.0)]
    [step] = [line for line in chart.lines if line.end is not None]
    assert (step.left, step.y, step.end) == (50.0, level[0][2], level[1][2])
    assert [line.label for line in chart.lines if line.label] == ["bound 0.2000 (before: 0.4000)"]


def test_runs_without_a_bound_interrupt_its_line() -> None:
    chart = history_chart([(0.1, bound, True, "") for bound in (0.4, None, 0.4, 0.4)], LPIPS.scale)
    assert [(line.left, line.right) for line in chart.lines] == [(0.0, 25.0), (50.0, 100.0)]
