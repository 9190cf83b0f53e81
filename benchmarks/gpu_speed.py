"""What the speed and memory gates are worth on a GPU: full-size FLUX.1-dev, random weights, compiled, batch 1.

Every section is a process of its own with its own time limit, and appends what it measured to one file as it goes:

- demo-plain, demo-strict: the demo's blocks compiled with eager's roundings; strict turns every warning into an error;
- pairs-0 to pairs-3: A/A, that is BF16 against BF16, five estimates a process;
- harm: four injected slowdowns of the float8 arm, and the unharmed arm twice before them;
- sleeps: longer and longer sleeps in the float8 arm's denoiser, and the unharmed arm twice before them;
- float8: float8 against BF16 at 4 and at 28 steps, and the peak memory of each arm alone;
- graphs: float8 with CUDA Graphs against float8 without them;
- bits: whether graphs change a bit of a float8 block, or Inductor does, which tunes each compiled form by itself.

The first section that compiles starts with an empty compile cache, the later ones with a warm one.

    python benchmarks/gpu_speed.py --out results/                                   # on a GPU, about ten minutes
    python benchmarks/gpu_speed.py --out trial/ --device cpu                        # a trial with a tiny model
    python benchmarks/gpu_speed.py --out results/ --sections demo-plain,float8      # some of it
    python benchmarks/gpu_speed.py --out results/ --table                           # what the records say of A/A

On a CPU float8 is replaced by torchao's int8 weights, since float8 needs a GPU.
"""

import argparse
import math
import platform
import statistics
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sections import Recorder, read_records, run_sections, wait_for_turn
from tiny_recipes import TINY_RECIPES
from torch import nn
from torch._inductor import config as inductor_config
from torch._inductor.utils import fresh_cache
from torch.utils._pytree import tree_leaves
from torchao.quantization import Int8WeightOnlyConfig

from pytest_mxq.baselines.manifest import Selection
from pytest_mxq.environment.device import find_device
from pytest_mxq.errors import MxqError
from pytest_mxq.formats.float8 import FLOAT8
from pytest_mxq.gates.evidence import judge_evidence
from pytest_mxq.gates.speed_statistics import (
    DEFAULT_PROCESS_SD,
    Sampling,
    SpeedRule,
    decide_speed,
    estimate_paired,
)
from pytest_mxq.models.base import SkipPattern
from pytest_mxq.models.demo import DEMO
from pytest_mxq.models.flux import FLUX_1_DEV
from pytest_mxq.pipelines.compile import (
    CompileMode,
    compile_blocks,
    compile_cache,
    compiling_faithfully,
    compiling_fast,
    repeated_blocks,
    same_inductor_settings,
)
from pytest_mxq.pipelines.load import load_pipeline
from pytest_mxq.pipelines.quantize import (
    Chosen,
    choose_layers,
    collect_evidence,
    quantize_layers,
    share_copy,
)
from pytest_mxq.pipelines.random_weights import load_random
from pytest_mxq.profiling.compilation import check_compiled, count_compilations
from pytest_mxq.profiling.memory import measure_peak, weight_bytes
from pytest_mxq.profiling.telemetry import Telemetry, open_telemetry
from pytest_mxq.profiling.timing import Run, cpu_clock, cuda_clock, time_pairs, time_session, warm_up

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
    samples = time_pairs(*runs, bench.clock, sampling=Sampling(alpha=ALPHA), seed=seed, inspect=bench.telemetry.inspect)
    sds = (DEFAULT_PROCESS_SD, 0.0)
    estimates = [estimate_paired(samples.bf16, samples.quantized, alpha=ALPHA, process_sd=sd) for sd in sds]
    verdicts = {
        f"{bound:.4f}": [decide_speed(estimate, bound, SpeedRule.NOT_BELOW).value for estimate in estimates]
        for bound in bounds
    }
    bench.record(
        "pair",
        of=what,
        said_before=said,
        speedup=estimates[0].speedup,
        medians=[statistics.median(samples.bf16), statistics.median(samples.quantized)],
        verdicts=verdicts,
        estimates=dict(zip(map(str, sds), estimates, strict=True)),
        bf16_seconds=samples.bf16,
        quantized_seconds=samples.quantized,
        first=[round_.order.value for round_ in samples.rounds],
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


def demo(bench: Bench, *, strict: bool) -> None:
    """Compile the demo's blocks as the noise floor does, and record every warning, or the one that is an error."""
    pipe = load_pipeline(DEMO, revision=None, device=bench.device).pipe
    chosen = choose_layers(pipe.transformer, DEMO.rule, bench.format)
    other = quantized(bench, pipe, chosen)
    compile_blocks(pipe.transformer)
    for what, arm in (("bf16", pipe), ("float8", other)):
        with warnings.catch_warnings(record=not strict) as seen, compiling_faithfully():
            warnings.simplefilter("error" if strict else "always")
            generate_demo(bench, what, arm)
        bench.record("warnings", of=what, warnings=sorted({f"{one.category.__name__}: {one}" for one in seen or ()}))


def generate_demo(bench: Bench, what: str, pipe: Any) -> None:
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (0, 1)]
    try:
        images = pipe([DEMO.prompts[0]] * 2, **DEMO.call, generator=generators, output_type="pt").images
        bench.record("demo", of=what, outcome="ran", mean=images.float().mean().item())
    except Exception:  # noqa: BLE001  # the traceback is the result
        bench.record("demo", of=what, outcome="failed", traceback=traceback.format_exc())


def float8(bench: Bench) -> None:
    pipe = load(bench)
    warm(bench, "bf16", pipe)
    peak(bench, "bf16 alone", pipe)
    chosen = chosen_layers(bench, pipe)
    other = quantized(bench, pipe, chosen)
    warm(bench, "float8", other)
    for what, arm in (("bf16", pipe), ("float8", other)):
        prove_compiled(bench, what, arm)
    prove_quantized(bench, "float8", other, chosen, chosen)
    pair(bench, "float8", (bench.workload(pipe), bench.workload(other)))
    for what, arm in (("float8", other), ("bf16", pipe)):
        session(bench, what, bench.workload(arm, LONG_STEPS), LONG_STEPS)
    drop(pipe, chosen.names)
    peak(bench, "float8 alone", other)


def session(bench: Bench, what: str, run: Run, steps: int) -> None:
    taken = time_session(run, bench.clock, inspect=bench.telemetry.inspect, rounds=SESSION_ROUNDS)
    bench.record("session", of=what, steps=steps, session=taken)


def pairs(bench: Bench, *, number: int) -> None:
    """Run A/A: estimates of two equal arms, each with its own random start."""
    pipe = load(bench)
    twin = with_denoiser(pipe, share_copy(pipe.transformer))
    compile_blocks(twin.transformer)
    for what, arm in (("bf16", pipe), ("bf16 twin", twin)):
        warm(bench, what, arm)
    for index in range(bench.estimates):
        pair(bench, "a/a", (bench.workload(pipe), bench.workload(twin)), BOUNDS, seed=100 * number + index)


def graphs(bench: Bench) -> None:
    pipe = load(bench)
    chosen = chosen_layers(bench, pipe)
    other = quantized(bench, pipe, chosen)
    replayed = with_denoiser(pipe, share_copy(other.transformer))
    compile_blocks(replayed.transformer, mode=CompileMode.REDUCE_OVERHEAD)
    warm(bench, "float8", other)
    warm(bench, "float8 reduce-overhead", replayed)
    prove_compiled(bench, "float8 reduce-overhead", replayed)
    for what, arm in (("float8", other), ("float8 reduce-overhead", replayed)):
        first, again = bench.generate(arm), bench.generate(arm)
        bench.record("repeated", of=what, equal=torch.equal(first, again), largest=largest(first, again))
    one, two = (bench.generate(arm) for arm in (other, replayed))
    spread = one.float().std().item()
    bench.record("outputs", equal=torch.equal(one, two), largest_difference=largest(one, two), spread=spread)
    pair(bench, "default over reduce-overhead", (bench.workload(other), bench.workload(replayed)))
    peak(bench, "float8 and BF16 resident, default", other)
    peak(bench, "float8 and BF16 resident, reduce-overhead", replayed)


def largest(one: torch.Tensor, two: torch.Tensor) -> float:
    return (one.float() - two.float()).abs().max().item()


def bits(bench: Bench) -> None:
    """Compile one block of each class in several ways and compare what they make of the same input."""
    pipe = load_random(bench.recipe, device=bench.device).pipe
    denoiser = share_copy(pipe.transformer)
    quantize_layers(denoiser, chosen_layers(bench, pipe), bench.format, emulated=False)
    arm = with_denoiser(pipe, denoiser)
    for block in {type(block): block for block in reversed(repeated_blocks(denoiser))}.values():
        with recorded_call(block) as seen:
            bench.generate(arm, steps=1)
        call = seen[0]
        for settings in ({}, {"deterministic": True}):
            torch.compiler.reset()
            with inductor_config.patch(settings), fresh_cache():
                default = warmed_up(compiled(block, CompileMode.DEFAULT, call))
                ways = {"again": default, "eager": flat_call(share_copy(block), call)}
                if bench.device == "cuda":
                    ways["captured in a CUDA Graph"] = captured(default)
                    graphed = compiled(block, CompileMode.REDUCE_OVERHEAD, call)
                    for calling in ("without a graph yet", "recording it", "replaying it"):
                        ways[f"reduce-overhead, {calling}"] = graphed
                compare_bits(bench, f"{type(block).__name__} {settings}", default, ways)
                torch.compiler.reset()
                with fresh_cache():
                    again = {"compiled again, empty cache": warmed_up(compiled(block, CompileMode.DEFAULT, call))}
                    compare_bits(bench, f"{type(block).__name__} {settings}", default, again)


@contextmanager
def recorded_call(block: nn.Module) -> Iterator[list[tuple[Any, Any]]]:
    """Record what the block is called with meanwhile."""
    seen: list[tuple[Any, Any]] = []
    hook = block.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    yield seen
    hook.remove()


def compiled(block: nn.Module, mode: CompileMode, call: tuple[Any, Any]) -> Callable[[], torch.Tensor]:
    """Return a compiled copy of the block with that call."""
    holder = nn.ModuleList([share_copy(block)])
    holder._repeated_blocks = [type(block).__name__]  # type: ignore[assignment]  # noqa: SLF001  # as diffusers names them
    compile_blocks(holder, mode=mode)
    return flat_call(holder[0], call)


def flat_call(block: nn.Module, call: tuple[Any, Any]) -> Callable[[], torch.Tensor]:
    args, kwargs = call
    return lambda: torch.cat([output.flatten() for output in tree_leaves(block(*args, **kwargs))])


def warmed_up(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    for _ in range(3):
        run()
    return run


def captured(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Capture the same code and replay it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()

    def replay() -> torch.Tensor:
        graph.replay()
        return output.clone()

    return replay


def compare_bits(
    bench: Bench, what: str, default: Callable[[], torch.Tensor], ways: dict[str, Callable[[], torch.Tensor]]
) -> None:
    reference = default()
    for way, run in ways.items():
        other = run()
        bench.record(
            "bits",
            of=what,
            way=way,
            differing=(reference != other).sum().item(),
            elements=reference.numel(),
            largest=largest(reference, other),
            spread=reference.float().std().item(),
        )


def harm(bench: Bench) -> None:
    pipe = load(bench)
    warm(bench, "bf16", pipe)
    chosen = chosen_layers(bench, pipe)
    other = quantized(bench, pipe, chosen)
    step = warm(bench, "float8", other) / STEPS
    bf16, run = bench.workload(pipe), bench.workload(other)
    bound = HARM_BOUND * pair(bench, "unharmed", (bf16, run))
    pair(bench, "unharmed again", (bf16, run), (bound,))
    prove_compiled(bench, "unharmed", other)
    prove_quantized(bench, "unharmed", other, chosen, chosen)
    harm_by_hooks(bench, other, step, lambda what: pair(bench, what, (bf16, run), (bound,)))
    with one_block_eager(other.transformer):
        run()
        pair(bench, "one block eager", (bf16, run), (bound,))
        prove_compiled(bench, "one block eager", other)
    with torch.compiler.set_stance("force_eager"):
        prove_compiled(bench, "stance force_eager", other)
    harm_by_half(bench, pipe, bound)
    bench.record("compilations", counts=count_compilations())


def sleeps(bench: Bench) -> None:
    """Measure sleeps: under a power limit one costs less than it lasts, since the device cools meanwhile."""
    pipe = load(bench)
    warm(bench, "bf16", pipe)
    other = quantized(bench, pipe, chosen_layers(bench, pipe))
    step = warm(bench, "float8", other) / STEPS
    runs = bench.workload(pipe), bench.workload(other)
    unharmed = pair(bench, "unharmed", runs)
    bounds = tuple(share * unharmed for share in (HARM_BOUND, 0.98, 0.99))
    pair(bench, "unharmed again", runs, bounds)
    for share in (SLEEP_SHARE, 0.08):
        hook = other.transformer.register_forward_pre_hook(device_sleep(bench, share * step))
        bench.generate(other)
        pair(bench, f"device sleep of {share:.0%} of a step", runs, bounds)
        hook.remove()


def harm_by_hooks(bench: Bench, other: Any, step: float, judge: Callable[[str], object]) -> None:
    """Slow every forward pass of the denoiser down from outside of what is compiled."""
    denoiser = other.transformer
    hook = denoiser.register_forward_pre_hook(lambda *_: time.sleep(SLEEP_SHARE * step))
    session(bench, "sleep of the host", bench.workload(other), STEPS)
    hook.remove()
    session(bench, "no sleep of the host", bench.workload(other), STEPS)
    hooks: dict[str, Callable[..., None]] = {
        "sleep of the device": device_sleep(bench, SLEEP_SHARE * step),
        "weights dequantized at each call": partial(dequantize, denoiser),
    }
    for what, slow in hooks.items():
        hook = denoiser.register_forward_pre_hook(slow)
        bench.generate(other)
        judge(what)
        prove_compiled(bench, what, other)
        hook.remove()


def harm_by_half(bench: Bench, pipe: Any, bound: float) -> None:
    """Quantize by a rule that leaves the single blocks out: about half of the layers."""
    skip = (*bench.recipe.rule.skip, SkipPattern(pattern="single_transformer", reason="injected"))
    half = choose_layers(pipe.transformer, replace(bench.recipe.rule, skip=skip), bench.format)
    arm = quantized(bench, pipe, half)
    warm(bench, "half of the layers", arm)
    pair(bench, "half of the layers", (bench.workload(pipe), bench.workload(arm)), (bound,))
    prove_compiled(bench, "half of the layers", arm)
    prove_quantized(bench, "half of the layers", arm, half, chosen_layers(bench, pipe))


def device_sleep(bench: Bench, seconds: float) -> Callable[..., None]:
    """Return a hook that idles the device for a while; the host's sleep may hide behind work already queued."""
    if bench.device != "cuda":
        return lambda *_: time.sleep(seconds)
    spin: Any = torch.cuda._sleep  # noqa: SLF001  # torch's own tests have no other
    probe = 100_000_000
    bench.clock.synchronize()
    start = time.perf_counter()
    spin(probe)
    bench.clock.synchronize()
    cycles = int(probe * seconds / (time.perf_counter() - start))
    bench.record("device sleep", seconds=seconds, cycles=cycles)
    return lambda *_: spin(cycles)


def dequantize(denoiser: nn.Module, *_: object) -> None:
    for layer in denoiser.modules():
        weight: Any = getattr(layer, "weight", None)
        if isinstance(layer, nn.Linear) and hasattr(weight, "dequantize") and type(weight) is not nn.Parameter:
            weight.dequantize()


@contextmanager
def one_block_eager(denoiser: nn.Module) -> Iterator[None]:
    block: Any = repeated_blocks(denoiser)[-1]
    compiled, block._compiled_call_impl = block._compiled_call_impl, None  # noqa: SLF001
    try:
        yield
    finally:
        block._compiled_call_impl = compiled  # noqa: SLF001


SECTIONS: dict[str, tuple[Callable[[Bench], None], float]] = {
    "demo-plain": (partial(demo, strict=False), 60),
    "demo-strict": (partial(demo, strict=True), 60),
    **{f"pairs-{number}": (partial(pairs, number=number), 90) for number in range(4)},
    "harm": (harm, 200),
    "sleeps": (sleeps, 110),
    "float8": (float8, 120),
    "graphs": (graphs, 120),
    "bits": (bits, 150),
}


def child(options: argparse.Namespace) -> None:
    """Measure one section once the parent says so: what is imported by then disturbs no other section's readings."""
    wait_for_turn()
    section, _ = SECTIONS[options.child]
    device = find_device()
    with ExitStack() as stack:
        telemetry = stack.enter_context(open_telemetry(device))
        bench = Bench(
            section=options.child,
            path=options.out / RECORDS,
            device=options.device,
            estimates=options.estimates,
            telemetry=telemetry,
        )
        packages = {name: version(name) for name in ("torch", "torchao", "diffusers", "transformers")}
        bench.record("machine", device=device, python=platform.python_version(), packages=packages)
        stack.enter_context(compile_cache(options.cache))
        if not options.child.startswith("demo"):
            stack.enter_context(same_inductor_settings())
            stack.enter_context(compiling_fast())
        stack.enter_context(torch.no_grad())
        section(bench)


def command(name: str, options: argparse.Namespace) -> list[str]:
    arguments = [__file__, "--child", name, "--device", options.device, "--out", str(options.out)]
    return [*arguments, "--cache", str(options.cache), "--estimates", str(options.estimates)]


def show(records: list[dict[str, Any]]) -> None:
    """Print how many A/A verdicts of each kind, and how far processes differ."""
    estimates = [record for record in records if record["what"] == "pair" and record["of"] == "a/a"]
    for bound in (f"{bound:.4f}" for bound in BOUNDS):
        for index, sd in enumerate((DEFAULT_PROCESS_SD, 0.0)):
            kinds = Counter(record["verdicts"][bound][index] for record in estimates)
            widths = [record["estimates"][str(sd)]["half_width"] for record in estimates]
            print(f"T {bound} process_sd {sd}: {dict(kinds)}; half-width {min(widths):.2%} to {max(widths):.2%}")
    by_process: dict[str, list[dict[str, Any]]] = {}
    for record in estimates:
        by_process.setdefault(record["section"], []).append(record)
    medians, logs = [], []
    for section, own in by_process.items():
        medians.append(math.log(statistics.median(time for record in own for time in record["bf16_seconds"])))
        logs.append(statistics.fmean(math.log(record["speedup"]) for record in own))
        print(f"{section}: BF16 median {math.exp(medians[-1]):.4f} s, mean ln speedup {logs[-1]:+.3%}")
    print(
        f"sd between processes: BF16 medians {statistics.stdev(medians):.3%}, ln speedup {statistics.stdev(logs):.3%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help=f"folder of {RECORDS}, which is appended to")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="default: all of them, in this order")
    parser.add_argument("--cache", type=Path, default=Path("compile-cache"), help="folder of compiled code")
    parser.add_argument("--estimates", type=int, default=5, help="A/A estimates of each process (default 5)")
    parser.add_argument("--table", action="store_true", help="measure nothing; print the A/A table of the records")
    parser.add_argument("--deadline", type=float, default=math.inf, help="seconds after which nothing goes on")
    parser.add_argument("--child", choices=SECTIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    if options.table:
        show(read_records(options.out / RECORDS))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    limits = {name: SECTIONS[name][1] for name in options.sections.split(",")}
    for ended in run_sections(limits, partial(command, options=options), deadline=options.deadline):
        print(ended, flush=True)


if __name__ == "__main__":
    main()
