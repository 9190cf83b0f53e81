"""Speed gates on the demo with a fake clock: the unharmed arm passes, each injected slowdown is caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from pytest_mxq.backend.benchmark import TorchBenchmark
from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.baselines.manifest import Identity, Manifest, Selection
from pytest_mxq.environment.device import Device
from pytest_mxq.environment.fingerprint import Fingerprint, take_fingerprint
from pytest_mxq.errors import MxqError
from pytest_mxq.evaluation.performance import Performance
from pytest_mxq.formats import Format, built_in_formats
from pytest_mxq.gates.bounds import GATES, SpeedBound
from pytest_mxq.gates.performance import estimate
from pytest_mxq.gates.speed_statistics import Sampling, SpeedRule
from pytest_mxq.gates.verdict import Cell, Evidence, Outcome, Stop, Verdict
from pytest_mxq.models import SelectionRule, SkipPattern
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines import cache as arm_store
from pytest_mxq.pipelines.compile import compile_blocks, repeated_blocks
from pytest_mxq.planning.case import Case, Plan
from pytest_mxq.planning.settings import CaseSettings, Reference
from pytest_mxq.profiling.compilation import count_compilations
from pytest_mxq.profiling.memory import Peak
from pytest_mxq.profiling.timing import Clock

CPU = Device(kind="cpu", name="cpu", capability=None, slug="cpu-test", total_memory_gib=None, facts={})
ONE_STEP = replace(DEMO, call=MappingProxyType({**DEMO.call, "num_inference_steps": 1}))
BUILT_IN = next(number_format for number_format in built_in_formats() if number_format.name == "mxfp8")
# The emulation stands in for the hardware: what is shown here is the path, on a clock of its own.
MXFP8 = replace(BUILT_IN, native=BUILT_IN.emulation or BUILT_IN.native)
BF16_BLOCK, QUANTIZED_BLOCK = 1.0, 0.75
# The one bound of all arms here. A speedup of 1.333 resolved to 1.7 % is above it and 5 % less is below: the room is
# 1.333 / 1.05 * 1.017 = 1.291 to 1.333 / 1.017 = 1.311.
BOUND = 1.30
# Without the single-stream blocks: 51 % of all Linear weights are still quantized, 55 % of those of the blocks.
HALF = replace(
    ONE_STEP,
    rule=replace(DEMO.rule, skip=(*DEMO.rule.skip, SkipPattern(pattern="single_transformer_blocks", reason="half"))),
)


class FakeTime:
    """The blocks cost their time on this clock, with a little scatter."""

    def __init__(self) -> None:
        self.now = 0.0
        self.count = 0

    def spend(self, seconds: float) -> None:
        self.count += 1
        self.now += seconds * (1 + 0.002 * ((self.count * 7919) % 11 - 5) / 5)


def is_quantized(weight: torch.Tensor) -> bool:
    return type(weight).__name__ == "EmulatedTensor"


def quantized_share(denoiser: torch.nn.Module) -> float:
    """The share of the weights of the blocks' Linear layers that is quantized, 0 to 1."""
    linears = [
        module
        for block in repeated_blocks(denoiser)
        for module in block.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    quantized = sum(linear.weight.numel() for linear in linears if is_quantized(linear.weight))
    return quantized / sum(linear.weight.numel() for linear in linears)


@pytest.fixture(scope="module")
def shared() -> Iterator[TorchBackend]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TorchBackend("cpu", lambda _label, _done, _total: None)
    torch.set_num_threads(threads)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch, shared: TorchBackend) -> FakeTime:
    """Blocks are compiled by the backend that changes nothing, and spend their time on the fake clock.

    It falls from BF16's to the quantized in proportion to the quantized weights.
    """
    time = FakeTime()

    def compile_and_charge(denoiser: torch.nn.Module, **_: Any) -> None:
        compile_blocks(denoiser, backend="eager")
        cost = BF16_BLOCK - (BF16_BLOCK - QUANTIZED_BLOCK) * quantized_share(denoiser)
        blocks = len(repeated_blocks(denoiser))
        denoiser.register_forward_hook(lambda *_: time.spend(cost * blocks))

    monkeypatch.setattr(arm_store, "compile_blocks", compile_and_charge)
    shared.arms.release()
    return time


def judge(
    backend: TorchBackend,
    time: FakeTime,
    *,
    recipe: Any = ONE_STEP,
    manifest: Manifest | None = None,
    harm: Callable[[torch.nn.Module], None] | None = None,
    number_format: Format = MXFP8,
    workload: Callable[..., Any] = lambda pipeline, prompt: pipeline(prompt),
) -> Verdict:
    clock = Clock(now=lambda: time.now, synchronize=lambda: None)
    benchmark = TorchBenchmark(backend, CPU, None, clock)
    case = Case(recipe=recipe, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])
    if harm is not None:
        harm(benchmark._arm(case, number_format).pipe.transformer)
    cell = Cell(nodeid="t::x", model="demo", case="case", format=number_format.name, gate="speedup")
    plan = Plan(
        cell=cell,
        case=case,
        kind=GATES["speedup"],
        number_format=number_format,
        bound=SpeedBound(speedup=BOUND, rule=SpeedRule.NOT_BELOW),
    )
    performance = Performance(
        benchmark=benchmark, fingerprint=take_fingerprint(CPU), reference=Reference.LIVE, strict=False, alpha=0.05
    )
    draft = Verdict(cell=cell, outcome=Outcome.ERROR, sentence="")
    try:
        return performance.judge(plan, workload, draft, manifest, "")
    except Stop as stop:
        return replace(draft, outcome=stop.outcome, sentence=str(stop), **stop.facts)


def baseline_of(evidence: Evidence) -> Manifest:
    """A stored baseline that recorded the layers of this evidence, without images and sessions."""
    identity = Identity(
        model="demo",
        weights="packaged:0123456789ab",
        prompts=DEMO.prompts[:1],
        seed=0,
        batch_size=1,
        images_per_prompt=1,
        width=128,
        height=128,
        execution="eager",
        calls=({"num_inference_steps": 1},),
    )
    recorded = Selection(
        quantized=evidence.quantized,
        total=evidence.total,
        weight_share=evidence.weight_share,
        sha256=evidence.layers_sha256,
        layers=evidence.layers,
    )
    return Manifest(
        case="case",
        model="demo",
        device=CPU.slug,
        created="2026-01-02T03:04:05Z",
        identity=identity,
        selections={MXFP8.name: recorded},
        noise_floor=None,
        lpips=None,
        fingerprint=Fingerprint(hard={}, recorded={}),
        schema_version=1,
        identity_sha256=identity.digest,
        outputs=(),
    )


def test_the_unharmed_arm_passes_with_its_speedup(shared: TorchBackend, time: FakeTime) -> None:
    verdict = judge(shared, time)
    assert verdict.outcome is Outcome.PASS, verdict.sentence
    assert verdict.speed is not None
    assert verdict.speed.lower > BOUND
    assert verdict.speed.speedup == pytest.approx(BF16_BLOCK / QUANTIZED_BLOCK, rel=0.01)
    assert verdict.speed.n >= 6
    assert verdict.speed.samples.execution == "compiled blocks, default"
    assert len(verdict.speed.samples.first_call) == 2
    assert verdict.evidence is not None
    assert judge(shared, time, manifest=baseline_of(verdict.evidence)).outcome is Outcome.PASS


def test_first_calls_are_the_process_s_and_not_those_of_a_later_gate(shared: TorchBackend, time: FakeTime) -> None:
    benchmark = TorchBenchmark(shared, CPU, None, Clock(now=lambda: time.now, synchronize=lambda: None))
    case = Case(recipe=ONE_STEP, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])
    first, again = (
        benchmark.time_live(
            case, lambda pipeline, prompt: pipeline(prompt), MXFP8, sampling=Sampling(alpha=0.05), seed=0
        )[0]
        for _ in range(2)
    )
    assert again.first_call == first.first_call


def test_a_block_left_eager_is_a_regression_by_name(shared: TorchBackend, time: FakeTime) -> None:
    def leave_one_eager(denoiser: torch.nn.Module) -> None:
        repeated_blocks(denoiser)[2]._compiled_call_impl = None

    verdict = judge(shared, time, harm=leave_one_eager)
    assert verdict.outcome is Outcome.REGRESSION
    assert "1 of 6 repeated blocks are not compiled: single_transformer_blocks.0" in verdict.sentence


def test_a_rule_that_quantizes_nothing_is_not_quantized(shared: TorchBackend, time: FakeTime) -> None:
    none = replace(ONE_STEP, rule=SelectionRule(min_features=700))
    verdict = judge(shared, time, recipe=none)
    assert verdict.outcome is Outcome.NOT_QUANTIZED
    assert "none of 62 Linear layers is quantized" in verdict.sentence


def test_a_rule_that_quantizes_half_is_not_quantized_where_a_baseline_recorded_all(
    shared: TorchBackend, time: FakeTime
) -> None:
    case = Case(recipe=ONE_STEP, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])
    benchmark = TorchBenchmark(shared, CPU, None, Clock(now=lambda: time.now, synchronize=lambda: None))
    whole = benchmark.evidence(case, MXFP8)
    verdict = judge(shared, time, recipe=HALF, manifest=baseline_of(whole))
    assert verdict.outcome is Outcome.NOT_QUANTIZED
    assert verdict.evidence is not None
    assert 0.5 <= verdict.evidence.weight_share <= 0.6
    said = f"{verdict.evidence.quantized} layers are quantized, and the baseline recorded {whole.quantized}"
    assert said in verdict.sentence
    assert "single_transformer_blocks" in verdict.sentence


def test_a_rule_that_quantizes_half_is_a_regression_where_there_is_no_baseline(
    shared: TorchBackend, time: FakeTime
) -> None:
    verdict = judge(shared, time, recipe=HALF)
    assert verdict.outcome is Outcome.REGRESSION, verdict.sentence
    assert verdict.evidence is not None
    assert 0.5 <= verdict.evidence.weight_share <= 0.6
    assert verdict.speed is not None
    assert 1.1 < verdict.speed.speedup < 1.2


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_sleep_in_the_denoiser_is_a_regression(shared: TorchBackend, time: FakeTime, share: float) -> None:
    def sleep(denoiser: torch.nn.Module) -> None:
        denoiser.register_forward_hook(lambda *_: time.spend(share * QUANTIZED_BLOCK * len(repeated_blocks(denoiser))))

    verdict = judge(shared, time, harm=sleep)
    assert verdict.outcome is Outcome.REGRESSION, verdict.sentence
    assert verdict.speed is not None
    assert verdict.speed.speedup == pytest.approx(BF16_BLOCK / QUANTIZED_BLOCK / (1 + share), rel=0.01)
    assert verdict.speed.upper < BOUND


def test_dequantizing_at_each_call_is_a_regression(shared: TorchBackend, time: FakeTime) -> None:
    def dequantize(denoiser: torch.nn.Module) -> None:
        weights = [p for p in denoiser.parameters() if is_quantized(p)]

        def copy_all(*_: Any) -> None:
            for weight in weights:
                weight.values.clone()  # type: ignore[attr-defined]  # the copy that is thrown away
                time.spend(0.02)

        denoiser.register_forward_pre_hook(copy_all)

    verdict = judge(shared, time, harm=dequantize)
    assert verdict.outcome is Outcome.REGRESSION, verdict.sentence


def test_memory_cannot_be_weighed_on_a_cpu_and_says_so(shared: TorchBackend, time: FakeTime) -> None:
    benchmark = TorchBenchmark(shared, CPU, None, Clock(now=lambda: time.now, synchronize=lambda: None))
    case = Case(recipe=ONE_STEP, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])
    with pytest.raises(Exception, match="CUDA"):
        benchmark.measure_memory(case, lambda pipeline, prompt: pipeline(prompt), MXFP8)


def test_a_workload_that_does_less_on_the_quantized_arm_is_no_speedup(shared: TorchBackend, time: FakeTime) -> None:
    def cheat(pipeline: Any, prompt: Any) -> Any:
        quantized = any(is_quantized(p) for p in pipeline.pipe.transformer.parameters())
        return pipeline(prompt, num_inference_steps=1 if quantized else 2)

    with pytest.raises(MxqError, match="num_inference_steps 2 -> 1"):
        judge(shared, time, workload=cheat)


def test_a_format_that_changes_inductors_configuration_is_refused(
    shared: TorchBackend, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    before = config.coordinate_descent_tuning

    def changing() -> object:
        config.coordinate_descent_tuning = not before
        return MXFP8.native()

    with pytest.raises(MxqError, match="coordinate_descent_tuning"):
        judge(shared, time, number_format=replace(MXFP8, native=changing))
    assert config.coordinate_descent_tuning is before


def test_what_was_compiled_for_images_is_not_run_for_time(shared: TorchBackend, time: FakeTime) -> None:
    case = Case(recipe=ONE_STEP, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])
    generate = lambda pipeline, prompt: pipeline(prompt)  # noqa: E731
    shared.generate_other_execution(case, generate, chunks=(0,))
    benchmark = TorchBenchmark(shared, CPU, None, Clock(now=lambda: time.now, synchronize=lambda: None))
    before = count_compilations().graphs
    timed = benchmark.time_bf16(case, generate)
    assert count_compilations().graphs > before
    assert len(timed.seconds) == 8


def test_one_session_of_the_quantized_arm_is_held_against_stored_ones(shared: TorchBackend, time: FakeTime) -> None:
    case = Case(recipe=ONE_STEP, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])
    benchmark = TorchBenchmark(shared, CPU, None, Clock(now=lambda: time.now, synchronize=lambda: None))
    generate = lambda pipeline, prompt: pipeline(prompt)  # noqa: E731
    sessions = tuple(benchmark.time_bf16(case, generate).seconds for _ in range(3))
    samples, _ = benchmark.time_quantized(case, generate, MXFP8, sessions)
    assert estimate(samples, alpha=0.05).speedup == pytest.approx(BF16_BLOCK / QUANTIZED_BLOCK, rel=0.01)


def test_skipped_cuda_graphs_are_found_out(shared: TorchBackend, time: FakeTime) -> None:
    def skipping(pipeline: Any, prompt: Any) -> Any:
        counters["inductor"]["cudagraph_skips"] += 1
        return pipeline(prompt)

    with pytest.raises(MxqError, match=r"Inductor skipped \d+ CUDA Graphs"):
        judge(shared, time, workload=skipping)


def measurer(
    shared: TorchBackend, time: FakeTime, monkeypatch: pytest.MonkeyPatch, *, resident: float
) -> tuple[TorchBenchmark, Case]:
    """A benchmark on an account that a test writes: both arms are resident, each call adds two GiB."""

    def fake_peak(run: Callable[[], object], _device: torch.device) -> Peak:
        run()
        return Peak(allocated_gib=resident + 2.0, reserved_gib=resident + 3.0, resident_gib=resident)

    monkeypatch.setattr("pytest_mxq.backend.benchmark.measure_peak", fake_peak)
    case = Case(recipe=ONE_STEP, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])
    return TorchBenchmark(shared, CPU, None, Clock(now=lambda: time.now, synchronize=lambda: None)), case


def test_each_arm_is_weighed_without_the_weights_of_the_other(
    shared: TorchBackend, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, case = measurer(shared, time, monkeypatch, resident=0.05)
    generate = lambda pipeline, prompt: pipeline(prompt)  # noqa: E731
    bf16, _ = benchmark.measure_memory(case, generate, None)
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
    with pytest.raises(Stop, match=r"30\.0 GiB are resident where the arms weigh 0\.0") as caught:
        benchmark.measure_memory(case, lambda pipeline, prompt: pipeline(prompt), None)
    assert caught.value.outcome is Outcome.ENVIRONMENT


def test_a_workload_that_does_less_while_it_is_timed_is_found_out(shared: TorchBackend, time: FakeTime) -> None:
    seen = set()

    def lazy(pipeline: Any, prompt: Any) -> Any:
        steps = 1 if pipeline.pipe in seen else 2
        seen.add(pipeline.pipe)
        return pipeline(prompt, num_inference_steps=steps)

    with pytest.raises(MxqError, match="while it was timed than before: num_inference_steps 2 -> 1"):
        judge(shared, time, workload=lazy)


def test_a_warm_up_that_does_not_settle_is_the_environments_fault(shared: TorchBackend, time: FakeTime) -> None:
    calls = iter(range(10_000))

    def ever_slower(pipeline: Any, prompt: Any) -> Any:
        time.spend(next(calls))
        return pipeline(prompt)

    verdict = judge(shared, time, workload=ever_slower)
    assert verdict.outcome is Outcome.ENVIRONMENT
    assert "BF16 did not settle in 6 calls of warm-up" in verdict.sentence


def test_images_of_nan_are_never_a_speedup(shared: TorchBackend, time: FakeTime) -> None:
    def spoil(denoiser: torch.nn.Module) -> None:
        denoiser.register_forward_hook(lambda _m, _i, output: tuple(part * float("nan") for part in output))

    verdict = judge(shared, time, harm=spoil)
    assert verdict.outcome is Outcome.DEGENERATE
    assert verdict.sentence == "what the timed mxfp8 arm generated holds NaN or infinity"


def test_arms_that_enter_different_numbers_of_compiled_regions_do_not_run_alike(
    shared: TorchBackend, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = iter([6, 5])
    monkeypatch.setattr("pytest_mxq.backend.benchmark.check_compiled", lambda _denoiser, _run: next(regions))
    verdict = judge(shared, time)
    assert verdict.outcome is Outcome.REGRESSION
    assert "enters 6 compiled regions in BF16 and 5 in the quantized arm" in verdict.sentence
