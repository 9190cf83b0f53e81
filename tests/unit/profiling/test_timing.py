"""Warm-up, rounds and sessions on a fake clock, and torch.compile's real counters and profiles."""

import gc
import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from pytest_mxq.gates.sampling import Sampling, enough
from pytest_mxq.gates.speed_statistics import MAX_ROUNDS, MAX_SECONDS, SamplesError
from pytest_mxq.profiling.compilation import count_compilations
from pytest_mxq.profiling.timing import (
    MAX_WARM_UP,
    Clock,
    Run,
    TimedRounds,
    TimingError,
    cpu_clock,
    cuda_clock,
    time_rounds,
    time_session,
    warm_up,
)

BF16_FIRST, QUANTIZED_FIRST = (0, 1), (1, 0)


class FakeDevice:
    """A clock that moves when a workload has run and was waited for, and a log of what happened."""

    def __init__(self) -> None:
        self.time = 100.0
        self.pending = 0.0
        self.log: list[str] = []
        self.clock = Clock(now=self.now, synchronize=self.synchronize)

    def now(self) -> float:
        self.log.append("now")
        return self.time

    def synchronize(self) -> None:
        self.log.append("synchronize")
        self.time += self.pending
        self.pending = 0.0

    def workload(self, name: str, seconds: Sequence[float]) -> Run:
        source = itertools.cycle(seconds)

        def run() -> None:
            self.log.append(name)
            self.pending += next(source)

        return run


def fine() -> None:
    """Find nothing wrong with a round."""


def reasons(*texts: str | None) -> Callable[[], str | None]:
    """Return each text once, then None for every later round."""
    source = iter(texts)
    return lambda: next(source, None)


def pairs(
    device: FakeDevice,
    *,
    inspect: Callable[[], str | None] = fine,
    noise: float = 0.0,
    seed: int = 0,
    quantized: float = 1.0,
) -> TimedRounds:
    bf16 = device.workload("bf16", [2.0, 2.0 * (1 + noise), 2.0 * (1 - noise)])
    other = device.workload("quantized", [quantized])
    return time_rounds([bf16, other], device.clock, sampling=Sampling(alpha=0.05), seed=seed, inspect=inspect)


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_the_device_is_waited_for_on_both_sides_of_the_clock() -> None:
    device = FakeDevice()
    session = time_session(device.workload("run", [1.5]), device.clock, inspect=fine, rounds=1)
    assert session.seconds == (1.5,)
    assert device.log == ["synchronize", "now", "run", "synchronize", "now"]


def test_the_device_clocks_tell_the_same_time_and_only_cuda_waits() -> None:
    assert cuda_clock().synchronize is torch.cuda.synchronize
    assert cpu_clock().now is cuda_clock().now
    started = cpu_clock().now()
    cpu_clock().synchronize()
    assert cpu_clock().now() > started


@pytest.mark.parametrize("seconds", [math.nan, 0.0, -1.0, math.inf])
def test_a_broken_clock_is_an_error(seconds: float) -> None:
    device = FakeDevice()
    with pytest.raises(TimingError, match=f"took {seconds} s by the clock"):
        time_session(device.workload("run", [seconds]), device.clock, inspect=fine)
    with pytest.raises(TimingError):
        warm_up(device.workload("run", [seconds]), device.clock)
    with pytest.raises(TimingError):
        pairs(device, quantized=seconds)


@pytest.fixture
def _thawed() -> Iterator[None]:
    """What the suite's conftest froze is thawed for one test."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.mark.usefixtures("_thawed")
@pytest.mark.parametrize("frozen_before", [False, True])
def test_the_collector_is_off_in_the_timed_region_and_restored_after_it(frozen_before: bool) -> None:
    device, seen = FakeDevice(), []
    if frozen_before:
        gc.freeze()

    def run() -> None:
        seen.append((gc.isenabled(), gc.get_freeze_count() > 0))
        device.pending += 1.0

    time_session(run, device.clock, inspect=fine, rounds=2)
    assert seen == [(False, True)] * 2
    assert (gc.isenabled(), gc.get_freeze_count() > 0) == (True, frozen_before)


def test_the_collector_is_restored_after_a_workload_that_raises_and_stays_off_if_it_was() -> None:
    def run() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        warm_up(run, FakeDevice().clock)
    assert gc.isenabled()
    gc.disable()
    try:
        time_session(FakeDevice().workload("run", [1.0]), cpu_clock(), inspect=fine, rounds=1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_a_call_returned_is_gone_before_the_next_even_in_a_cycle() -> None:
    class StoredOutput:
        def __init__(self) -> None:
            self.me = self

    device, results, alive = FakeDevice(), list[weakref.ref[StoredOutput]](), list[int]()

    def run() -> StoredOutput:
        alive.append(sum(reference() is not None for reference in results))
        image = StoredOutput()
        results.append(weakref.ref(image))
        device.pending += 1.0
        return image

    time_session(run, device.clock, inspect=fine, rounds=3)
    assert alive == [0, 0, 0]


@pytest.mark.parametrize(
    ("seconds", "calls", "settled"),
    [
        ([1.0], 2, True),
        ([9.0, 1.0, 1.01], 3, True),
        ([1.0, 1.019], 2, True),
        ([1.0, 1.03], MAX_WARM_UP, True),
        ([9.0, 1.0, 1.1, 1.2, 1.1, 1.2], MAX_WARM_UP, True),
        ([6.0, 5.0, 4.0, 3.0, 2.0, 1.99], 6, True),
        ([1.0, 1.1, 1.2, 1.3, 1.4, 1.5], MAX_WARM_UP, False),
        ([1.0, 9.0, 8.0, 7.0, 6.0, 5.0], MAX_WARM_UP, False),
    ],
)
def test_warm_up_ends_when_two_calls_agree_or_after_six(seconds: list[float], calls: int, settled: bool) -> None:
    device = FakeDevice()
    warm = warm_up(device.workload("run", seconds), device.clock)
    assert (len(warm.seconds), warm.settled, warm.graphs) == (calls, settled, 0)
    assert warm.seconds == pytest.approx((seconds * 3)[:calls])


@pytest.mark.parametrize("seconds", [[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], [9.0, 1.0]])
def test_a_warm_up_for_memory_does_not_wait_for_steady_times(seconds: list[float]) -> None:
    device = FakeDevice()
    warm = warm_up(device.workload("run", seconds), device.clock, steady=False)
    assert (len(warm.seconds), warm.settled) == (2, True)


@pytest.mark.parametrize("steady", [True, False])
@pytest.mark.usefixtures("_fresh_dynamo")
def test_warm_up_goes_on_while_something_is_compiled(steady: bool) -> None:
    device, compiled = FakeDevice(), torch.compile(torch.neg, backend="eager", dynamic=False)
    sizes = iter([1, 2, 3, 3, 3, 3])

    def run() -> Tensor:
        device.pending += 1.0
        return compiled(torch.zeros(next(sizes)))

    warm = warm_up(run, device.clock, steady=steady)
    assert (len(warm.seconds), warm.graphs, warm.settled) == (4, 3, True)


@pytest.mark.parametrize("seed", range(4))
def test_rounds_alternate_from_the_seeded_start_and_stop_on_the_width(seed: int) -> None:
    device = FakeDevice()
    samples = pairs(device, seed=seed)
    orders = [round_.order for round_ in samples.rounds]
    assert orders in ([BF16_FIRST, QUANTIZED_FIRST] * 3, [QUANTIZED_FIRST, BF16_FIRST] * 3)
    assert (samples.start_seed, samples.voided_share, samples.disturbed) == (seed, 0.0, False)
    assert samples.bf16 == pytest.approx([2.0] * 6)
    assert samples.of(1) == pytest.approx([1.0] * 6)
    assert samples.elapsed_seconds == pytest.approx(18.0)
    ran = [entry for entry in device.log if entry in ("bf16", "quantized")]
    assert ran == [("bf16", "quantized")[arm] for order in orders for arm in order]


def test_every_quantized_arm_is_timed_against_the_same_bf16_until_all_are_sure() -> None:
    device = FakeDevice()
    steady, noisy = device.workload("steady", [1.0]), device.workload("noisy", [1.5, 1.6, 1.4])
    runs = [device.workload("bf16", [2.0]), steady, noisy]
    samples = time_rounds(runs, device.clock, sampling=Sampling(alpha=0.05), seed=0, inspect=fine)
    assert len(samples.rounds) == MAX_ROUNDS
    assert samples.bf16 == pytest.approx([2.0] * MAX_ROUNDS)
    assert samples.of(1) == pytest.approx([1.0] * MAX_ROUNDS)
    assert samples.of(2)[:3] == pytest.approx([1.5, 1.6, 1.4])
    assert device.log.count("bf16") == MAX_ROUNDS


def test_both_starts_are_generated() -> None:
    assert {pairs(FakeDevice(), seed=seed).rounds[0].order for seed in range(8)} == {BF16_FIRST, QUANTIZED_FIRST}


def test_rounds_that_agree_after_seven_still_end_with_a_whole_block() -> None:
    seconds = [2.01, 2.08, 2.03, 2.03, 2.02, 2.01, 2.02, 2.0]
    assert [n for n in (6, 7, 8) if enough(seconds[:n], [1.0] * n, Sampling(alpha=0.05), elapsed_seconds=0.0)] == [7, 8]
    device = FakeDevice()
    bf16, quantized = device.workload("bf16", seconds), device.workload("quantized", [1.0])
    samples = time_rounds([bf16, quantized], device.clock, sampling=Sampling(alpha=0.05), seed=0, inspect=fine)
    assert len(samples.rounds) == 8


def test_noisy_rounds_end_at_the_limit_and_are_even() -> None:
    assert len(pairs(FakeDevice(), noise=0.2).rounds) == MAX_ROUNDS


def test_noisy_rounds_end_when_the_time_is_up() -> None:
    device = FakeDevice()
    slow = device.workload("bf16", [50.0, 70.0, 30.0])
    samples = time_rounds(
        [slow, device.workload("quantized", [20.0])], device.clock, sampling=Sampling(alpha=0.05), seed=0, inspect=fine
    )
    assert len(samples.rounds) == 6
    assert samples.elapsed_seconds > MAX_SECONDS


def test_a_voided_round_does_not_count_and_is_repeated_in_its_order() -> None:
    samples = pairs(FakeDevice(), inspect=reasons(None, "hot"))
    assert [round_.voided for round_ in samples.rounds] == [None, "hot", None, None, None, None, None]
    assert samples.voided == ("hot",)
    assert (len(samples.bf16), len(samples.of(1))) == (6, 6)
    assert samples.rounds[1].order == samples.rounds[2].order
    counting = [round_.order for round_ in samples.rounds if not round_.voided]
    assert all(one != another for one, another in itertools.pairwise(counting))


def test_two_voided_rounds_of_eight_are_borne() -> None:
    samples = pairs(FakeDevice(), inspect=reasons(None, None, None, "hot", None, None, "hot"))
    assert (samples.voided_share, samples.disturbed, len(samples.bf16)) == (0.25, False, 6)


def test_more_than_a_quarter_voided_ends_it() -> None:
    samples = pairs(FakeDevice(), inspect=reasons(None, "hot", None, "hot", None, None, "hot"))
    assert (len(samples.rounds), len(samples.bf16), samples.disturbed) == (7, 4, True)


def test_if_every_round_is_voided_the_third_ends_it() -> None:
    samples = pairs(FakeDevice(), inspect=lambda: "hot")
    assert (len(samples.rounds), samples.bf16, samples.voided_share) == (3, (), 1.0)


def test_more_than_a_quarter_voided_late_ends_it_too() -> None:
    samples = pairs(FakeDevice(), inspect=reasons(*[None] * 10, *["hot"] * 4), noise=0.2)
    assert (len(samples.bf16), len(samples.voided), samples.disturbed) == (10, 4, True)


def test_an_alpha_without_interval_is_refused_before_anything_runs() -> None:
    device = FakeDevice()
    run = device.workload("run", [1.0])
    with pytest.raises(SamplesError, match=r"alpha is 0\.7"):
        time_rounds([run, run], device.clock, sampling=Sampling(alpha=0.7), seed=0, inspect=fine)
    assert "run" not in device.log


def test_inspection_is_off_the_clock_and_once_a_round() -> None:
    device = FakeDevice()

    def inspect() -> None:
        device.log.append("inspect")
        device.time += 1000.0

    samples = pairs(device, inspect=inspect)
    assert device.log.count("inspect") == len(samples.rounds) == 6
    assert samples.bf16 == pytest.approx([2.0] * 6)
    assert samples.of(1) == pytest.approx([1.0] * 6)


@pytest.mark.usefixtures("_fresh_dynamo")
def test_a_recompile_in_a_round_voids_it() -> None:
    device, compiled = FakeDevice(), torch.compile(torch.neg, backend="eager", dynamic=False)
    compiled(torch.zeros(1))
    sizes = itertools.chain([1, 1, 2], itertools.repeat(1))

    def bf16() -> Tensor:
        device.pending += 2.0
        return compiled(torch.zeros(next(sizes)))

    samples = time_rounds(
        [bf16, device.workload("q", [1.0])],
        device.clock,
        sampling=Sampling(alpha=0.05),
        seed=0,
        inspect=reasons(None, None, "hot"),
    )
    assert samples.voided == ("torch.compile compiled 1 graphs and gave up 0 frames; hot",)
    assert samples.rounds[2].voided


@pytest.mark.usefixtures("_fresh_dynamo")
def test_a_fall_back_to_eager_at_the_recompile_limit_voids_the_round() -> None:
    device, compiled = FakeDevice(), torch.compile(torch.neg, backend="eager", dynamic=False)
    sizes = itertools.chain([1, 2, 3], itertools.repeat(3))

    def run() -> Tensor:
        device.pending += 1.0
        return compiled(torch.zeros(next(sizes)))

    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=False):
        run(), run()
        before = count_compilations()
        session = time_session(run, device.clock, inspect=fine)
    assert session.voided == ("torch.compile compiled 0 graphs and gave up 1 frames",)
    assert count_compilations().failures == before.failures + 1


def test_a_session_takes_eight_rounds_that_count() -> None:
    device = FakeDevice()
    session = time_session(device.workload("run", [1.0]), device.clock, inspect=reasons("hot", None, "hot"))
    assert session.seconds == pytest.approx([1.0] * 8)
    assert session.voided == ("hot", "hot")
    assert (session.voided_share, session.disturbed) == (0.2, False)


def test_a_session_with_more_than_a_quarter_voided_ends() -> None:
    device = FakeDevice()
    session = time_session(device.workload("run", [1.0]), device.clock, inspect=reasons(None, "hot", "hot", "hot"))
    assert (len(session.seconds), len(session.voided), session.disturbed) == (1, 3, True)
