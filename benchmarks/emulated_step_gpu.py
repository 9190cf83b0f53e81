"""One denoising step of the full-size FLUX.1-dev transformer on a GPU: BF16 and each emulated format, eager, 1024x1024.

Rounds of BF16, the format by fused kernels and the same by plain operations alternate; the median counts. Beside them
the time of quantizing one activation, and the memory of a step. Random weights, the published rule.

    python benchmarks/emulated_step_gpu.py --out FILE.json                          # H100: 3 minutes
    python benchmarks/emulated_step_gpu.py --device cpu --tiny --rounds 1           # a trial; its numbers mean nothing
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tiny_recipes import TINY_RECIPES
from torch import nn

from pytest_mxq.environment.device import find_device
from pytest_mxq.formats import built_in_formats
from pytest_mxq.formats.emulation import tensor
from pytest_mxq.formats.emulation.numerics import NUMERICS, NumberFormat
from pytest_mxq.formats.emulation.path import Path as Code
from pytest_mxq.formats.emulation.path import path_of
from pytest_mxq.models import Recipe, built_in_models
from pytest_mxq.pipelines.quantize import choose_layers, quantize_layers, share_copy
from pytest_mxq.pipelines.random_weights import load_random

BATCHES = (1, 4)
TOKENS, FEATURES = 4608, 3072  # image and text tokens of 1024x1024
FORMATS = {number_format.name: number_format for number_format in built_in_formats()}
GIB = 2**30


def by_plain_operations(number_format: NumberFormat, _device: torch.device) -> Code:
    return Code(numerics=NUMERICS[number_format], text="plain operations")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def step_arguments(pipe: Any, recipe: Recipe, batch: int) -> dict[str, Any]:
    """Return what the pipeline gives to its denoiser."""
    found: list[dict[str, Any]] = []

    def collect(_module: nn.Module, _args: object, kwargs: dict[str, Any]) -> None:
        found.append(kwargs)

    handle = getattr(pipe, recipe.denoiser).register_forward_pre_hook(collect, with_kwargs=True)
    call = {**recipe.call, "num_inference_steps": 1, "output_type": "latent"}
    pipe(prompt=["a"] * batch, **call, generator=torch.Generator("cpu").manual_seed(0))
    handle.remove()
    return found[0]


def peak_gib(call: Callable[[], object], device: torch.device) -> float | None:
    """Return what a call needs beyond what is allocated."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return (torch.cuda.max_memory_allocated(device) - before) / GIB


def weights_gib(denoiser: nn.Module) -> float:
    """Return the bytes of a denoiser's weights as they lie on the device."""
    total = 0
    for parameter in denoiser.parameters():
        parts = [parameter.values, parameter.scale] if isinstance(parameter, tensor.EmulatedTensor) else [parameter]
        total += sum(part.nbytes for part in parts if part is not None)
    return total / GIB


def measure_step(base: nn.Module, arm: nn.Module, arguments: dict[str, Any], rounds: int) -> dict[str, Any]:
    device = next(base.parameters()).device

    def plain() -> Any:
        with mock.patch.object(tensor, "path_of", by_plain_operations):
            return arm(**arguments)

    arms: dict[str, Callable[[], Any]] = {
        "bf16": lambda: base(**arguments),
        "fused": lambda: arm(**arguments),
        "plain": plain,
    }
    samples: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 2):  # two warm up
        for name in sorted(arms, reverse=bool(number % 2)):
            taken = seconds(arms[name], device)
            if number >= 2:
                samples[name].append(taken)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    peaks = {name: peak_gib(arms[name], device) for name in ("bf16", "fused")}
    return {
        "ms": {name: round(1e3 * median, 2) for name, median in medians.items()},
        "fused_ratio": round(medians["fused"] / medians["bf16"], 4),
        "plain_ratio": round(medians["plain"] / medians["bf16"], 4),
        "equal_bits": torch.equal(arms["fused"]()[0], plain()[0]),
        "beyond_weights_gib": peaks,
        "weights_gib": {"bf16": weights_gib(base), "fused": weights_gib(arm)},
    }


def measure_activation(kind: NumberFormat, rows: int, features: int, device: torch.device) -> dict[str, float]:
    """Return the microseconds of quantizing one activation (``rows``, ``features``), by kernels and plain."""
    x = torch.randn(rows, features, device=device).bfloat16()
    dtype = path_of(kind, device).numerics.gemm_dtype(device)
    found = {}
    for name, numerics in (("fused", path_of(kind, device).numerics), ("plain", NUMERICS[kind])):

        def calls(numerics: Any = numerics) -> None:
            for _ in range(20):
                numerics.quantize_activation(x, dtype)

        calls()
        found[name] = round(1e6 * min(seconds(calls, device) for _ in range(5)) / 20, 1)
    return found


@torch.no_grad()
def measure(recipe: Recipe, options: argparse.Namespace) -> list[dict[str, Any]]:
    device = torch.device(options.device)
    pipe = load_random(recipe, device=options.device).pipe
    base = getattr(pipe, recipe.denoiser)
    rows: list[dict[str, Any]] = []
    given: dict[int, dict[str, Any]] = {batch: step_arguments(pipe, recipe, batch) for batch in BATCHES}
    for name, number_format in FORMATS.items():
        kind = NumberFormat(name)
        arm = share_copy(base)
        quantize_layers(arm, choose_layers(arm, recipe.rule, number_format), number_format, emulated=True)
        record: dict[str, Any] = {"format": name, "code": path_of(kind, device).text}
        features = 64 if options.tiny else FEATURES
        record["activation_us"] = {
            f"{tokens}x{features}": measure_activation(kind, tokens, features, device)
            for tokens in (TOKENS, 4 * TOKENS)
        }
        record["step"] = {f"batch {batch}": measure_step(base, arm, given[batch], options.rounds) for batch in BATCHES}
        print(json.dumps(record), flush=True)
        rows.append(record)
        del arm
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    recipes = TINY_RECIPES if options.tiny else {recipe.name: recipe for recipe in built_in_models()}
    rows = measure(recipes["flux.1-dev"], options)
    found = find_device()
    document = {
        "machine": found.name if found is not None else platform.processor(),
        "versions": {name: version(name) for name in ("torch", "torchao", "diffusers")},
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
