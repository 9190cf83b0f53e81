"""What every section of gpu_speed.py measures with: a device, a model, its arms, their proofs and their timing."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from sections import Recorder
from tiny_recipes import TINY_RECIPES
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig

from pytest_mxq.baselines.manifest import Selection
from pytest_mxq.errors import MxqError
from pytest_mxq.formats.float8 import FLOAT8
from pytest_mxq.gates.evidence import judge_evidence
from pytest_mxq.gates.sampling import Sampling
from pytest_mxq.gates.speed_statistics import (
    DEFAULT_PROCESS_SD,
    SpeedRule,
    decide_speed,
    estimate_paired,
)
from pytest_mxq.models.flux import FLUX_1_DEV
from pytest_mxq.pipelines.compile import (
    CompileMode,
    compile_blocks,
)
from pytest_mxq.pipelines.quantize import (
    Chosen,
    choose_layers,
    collect_evidence,
    quantize_layers,
    share_copy,
)
from pytest_mxq.pipelines.random_weights import load_random
from pytest_mxq.profiling.compilation import check_compiled
from pytest_mxq.profiling.memory import measure_peak, weight_bytes
from pytest_mxq.profiling.telemetry import Telemetry
from pytest_mxq.profiling.timing import Run, cpu_clock, cuda_clock, time_rounds, warm_up

ALPHA = 0.05
STEPS, LONG_STEPS = 4, 28
SESSION_ROUNDS = 3
BOUNDS = (0.98, 1.02)
HARM_BOUND = 0.97
"""Bound of a harmed arm, as a share of the unharmed speedup in the same process."""
SLEEP_SHARE = 0.05
RECORDS = "gpu-speed.jsonl"


@dataclass(kw_only=True)
class Bench(Recorder):
    """What every section measures with."""

    device: str
    estimates: int
    telemetry: Telemetry

    def __post_init__(self) -> None:
        super().__post_init__()
        on_gpu = self.device == "cuda"
        self.clock = cuda_clock() if on_gpu else cpu_clock()
        self.format = (
            FLOAT8 if on_gpu else replace(FLOAT8, native=partial(Int8WeightOnlyConfig, set_inductor_config=False))
        )
        self.recipe = FLUX_1_DEV if on_gpu else TINY_RECIPES[FLUX_1_DEV.name]

    def generate(self, pipe: Any, steps: int = STEPS) -> torch.Tensor:
        """Call a pipeline once, as a gate does."""
        arguments = {**self.recipe.call, "num_inference_steps": steps, "output_type": "pt"}
        images = pipe(prompt="a", **arguments, generator=torch.Generator("cpu").manual_seed(0)).images
        assert isinstance(images, torch.Tensor)
        return images

    def workload(self, pipe: Any, steps: int = STEPS) -> Run:
        """Make that call, to be timed."""
        return partial(self.generate, pipe, steps)

    @contextmanager
    def seconds(self, what: str) -> Iterator[None]:
        """Record how long the block took."""
        start = time.perf_counter()
        yield
        self.clock.synchronize()
        self.record("seconds", of=what, seconds=time.perf_counter() - start)


def with_denoiser(pipe: Any, denoiser: nn.Module) -> Any:
    arm = type(pipe)(**{**pipe.components, "transformer": denoiser})
    arm.set_progress_bar_config(disable=True)
    return arm


def load(bench: Bench) -> Any:
    with bench.seconds("load_random"):
        pipe = load_random(bench.recipe, device=bench.device).pipe
    compile_blocks(pipe.transformer)
    return pipe


def quantized(bench: Bench, pipe: Any, chosen: Chosen, mode: CompileMode = CompileMode.DEFAULT) -> Any:
    """Return the quantized arm beside a BF16 pipeline, sharing what is not quantized."""
    with bench.seconds("share_copy and quantize_layers"):
        denoiser = share_copy(pipe.transformer)
        quantize_layers(denoiser, chosen, bench.format, emulated=False)
    compile_blocks(denoiser, mode=mode)
    return with_denoiser(pipe, denoiser)


def chosen_layers(bench: Bench, pipe: Any) -> Chosen:
    return choose_layers(pipe.transformer, bench.recipe.rule, bench.format)


def warm(bench: Bench, what: str, pipe: Any) -> float:
    """Warm an arm up; return the median of its settled calls."""
    warmed = warm_up(bench.workload(pipe), bench.clock)
    bench.record("warm-up", of=what, warm_up=warmed)
    return warmed.seconds[-1]


def prove_compiled(bench: Bench, what: str, pipe: Any) -> None:
    start = time.perf_counter()
    try:
        found = str(check_compiled(pipe.transformer, bench.workload(pipe)))
    except MxqError as error:
        found = f"{type(error).__name__}: {error}"
    bench.record("check_compiled", of=what, says=found, seconds=time.perf_counter() - start)


def prove_quantized(bench: Bench, what: str, pipe: Any, chosen: Chosen, stored: Chosen) -> None:
    """Compare an arm's evidence with the selection that a baseline would have recorded."""
    recorded = Selection.of(stored.names, total=stored.total, weight_share=stored.weights / stored.all_weights)
    evidence = collect_evidence(pipe.transformer, chosen)
    says = judge_evidence(evidence, min_share=bench.recipe.min_share, stored=recorded)
    bench.record(
        "evidence",
        of=what,
        says=says or "as it should be",
        quantized=evidence.quantized,
        total=evidence.total,
        weight_share=evidence.weight_share,
        weight_ratio=evidence.weight_bytes / evidence.bf16_bytes,
    )


def pair(bench: Bench, what: str, runs: tuple[Run, Run], bounds: tuple[float, ...] = (), seed: int = 0) -> float:
    """Time two warm arms as a live gate does, record everything, and return the speedup."""
    said = bench.telemetry.before_start()
    samples = time_rounds(runs, bench.clock, sampling=Sampling(alpha=ALPHA), seed=seed, inspect=bench.telemetry.inspect)
    sds = (DEFAULT_PROCESS_SD, 0.0)
    estimates = [estimate_paired(samples.bf16, samples.of(1), alpha=ALPHA, process_sd=sd) for sd in sds]
    verdicts = {
        f"{bound:.4f}": [decide_speed(estimate, bound, SpeedRule.NOT_BELOW).value for estimate in estimates]
        for bound in bounds
    }
    bench.record(
        "pair",
        of=what,
        said_before=said,
        speedup=estimates[0].speedup,
        medians=[statistics.median(samples.bf16), statistics.median(samples.of(1))],
        verdicts=verdicts,
        estimates=dict(zip(map(str, sds), estimates, strict=True)),
        bf16_seconds=samples.bf16,
        quantized_seconds=samples.of(1),
        first=[("bf16-first", "quantized-first")[round_.order[0]] for round_ in samples.rounds],
        voided=samples.voided,
        disturbed=samples.disturbed,
        elapsed_seconds=samples.elapsed_seconds,
        telemetry=bench.telemetry.summary(),
    )
    return estimates[0].speedup


def peak(bench: Bench, what: str, pipe: Any) -> None:
    if bench.device == "cuda":
        bench.record("peak", of=what, peak=measure_peak(bench.workload(pipe), torch.device("cuda")))
    bench.record("weight bytes", of=what, transformer=weight_bytes(pipe.transformer))


def drop(pipe: Any, names: tuple[str, ...]) -> None:
    """Free these weights of the BF16 arm, which is of no use afterwards; a gate would move them off the device."""
    layers = dict(pipe.transformer.named_modules())
    for name in names:
        layers[name].weight.data = torch.empty(0, dtype=torch.bfloat16)
