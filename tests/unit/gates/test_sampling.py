"""In which order the arms of paired rounds run, and when sampling ends."""

import math
import random
from collections import Counter

import pytest

from pytest_mxq.gates.sampling import Sampling, enough, round_orders
from pytest_mxq.gates.speed_statistics import TARGET_HALF_WIDTH, SamplesError, hodges_lehmann, target_half_width


@pytest.mark.parametrize("arms", [2, 3, 4])
@pytest.mark.parametrize("seed", range(4))
def test_every_second_round_is_the_one_before_backwards_and_more_go_on_where_fewer_ended(seed: int, arms: int) -> None:
    orders = round_orders(arms, 20, seed)
    assert all(one == tuple(reversed(another)) for one, another in zip(orders[::2], orders[1::2], strict=True))
    assert round_orders(arms, 6, seed) == orders[:6]


@pytest.mark.parametrize("arms", [2, 3, 4])
def test_each_arm_stands_in_each_place_equally_often(arms: int) -> None:
    orders = round_orders(arms, 2 * arms, seed=3)
    for place in zip(*orders, strict=True):
        assert set(Counter(place).values()) == {2 if arms > 2 else arms}


def test_the_first_order_is_generated() -> None:
    assert len({round_orders(3, 1, seed) for seed in range(40)}) == 6
    assert {round_orders(2, 1, seed)[0] for seed in range(20)} == {(0, 1), (1, 0)}


def rounds(n: int, spread: float) -> list[float]:
    """BF16 times whose ln is 0 and +-spread in turn."""
    return [2.0 * math.exp(spread * (index % 3 - 1)) for index in range(n)]


def test_sampling_ends_on_the_width() -> None:
    assert enough(rounds(6, 0.005), [1.0] * 6, Sampling(alpha=0.05), elapsed_seconds=0.0)
    assert not enough(rounds(6, 0.03), [1.0] * 6, Sampling(alpha=0.05), elapsed_seconds=0.0)


def test_sampling_ends_at_twenty_rounds_or_after_300_seconds_however_wide_the_interval() -> None:
    assert not enough(rounds(18, 0.5), [1.0] * 18, Sampling(alpha=0.05), elapsed_seconds=299.0)
    assert enough(rounds(18, 0.5), [1.0] * 18, Sampling(alpha=0.05), elapsed_seconds=300.0)
    assert enough(rounds(20, 0.5), [1.0] * 20, Sampling(alpha=0.05), elapsed_seconds=0.0)


def test_the_limits_of_rounds_and_seconds_can_be_set() -> None:
    assert enough(rounds(8, 0.5), [1.0] * 8, Sampling(alpha=0.05, max_rounds=8), elapsed_seconds=0.0)
    assert not enough(rounds(8, 0.5), [1.0] * 8, Sampling(alpha=0.05, max_rounds=10), elapsed_seconds=0.0)
    assert enough(rounds(8, 0.5), [1.0] * 8, Sampling(alpha=0.05, max_seconds=30.0), elapsed_seconds=30.0)


def test_sampling_never_ends_before_there_is_an_interval() -> None:
    assert not enough([2.0] * 4, [1.0] * 4, Sampling(alpha=0.05), elapsed_seconds=1e6)
    assert not enough([2.0] * 6, [1.0] * 6, Sampling(alpha=0.01), elapsed_seconds=1e6)


def test_sampling_does_not_look_at_the_speedup() -> None:
    rng = random.Random(1)
    for _ in range(50):
        bf16, quantized = ([rng.lognormvariate(0, 0.01) for _ in range(8)] for _ in range(2))
        stops = {
            enough(bf16, [factor * q for q in quantized], Sampling(alpha=0.05), elapsed_seconds=0.0)
            for factor in (0.5, 0.9, 3)
        }
        assert len(stops) == 1


def test_a_smaller_alpha_takes_more_rounds_for_the_interval_that_it_can_pass_with() -> None:
    bf16 = [2.0 * math.exp(0.008 * (-1) ** index) for index in range(10)]
    width = hodges_lehmann([math.log(b) for b in bf16], alpha=0.01).half_width
    assert target_half_width(0.01) < width < TARGET_HALF_WIDTH
    assert not enough(bf16, [1.0] * 10, Sampling(alpha=0.01), elapsed_seconds=0.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_time_is_refused_with_its_place(bad: float) -> None:
    with pytest.raises(SamplesError, match=rf"time 7 of .* is {bad} s"):
        enough([1.0] * 7 + [bad], [1.0] * 8, Sampling(alpha=0.05), elapsed_seconds=0.0)


@pytest.mark.parametrize("alpha", [0.0, -0.05, 0.5, 1.0, 1e-7, math.nan])
def test_an_alpha_without_an_interval_is_refused(alpha: float) -> None:
    with pytest.raises(SamplesError, match="alpha is"):
        enough([1.0] * 20, [1.0] * 20, Sampling(alpha=alpha), elapsed_seconds=0.0)
