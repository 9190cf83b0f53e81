"""Which small workload is steady enough to tell that a machine moved: a canary must be steadier than what it guards.

Every candidate is measured several times before and after a load of long matrix products, in several processes in a
row. The table shows each process's median and the relative range, (highest - lowest) / median, of the readings within a
process and over all processes. A canary with a range above 1 % would cry wolf.

    python benchmarks/gpu_canary.py --out gpu_canary.json          # on a GPU, under 90 seconds
    python benchmarks/gpu_canary.py --device cpu --load-seconds 1  # a trial with tiny sizes
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel

from pytest_mxq.environment.device import find_device
from pytest_mxq.profiling.telemetry import Telemetry, open_telemetry
from pytest_mxq.profiling.timing import Clock, cpu_clock, cuda_clock

STEADY = 0.01
SAMPLES = 5
"""Timed runs behind one reading, which is their median; two runs before them are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the candidates are."""

    copy_bytes: int
    burst_side: int
    burst_products: int
    large_side: int
    tokens: int
    heads: int


SIZES = {
    "cuda": Sizes(copy_bytes=2**30, burst_side=2048, burst_products=800, large_side=8192, tokens=4096, heads=24),
    "cpu": Sizes(copy_bytes=2**22, burst_side=64, burst_products=8, large_side=256, tokens=64, heads=2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One candidate: the readings of each process, before and after the load, in milliseconds."""

    candidate: str
    before_ms: list[list[float]]
    after_ms: list[list[float]]

    @property
    def processes(self) -> list[list[float]]:
        """Return every reading of each process."""
        return [before + after for before, after in zip(self.before_ms, self.after_ms, strict=True)]

    @property
    def medians_ms(self) -> list[float]:
        """Return the median reading of each process."""
        return [statistics.median(readings) for readings in self.processes]

    @property
    def within(self) -> float:
        """Return the largest relative range within a process."""
        return max(relative_range(readings) for readings in self.processes)

    @property
    def load_shift(self) -> float:
        """Return the largest relative change of a process's median from before the load to after it."""
        pairs = zip(self.before_ms, self.after_ms, strict=True)
        return max((statistics.median(after) / statistics.median(before) - 1 for before, after in pairs), key=abs)

    @property
    def overall(self) -> float:
        """Return the relative range of all readings of all processes: what a reader of one reading must expect."""
        return relative_range([reading for readings in self.processes for reading in readings])


def relative_range(values: list[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)


def products(device: str, side: int, count: int) -> Callable[[], object]:
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16, generator=generator) for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        for _ in range(count):
            torch.mm(a, b, out=out)

    return run


def copies(device: str, size: int) -> Callable[[], object]:
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def run() -> None:
        for _ in range(10):
            target.copy_(source)

    return run


def denoising_steps(device: str, tokens: int, heads: int) -> Callable[[], object]:
    """Run four eager steps of a transformer of FLUX.1-dev's width (24 heads), two double and four single blocks."""
    torch.manual_seed(0)
    with torch.device(device):
        model = FluxTransformer2DModel(
            num_layers=2, num_single_layers=4, num_attention_heads=heads, joint_attention_dim=256, guidance_embeds=True
        ).to(torch.bfloat16)
    model.eval().requires_grad_(requires_grad=False)
    bf16: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
    latents, prompt = torch.randn(1, tokens, 64, **bf16), torch.randn(1, tokens // 8, 256, **bf16)
    call = {
        "encoder_hidden_states": prompt,
        "pooled_projections": torch.randn(1, 768, **bf16),
        "timestep": torch.ones(1, **bf16),
        "guidance": torch.full([1], 3.5, device=device),
        "txt_ids": torch.zeros(tokens // 8, 3, **bf16),
        "img_ids": torch.zeros(tokens, 3, **bf16),
    }

    @torch.no_grad()
    def run() -> None:
        current = latents
        for _ in range(4):
            current = current + 0.1 * model(current, **call).sample

    return run


def candidates(device: str) -> dict[str, Callable[[], object]]:
    sizes = SIZES[device]
    return {
        "10 copies of 1 GiB": copies(device, sizes.copy_bytes),
        "burst of 2048^3 products": products(device, sizes.burst_side, sizes.burst_products),
        "4 BF16 denoising steps": denoising_steps(device, sizes.tokens, sizes.heads),
        "10 products of 8192^3": products(device, sizes.large_side, 10),
    }


def read(run: Callable[[], object], clock: Clock) -> float:
    """Take one reading in milliseconds of a GPU that has just been idle."""
    time.sleep(0.05)
    seconds = []
    for _ in range(2 + SAMPLES):
        clock.synchronize()
        start = clock.now()
        run()
        clock.synchronize()
        seconds.append(clock.now() - start)
    return statistics.median(seconds[2:]) * 1e3


def read_all(
    runs: dict[str, Callable[[], object]], clock: Clock, telemetry: Telemetry, repeats: int
) -> tuple[dict[str, list[float]], list[str | None]]:
    """Return the readings of every candidate, and what the telemetry reported of them."""
    readings: dict[str, list[float]] = {name: [] for name in runs}
    notes = []
    for _ in range(repeats):
        for name, run in runs.items():
            readings[name].append(read(run, clock))
            notes.append(telemetry.inspect())
    return readings, notes


def child(options: argparse.Namespace) -> None:
    """Measure in this process, once the parent says so: imports of one process must not disturb another's readings."""
    print("ready", flush=True)
    sys.stdin.readline()
    gc.disable()
    runs = candidates(options.device)
    clock = cuda_clock() if options.device == "cuda" else cpu_clock()
    load = products(options.device, SIZES[options.device].large_side, 10)
    for run in runs.values():
        read(run, clock)
    with open_telemetry(find_device()) as telemetry:
        notes = [telemetry.before_start()]
        before, said_before = read_all(runs, clock, telemetry, options.repeats)
        end = clock.now() + options.load_seconds
        while clock.now() < end:
            load()
            clock.synchronize()
        said_of_load = telemetry.inspect()
        after, said_after = read_all(runs, clock, telemetry, options.repeats)
        summary = asdict(telemetry.summary())
    notes += [*said_before, said_of_load, *said_after]
    print(json.dumps({"before": before, "after": after, "telemetry": summary, "notes": list(filter(None, notes))}))


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, "--child", "--device", options.device, "--repeats", str(options.repeats)]
    command += ["--load-seconds", str(options.load_seconds)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(options.processes)]
    for process in children:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise SystemExit("a child process failed to start; its error stands above")
    results = []
    for process in children:
        out, _ = process.communicate("go\n")
        if process.returncode:
            raise SystemExit(f"a child process failed with exit status {process.returncode}")
        results.append(json.loads(out))
    return results


def show(rows: list[Row]) -> None:
    print(f"{'candidate':26} {'medians ms':28} {'within':>8} {'by load':>8} {'overall':>8}")
    for row in rows:
        medians = " ".join(f"{value:.3f}" for value in row.medians_ms)
        print(f"{row.candidate:26} {medians:28} {row.within:8.2%} {row.load_shift:+8.2%} {row.overall:8.2%}")
    steady = [row.candidate for row in rows if row.overall < STEADY]
    print(f"\nsteadier than {STEADY:.0%}: {', '.join(steady) or 'none: the reference must be measured live'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(SIZES), default="cuda")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="readings before the load and after it (default 3)")
    parser.add_argument("--load-seconds", type=float, default=15.0)
    parser.add_argument("--out", type=Path, help="write every reading as JSON")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options)
    start = time.monotonic()
    results = measure(options)
    rows = [
        Row(
            candidate=name,
            before_ms=[result["before"][name] for result in results],
            after_ms=[result["after"][name] for result in results],
        )
        for name in results[0]["before"]
    ]
    show(rows)
    for result in results:
        print(f"{result['telemetry']} {result['notes']}")
    print(f"{time.monotonic() - start:.0f} s in all")
    if options.out:
        device = find_device()
        facts = {"device": device.name, **device.facts, "torch": version("torch"), "diffusers": version("diffusers")}
        table = [
            asdict(row) | {"within": row.within, "load_shift": row.load_shift, "overall": row.overall} for row in rows
        ]
        telemetry = [{"telemetry": result["telemetry"], "notes": result["notes"]} for result in results]
        options.out.write_text(json.dumps({"facts": facts, "rows": table, "processes": telemetry}, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
