"""What the speed and memory gates are worth on a GPU: full-size FLUX.1-dev, random weights, compiled, batch 1.

Every section is a process of its own with its own time limit, and appends what it measured to one file as it goes:

- demo-plain, demo-strict: the demo's blocks compiled with eager's roundings; strict turns every warning into an error;
- pairs-0 to pairs-3: A/A, that is BF16 against BF16, five estimates a process;
- harm: four injected slowdowns of the float8 arm, and the unharmed arm twice before them;
- sleeps: longer and longer sleeps in the float8 arm's denoiser, and the unharmed arm twice before them;
- float8: float8 against BF16 at 4 and at 28 steps, and the peak memory of each arm alone;
- canary-0 to canary-5: BF16 in short calls, before and after whole ones: whether these tell that those have moved;
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
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from gpu_speed_bench import (
    BOUNDS,
    HARM_BOUND,
    LONG_STEPS,
    RECORDS,
    SESSION_ROUNDS,
    SLEEP_SHARE,
    STEPS,
    Bench,
    chosen_layers,
    drop,
    load,
    pair,
    peak,
    prove_compiled,
    prove_quantized,
    quantized,
    warm,
    with_denoiser,
)
from gpu_speed_bits import bits, largest
from sections import read_records, run_sections, wait_for_turn
from torch import nn

from pytest_mxq.environment.device import find_device
from pytest_mxq.gates.speed_statistics import (
    DEFAULT_PROCESS_SD,
)
from pytest_mxq.models.base import SkipPattern
from pytest_mxq.models.demo import DEMO
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
    choose_layers,
    share_copy,
)
from pytest_mxq.profiling.compilation import count_compilations
from pytest_mxq.profiling.telemetry import open_telemetry
from pytest_mxq.profiling.timing import Run, time_session


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


def canary(bench: Bench) -> None:
    """Time the compiled BF16 arm as a gate would have to: short calls of a warm arm, whole ones, short ones again."""
    pipe = load(bench)
    warm(bench, "bf16", pipe)
    for steps in (STEPS, LONG_STEPS, STEPS):
        session(bench, "bf16", bench.workload(pipe, steps), steps)


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
    **{f"canary-{number}": (canary, 90) for number in range(6)},
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
