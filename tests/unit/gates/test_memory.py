"""What a memory verdict says, and which bounds its marker may state."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from pytest_mxq.errors import CaseFaultError, MxqError
from pytest_mxq.gates.base import CallLength
from pytest_mxq.gates.bounds import MarkerArguments
from pytest_mxq.gates.memory import MEMORY, MemoryBound, MemoryFacts, ShortCalls, decide_memory
from pytest_mxq.gates.outcome import Outcome

FACTS = MemoryFacts(peak_gib=12.0, reserved_gib=13.5, bf16_peak_gib=20.0, weight_ratio=0.53)
NO_BOUND = MemoryBound(max_ratio=None, max_gib=None, max_weight_ratio=None)


def read(emulated: bool = False, **named: Any) -> MemoryBound:
    return MEMORY.read_bound(
        MarkerArguments(marker=MEMORY.marker, positional=(), named=named, format_name="nvfp4", emulated=emulated)
    )


@pytest.mark.parametrize(
    ("bound", "outcome", "sentence"),
    [
        ({"max_ratio": 0.6}, Outcome.PASS, "peak 0.600 of BF16 <= 0.600 (12.00 of 20.00 GiB), reserved 13.50 GiB"),
        (
            {"max_ratio": 0.59},
            Outcome.REGRESSION,
            "peak 0.600 of BF16 > 0.590 (12.00 of 20.00 GiB), reserved 13.50 GiB",
        ),
        ({"max_gib": 12.0}, Outcome.PASS, "peak 12.000 GiB <= 12.000, reserved 13.50 GiB"),
        ({"max_gib": 11.9}, Outcome.REGRESSION, "peak 12.000 GiB > 11.900, reserved 13.50 GiB"),
        ({"max_weight_ratio": 0.53}, Outcome.PASS, "quantized weights 0.530 of BF16's <= 0.530, reserved 13.50 GiB"),
        (
            {"max_weight_ratio": 0.5},
            Outcome.REGRESSION,
            "quantized weights 0.530 of BF16's > 0.500, reserved 13.50 GiB",
        ),
        (
            {"max_ratio": 0.7, "max_gib": 11.0, "max_weight_ratio": 0.6},
            Outcome.REGRESSION,
            "peak 0.600 of BF16 <= 0.700 (12.00 of 20.00 GiB), peak 12.000 GiB > 11.000, "
            "quantized weights 0.530 of BF16's <= 0.600, reserved 13.50 GiB",
        ),
    ],
)
def test_every_bound_counts_and_is_told_with_what_was_measured(
    bound: dict[str, Any], outcome: Outcome, sentence: str
) -> None:
    assert decide_memory(FACTS, replace(NO_BOUND, **bound)) == (outcome, sentence)


def test_what_torch_held_beside_the_tensors_decides_nothing() -> None:
    outcome, _ = decide_memory(replace(FACTS, reserved_gib=500.0), replace(NO_BOUND, max_gib=12.0))
    assert outcome is Outcome.PASS


def test_bf16_is_needed_only_where_a_bound_compares_with_it() -> None:
    alone = replace(FACTS, bf16_peak_gib=None)
    assert alone.ratio is None
    assert decide_memory(alone, replace(NO_BOUND, max_gib=12.0))[0] is Outcome.PASS
    with pytest.raises(MxqError, match="BF16's peak memory was not measured"):
        decide_memory(alone, replace(NO_BOUND, max_ratio=0.7))


@pytest.mark.parametrize("peak", [0.0, -1.0, math.nan, math.inf])
def test_a_peak_that_is_none_is_an_error_and_no_pass(peak: float) -> None:
    with pytest.raises(MxqError, match=f"peak memory came out as {peak} GiB"):
        decide_memory(replace(FACTS, peak_gib=peak), replace(NO_BOUND, max_gib=12.0))


@pytest.mark.parametrize("name", ["max_ratio", "max_gib", "max_weight_ratio"])
def test_a_number_that_is_none_never_keeps_its_bound(name: str) -> None:
    broken = replace(FACTS, bf16_peak_gib=math.nan, weight_ratio=math.nan)
    stated: dict[str, Any] = {name: 0.9}
    outcome, _ = decide_memory(broken, replace(NO_BOUND, **stated))
    assert outcome is Outcome.REGRESSION


@pytest.mark.parametrize(("short", "said"), [(19.95, "in 2 steps ("), (19.8, "in full calls (")])
def test_the_length_of_the_calls_is_told_with_what_proves_it(short: float, said: str) -> None:
    facts = replace(FACTS, short_calls=ShortCalls(steps=2, short_gib=short, full_gib=20.0))
    _, sentence = decide_memory(facts, replace(NO_BOUND, max_ratio=0.7))
    assert said in sentence
    assert f"{short:.2f} GiB in 2 steps, 20.00 in all" in sentence


def test_calls_are_short_unless_the_marker_wants_full_ones() -> None:
    assert read(max_ratio=0.7).steps is CallLength.SHORT
    assert read(max_ratio=0.7, steps="full").steps is CallLength.FULL


def test_each_of_the_three_bounds_may_stand_alone() -> None:
    assert read(max_ratio=0.7) == replace(NO_BOUND, max_ratio=0.7)
    assert read(max_gib=24) == replace(NO_BOUND, max_gib=24.0)
    assert read(max_weight_ratio={"nvfp4": 0.3, "mxfp8": 0.6}) == replace(NO_BOUND, max_weight_ratio=0.3)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({}, "mxq_memory needs at least one of max_ratio, max_gib, max_weight_ratio"),
        ({"max": 0.7}, "mxq_memory has no argument 'max'; it takes max_ratio, max_gib, max_weight_ratio"),
        ({"max_ratio": 2.1}, r"mxq_memory\(max_ratio=\) must be above 0 and at most 2, got 2.1"),
        ({"max_gib": 0}, r"mxq_memory\(max_gib=\) must be above 0 and at most 10000, got 0"),
        ({"max_weight_ratio": 1.1}, r"mxq_memory\(max_weight_ratio=\) must be above 0 and at most 1, got 1.1"),
        ({"max_ratio": {"mxfp8": 0.7}}, "states no bound for format 'nvfp4'; it has 'mxfp8'"),
    ],
)
def test_a_marker_that_bounds_nothing_is_refused(named: dict[str, Any], said: str) -> None:
    with pytest.raises(CaseFaultError, match=said):
        read(**named)
