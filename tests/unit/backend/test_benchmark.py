"""Time and memory of the demo's arms on a fake clock: first calls, sessions, peaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from gate_bench import generate, one_thread
from timed_demo import (
    BF16_BLOCK,
    MXFP8,
    ONE_STEP,
    QUANTIZED_BLOCK,
    FakeTime,
    charge_blocks,
    demo_case,
    make_benchmark,
)

from pytest_mxq.backend.benchmark import TorchBenchmark
from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.gates.extrapolation import Extrapolation
from pytest_mxq.gates.machine_drift import MachineDrift
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.sampling import Sampling
from pytest_mxq.gates.speedup import estimate
from pytest_mxq.pipelines.compile import repeated_blocks
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.case import Case
from pytest_mxq.profiling.compilation import count_compilations
from pytest_mxq.profiling.memory import Peak

if TYPE_CHECKING:
    import torch

    from pytest_mxq.models import Recipe


@pytest.fixture(scope="module")
def shared() -> Iterator[TorchBackend]:
    with one_thread() as backend:
        yield backend


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch, shared: TorchBackend) -> FakeTime:
    return charge_blocks(shared, monkeypatch)


def test_first_calls_are_the_process_s_and_not_those_of_a_later_gate(shared: TorchBackend, time: FakeTime) -> None:
    benchmark = make_benchmark(shared, time)
    case = demo_case()
    first, again = (
        benchmark.time_live(case, generate, [MXFP8], sampling=Sampling(alpha=0.05), seed=0)["mxfp8"] for _ in range(2)
    )
    assert again.first_call == first.first_call


def test_the_formats_of_one_session_share_the_rounds_of_bf16(shared: TorchBackend, time: FakeTime) -> None:
    another = replace(MXFP8, name="another")
    formats = [MXFP8, another]
    benchmark, case = make_benchmark(shared, time), demo_case()
    before = shared.arms.builds.copy()
    timed = benchmark.time_live(case, generate, formats, sampling=Sampling(alpha=0.05), seed=0)
    one, other = timed["mxfp8"], timed["another"]
    assert one.bf16 == other.bf16
    assert len(one.bf16) == len(one.quantized) == len(other.quantized) >= 6
    for samples in (one, other):
        assert estimate(samples, alpha=0.05).speedup == pytest.approx(BF16_BLOCK / QUANTIZED_BLOCK, rel=0.01)
    for number_format in formats:
        benchmark.evidence(case, number_format, formats)
        assert benchmark.run_evidence(case, number_format).run is not None
    assert shared.arms.builds - before == {("demo", "bf16"): 1, ("demo", "bf16-compiled"): 1} | {
        ("demo", kind.name): 1 for kind in formats
    }
    benchmark.evidence(case, MXFP8)
    benchmark.evidence(case, another, formats)
    assert shared.arms.builds["demo", "another"] == before["demo", "another"] + 2  # freed by the arm that came alone


def test_whole_calls_are_extrapolated_from_two_lengths(shared: TorchBackend, time: FakeTime) -> None:
    benchmark, case = make_benchmark(shared, time), demo_case(THREE_STEPS)
    sampling = Sampling(alpha=0.05, lengths=(1, 2), model_error=0.01)
    samples = benchmark.time_live(case, generate, [MXFP8], sampling=sampling, seed=0)["mxfp8"]
    blocks = len(repeated_blocks(shared.arms.base(case.source).pipe.transformer))
    assert median(samples.bf16) == pytest.approx(3 * blocks * BF16_BLOCK, rel=0.01)
    assert median(samples.quantized) == pytest.approx(3 * blocks * QUANTIZED_BLOCK, rel=0.01)
    assert samples.extrapolation == Extrapolation(lengths=(1, 2), steps=3, model_error=0.01)
    found = estimate(samples, alpha=0.05)
    assert found.half_width > estimate(replace(samples, extrapolation=None), alpha=0.05).half_width


def test_a_workload_that_takes_its_own_steps_is_not_extrapolated(shared: TorchBackend, time: FakeTime) -> None:
    def own_steps(pipe: Any, prompt: Any) -> object:
        return pipe(prompt, sigmas=[1.0, 0.7, 0.3])

    benchmark, case = make_benchmark(shared, time), demo_case(THREE_STEPS)
    for workload, lengths in ((own_steps, (1, 2)), (generate, (1, 3))):  # the latter is the whole call
        sampling = Sampling(alpha=0.05, lengths=lengths)
        with pytest.raises(Stop, match="cannot be extrapolated") as caught:
            benchmark.time_live(case, workload, [MXFP8], sampling=sampling, seed=0)
        assert caught.value.outcome is Outcome.ERROR


def test_memory_cannot_be_measured_on_a_cpu_and_says_so(shared: TorchBackend, time: FakeTime) -> None:
    benchmark = make_benchmark(shared, time)
    case = demo_case()
    with pytest.raises(Exception, match="CUDA"):
        benchmark.measure_memory(case, generate, MXFP8)


def test_what_was_compiled_for_images_is_not_run_for_time(shared: TorchBackend, time: FakeTime) -> None:
    case = demo_case()
    shared.generate(case, generate, ArmSpec.bf16_otherwise(case), label="bf16 otherwise", chunks=(0,))
    benchmark = make_benchmark(shared, time)
    before = count_compilations().graphs
    timed = benchmark.time_bf16(case, generate)
    assert count_compilations().graphs > before
    assert len(timed.seconds) == 8


def test_one_session_of_the_quantized_arm_is_held_against_stored_ones(shared: TorchBackend, time: FakeTime) -> None:
    case = demo_case()
    benchmark = make_benchmark(shared, time)
    sessions = tuple(benchmark.time_bf16(case, generate).seconds for _ in range(3))
    samples, _ = benchmark.time_quantized(case, generate, MXFP8, sessions, with_short=True)
    assert estimate(samples, alpha=0.05).speedup == pytest.approx(BF16_BLOCK / QUANTIZED_BLOCK, rel=0.01)


def test_short_calls_of_bf16_are_timed_with_a_stored_session_and_with_the_arm_that_is_held_against_it(
    shared: TorchBackend, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("short_timing", "benchmark"):
        monkeypatch.setattr(f"pytest_mxq.backend.{module}.SHORT_LENGTHS", (1, 2))
    benchmark, case = make_benchmark(shared, time), demo_case(THREE_STEPS)
    stored = benchmark.time_bf16(case, generate)
    assert len(stored.short_seconds) == 4
    assert median(stored.short_seconds) == pytest.approx(median(stored.seconds) / 3, rel=0.05)
    sessions = (stored.seconds,) * 3
    samples, _ = benchmark.time_quantized(case, generate, MXFP8, sessions, with_short=True)
    drift = MachineDrift.between([stored.short_seconds], samples.short_bf16, steps=1)
    assert drift is not None
    assert abs(drift.change) < 0.005
    assert benchmark.time_quantized(case, generate, MXFP8, sessions, with_short=False)[0].short_bf16 == ()


def test_calls_of_few_steps_have_no_short_ones(shared: TorchBackend, time: FakeTime) -> None:
    assert make_benchmark(shared, time).time_bf16(demo_case(), generate).short_seconds == ()


THREE_STEPS = replace(ONE_STEP, call={**ONE_STEP.call, "num_inference_steps": 3})


def measurer(
    shared: TorchBackend,
    time: FakeTime,
    monkeypatch: pytest.MonkeyPatch,
    *,
    resident: float,
    kept: float = 0.0,
    recipe: Recipe = ONE_STEP,
) -> tuple[TorchBenchmark, Case]:
    """A benchmark on an account that a test writes: both arms are resident, each call adds two GiB."""

    def fake_peak(run: Callable[[], object], _device: torch.device) -> Peak:
        run()
        reserved = resident + 3.0
        return Peak(allocated_gib=resident + 2.0, reserved_gib=reserved, resident_gib=resident, kept_gib=kept)

    monkeypatch.setattr("pytest_mxq.backend.benchmark.measure_peak", fake_peak)
    case = demo_case(recipe)
    return make_benchmark(shared, time), case


def test_short_calls_take_fewer_steps_than_the_test_asks_for_and_a_full_one_takes_its_own(
    shared: TorchBackend, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, case = measurer(shared, time, monkeypatch, resident=0.05, recipe=THREE_STEPS)

    def four_steps(pipe: Any, prompt: Any) -> object:
        return pipe(prompt, num_inference_steps=4)

    short, full = benchmark.measure_bf16(case, four_steps, steps=2)
    assert short is not None
    quantized = benchmark.measure_memory(case, four_steps, MXFP8, steps=2)
    ran = [observed.work.denoiser_calls["transformer"] for _, observed in (short, full, quantized)]
    asked = [observed.identity.calls[0]["num_inference_steps"] for _, observed in (short, full, quantized)]
    assert (ran, asked) == ([2, 4, 2], [4, 4, 4])


@pytest.mark.parametrize("steps", [2, None])
def test_a_short_call_that_keeps_memory_does_not_stand_for_a_full_one(
    shared: TorchBackend, time: FakeTime, monkeypatch: pytest.MonkeyPatch, steps: int | None
) -> None:
    """7.5 MiB in 2 of 3 steps are 11 in all, more than 0.5 % of the peak of 2 GiB."""
    benchmark, case = measurer(shared, time, monkeypatch, resident=0.05, kept=7.5 / 1024, recipe=THREE_STEPS)
    if steps is None:
        assert benchmark.measure_memory(case, generate, MXFP8)[0].allocated_gib > 1
        return
    with pytest.raises(Stop, match=r"a call of 2 steps leaves 0\.00732 GiB allocated") as caught:
        benchmark.measure_memory(case, generate, MXFP8, steps=steps)
    assert caught.value.outcome is Outcome.ERROR


def test_compiled_regions_are_counted_in_a_short_call(shared: TorchBackend, time: FakeTime) -> None:
    timed = make_benchmark(shared, time).time_bf16(demo_case(THREE_STEPS), generate)
    full_calls = 1 + 2 + len(timed.seconds)
    assert time.count == 3 * full_calls + 2 * 2


def test_each_arm_is_measured_without_the_weights_of_the_other(
    shared: TorchBackend, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, case = measurer(shared, time, monkeypatch, resident=0.05)
    _, (bf16, _) = benchmark.measure_bf16(case, generate, steps=None)
    assert bf16.allocated_gib == pytest.approx(2.05)  # nothing beside it
    assert bf16.reserved_gib == pytest.approx(3.05)
    peak, _ = benchmark.measure_memory(case, generate, MXFP8)
    base = dict(shared.arms.base(case.source).pipe.transformer.named_parameters())
    own = dict(benchmark._arm(case, MXFP8).pipe.transformer.named_parameters())
    idle = sum(p.nbytes for name, p in base.items() if own[name] is not p) / 2**30
    assert idle > 0
    assert peak.allocated_gib == pytest.approx(2.05 - idle)
    assert peak.reserved_gib == pytest.approx(3.05 - idle)


def test_what_else_is_resident_is_found_out(
    shared: TorchBackend, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, case = measurer(shared, time, monkeypatch, resident=30.0)
    with pytest.raises(Stop, match=r"30\.0 GiB are resident where the arms hold 0\.0") as caught:
        benchmark.measure_bf16(case, generate, steps=None)
    assert caught.value.outcome is Outcome.ENVIRONMENT
