"""Bounds to paste: what accepts a failed cell, and what a history says of a bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
from page_examples import cell, judged, measured, timed, unjudged

from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.memory import MemoryBound, MemoryFacts
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.history import CellRun, Point
from pytest_mxq.reports.proposals import accepting, history_hint, rounded_bound

RED = judged([0.2, 0.5], Bound(mean=0.13, worst=0.45))
GREEN = judged([0.1, 0.1], Bound(mean=0.5, worst=None))


def points(*values: float, bound: float = 0.5, outcome: Outcome = Outcome.PASS) -> list[Point]:
    run = CellRun(model="m", case="c", format="nvfp4", gate="lpips", emulated=False, outcome=outcome, bound=bound)
    return [Point(created="2026", commit=None, cell=replace(run, observed=value)) for value in values]


@pytest.mark.parametrize("value", [0.00041, 0.0041, 0.26, 0.999, 4.0, 38.66, 123.4, 1e-9])
def test_a_proposed_bound_is_kept_with_a_margin_in_both_directions(value: float) -> None:
    assert value < rounded_bound(value, higher_is_better=False) < value * 1.25
    assert value * 0.95 < rounded_bound(value, higher_is_better=True) < value


def test_both_bounds_of_a_regression_are_accepted_with_what_they_replace() -> None:
    found = accepting(RED)
    assert found is not None
    assert found.kind == "bounds"
    assert found.text.splitlines() == [
        "# tests/gates/test_flux.py::test_flux",
        'mxq_lpips(max={"nvfp4": 0.39})  # was 0.1300, seen 0.3500',
        'mxq_lpips(worst={"nvfp4": 0.55})  # was 0.4500, seen 0.5000',
    ]


def test_a_bound_that_holds_is_not_touched_and_emulated_numerics_have_a_key_of_their_own() -> None:
    found = accepting(replace(judged([0.2, 0.2], Bound(mean=0.13, worst=0.45)), emulated=True))
    assert found is not None
    assert found.text.count("mxq_lpips") == 1
    assert '{"nvfp4-emulated": 0.22}' in found.text


def test_a_speedup_is_accepted_by_the_lower_end_of_its_interval() -> None:
    verdict = timed(factor=1.31, bound=1.40)
    assert verdict.speed is not None
    found = accepting(verdict)
    assert found is not None
    assert f'mxq_speedup(min={{"nvfp4": {rounded_bound(verdict.speed.lower, higher_is_better=True):g}}})' in found.text


def test_a_peak_is_accepted_by_its_ratio() -> None:
    found = accepting(measured(peak=24.8, bound=0.60))
    assert found is not None
    assert 'mxq_memory(max_ratio={"nvfp4": 0.88})' in found.text


def test_each_bound_of_memory_that_does_not_hold_is_proposed_in_its_own_unit() -> None:
    facts = MemoryFacts(peak_gib=12.0, reserved_gib=13.0, bf16_peak_gib=20.0, weight_ratio=0.5)
    memory = facts.against(MemoryBound(max_ratio=0.1, max_gib=1.0, max_weight_ratio=0.6))
    found = accepting(replace(measured(peak=24.8, bound=0.60), memory=memory))
    assert found is not None
    assert found.text.splitlines()[1:] == [
        'mxq_memory(max_ratio={"nvfp4": 0.66})  # was 0.100, seen 0.600',
        'mxq_memory(max_gib={"nvfp4": 14})  # was 1.000 GiB, seen 12.000 GiB',
    ]


@pytest.mark.parametrize("outcome", [Outcome.STALE, Outcome.MISSING])
def test_a_stale_or_missing_baseline_is_accepted_by_its_refresh(outcome: Outcome) -> None:
    found = accepting(unjudged(outcome, "torch 2.10 -> 2.11"))
    assert found is not None
    assert (found.kind, found.text) == ("refresh", "tests/gates/test_flux.py::test_flux[bf16-refresh]")


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.ERROR, Outcome.NOT_QUANTIZED, Outcome.DEGENERATE])
def test_nothing_accepts_what_no_bound_is_about(outcome: Outcome) -> None:
    assert accepting(replace(RED, outcome=outcome)) is None


def test_a_bound_far_above_all_runs_is_called_loose() -> None:
    hint = history_hint(points(*[0.04] * 12), GREEN)
    assert hint is not None
    assert hint.sentence == "bound 0.5000, 12 runs at most 0.0400"
    assert '{"nvfp4": 0.044}' in hint.line


def test_a_bound_that_was_out_of_reach_three_times_is_said_with_one_that_holds() -> None:
    hint = history_hint(points(0.6, 0.7, 0.65, outcome=Outcome.REGRESSION), GREEN)
    assert hint is not None
    assert hint.sentence == "bound 0.5000, red for 3 runs, at most 0.7000"
    assert '{"nvfp4": 0.77}' in hint.line


@pytest.mark.parametrize(
    "history",
    [
        points(*[0.04] * 9),  # too few
        points(*[0.4] * 12),  # near the bound
        points(*[0.04] * 12, bound=0.6),  # of another bound
        points(*[0.04] * 12, outcome=Outcome.STALE),  # the baseline was at fault
        points(0.6, 0.7, outcome=Outcome.REGRESSION),
        [],
    ],
)
def test_a_history_that_says_nothing_of_the_bound_gives_no_hint(history: list[Point]) -> None:
    assert history_hint(history, GREEN) is None


def test_a_cell_without_a_bound_has_no_hint() -> None:
    assert history_hint(points(*[0.04] * 12), unjudged(Outcome.ERROR, "broken", where=cell())) is None
