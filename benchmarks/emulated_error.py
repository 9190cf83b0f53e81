"""How far emulated MXFP8 and NVFP4 are from BF16 in the full-size transformers, layer by layer, in dB.

Each model, with random weights and its published rule and call, runs two steps eagerly, without decoding:

- once in BF16, where every layer that is to be quantized is also computed as the format would, from the same input:
  the error of one layer alone;
- once in each format, all layers quantized: the error of the denoiser's outputs, that of all layers together. The
  second step starts from latents that already differ.

A number is 10 log10(sum of reference^2 / sum of (reference - emulated)^2), in FP32; the reference is BF16's output,
which is itself rounded (about 55 dB). Of normal numbers, one layer is at 28.5 to 29 dB in MXFP8 and at about 17 in
NVFP4. Random weights are normal, and trained ones are not: their outliers are not in these numbers.

An emulated weight takes no less than BF16's, so each is made when its layer is called, and freed after it. Resident are
the BF16 weights without text encoders (22, 38 and 41 GiB) and what one layer needs: a GPU of 80 GB has enough memory.

Every model is a process of its own with a time limit. Its numbers are appended to emulated-error.jsonl with each call
of the denoiser; after each model emulated-error.json and emulated-error.md sum up all that there is.

    python benchmarks/emulated_error.py --out results/                              # on a GPU, two minutes
    python benchmarks/emulated_error.py --out results/ --models ltx-2 --frames 49   # one model, fewer frames
    python benchmarks/emulated_error.py --out trial/ --device cpu --tiny            # a trial with tiny models
    python benchmarks/emulated_error.py --out results/ --table                      # sum up once more
"""

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from sections import Recorder, read_records, run_sections, wait_for_turn
from tiny_recipes import TINY_RECIPES
from torch import Tensor, nn
from torch.nn import functional

from pytest_mxq.environment.device import find_device
from pytest_mxq.formats.emulation.numerics import NumberFormat
from pytest_mxq.formats.emulation.tensor import EmulatedTensor
from pytest_mxq.formats.mxfp8 import MXFP8
from pytest_mxq.formats.nvfp4 import NVFP4
from pytest_mxq.models import Recipe, built_in_models
from pytest_mxq.pipelines.quantize import choose_layers
from pytest_mxq.pipelines.random_weights import load_random

STEPS = 2
FORMATS = {MXFP8.name: MXFP8, NVFP4.name: NVFP4}
LIMITS = {"flux.1-dev": 120.0, "qwen-image": 150.0, "ltx-2": 180.0}
"""Seconds of each model's process."""
OUTPUTS = {"ltx-2": ("video", "audio")}
SHOWN = ("height", "width", "num_frames", "max_sequence_length")
SPREAD = ("min", "median", "max")
RECORDS = "emulated-error.jsonl"

Layers = Mapping[str, nn.Linear]
Outputs = list[tuple[Tensor, ...]]
Run = Callable[[], object]


def chosen_layers(denoiser: nn.Module, recipe: Recipe, name: str) -> Layers:
    """Return the layers that a format quantizes, by name."""
    modules: dict[str, Any] = dict(denoiser.named_modules())
    return {layer: modules[layer] for layer in choose_layers(denoiser, recipe.rule, FORMATS[name]).names}


def emulate(layer: nn.Linear, x: Tensor, name: str) -> Tensor:
    """Return what a layer computes in a format; its quantized weight lives as long as this call."""
    weight = EmulatedTensor.from_weight(layer.weight, NumberFormat(name))
    return functional.linear(x, weight, layer.bias)


def decibels(reference: Tensor, other: Tensor) -> float:
    """Return signal over error in dB; infinite where they are equal, NaN where one is not finite."""
    reference = reference.float()
    signal, error = map(torch.linalg.vector_norm, (reference, reference - other.float()))
    return 20 * torch.log10(signal / error).item()


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_bf16(run: Run, denoiser: nn.Module, chosen: Mapping[str, Layers], recorder: Recorder) -> Outputs:
    """Run in BF16, record the error of each chosen layer alone, and return what the denoiser returned at each call."""
    found: dict[str, dict[str, float]] = {name: {} for name in chosen}
    outputs: Outputs = []

    def compare(layer: nn.Linear, given: tuple[Tensor], out: Tensor, *, name: str, layer_name: str) -> None:
        found[name][layer_name] = decibels(out, emulate(layer, given[0], name))

    def collect(_module: nn.Module, _given: object, out: tuple[Tensor, ...]) -> None:
        outputs.append(out)
        for name, values in found.items():
            recorder.record("layers", format=name, call=len(outputs), chosen=len(chosen[name]), db=values)
            values.clear()

    comparisons = [
        (layer, partial(compare, name=name, layer_name=layer_name))
        for name, layers in chosen.items()
        for layer_name, layer in layers.items()
    ]
    with hooked([*comparisons, (denoiser, collect)]):
        run()
    return outputs


def run_emulated(run: Run, denoiser: nn.Module, layers: Layers, name: str, bf16: Outputs) -> Iterator[list[float]]:
    """Run with every chosen layer in a format; the errors of what the denoiser returns, call by call."""
    outputs: Outputs = []
    emulations = [(layer, lambda layer, given, _out: emulate(layer, given[0], name)) for layer in layers.values()]
    with hooked([*emulations, (denoiser, lambda _module, _given, out: outputs.append(out))]):
        run()
    for reference, out in zip(bf16, outputs, strict=True):
        yield [decibels(*pair) for pair in zip(reference, out, strict=True)]


@torch.no_grad()
def measure(recipe: Recipe, recorder: Recorder, options: argparse.Namespace) -> None:
    """Measure one model, from its weights to its last record."""
    call = {**recipe.call, "num_inference_steps": STEPS, "output_type": "latent"}
    if "num_frames" in call and options.frames is not None:
        call["num_frames"] = options.frames
    with timed(recorder, "building"):
        pipe = load_random(recipe, device=options.device).pipe
        if recipe.prepare is not None:
            recipe.prepare(pipe)
    denoiser = getattr(pipe, recipe.denoiser)
    chosen = {name: chosen_layers(denoiser, recipe, name) for name in FORMATS}

    def run() -> None:
        pipe(prompt="a", **call, generator=torch.Generator("cpu").manual_seed(0))

    with timed(recorder, "bf16, and each layer in each format"):
        outputs = run_bf16(run, denoiser, chosen, recorder)
    for name, layers in chosen.items():
        with timed(recorder, f"{name}, all layers"):
            for index, errors in enumerate(run_emulated(run, denoiser, layers, name, outputs), 1):
                recorder.record("denoiser", format=name, call=index, calls=len(outputs), db=errors)
    shown = {key: call[key] for key in SHOWN if key in call}
    recorder.record("done", **shown, sampled_steps=STEPS)


@contextmanager
def timed(recorder: Recorder, what: str) -> Iterator[None]:
    """Record how long the block took, and the peak of allocated memory so far."""
    start, on_gpu = time.perf_counter(), torch.cuda.is_available()
    yield
    if on_gpu:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None
    recorder.record("seconds", of=what, seconds=time.perf_counter() - start, peak_gib=peak)


def child(options: argparse.Namespace) -> None:
    """Measure one model once the parent says so."""
    wait_for_turn()
    recorder = Recorder(section=options.child, path=options.out / RECORDS)
    packages = {name: version(name) for name in ("torch", "torchao", "diffusers")}
    recorder.record("machine", device=find_device().name, python=platform.python_version(), packages=packages)
    recipes = TINY_RECIPES if options.tiny else {recipe.name: recipe for recipe in built_in_models()}
    measure(recipes[options.child], recorder, options)


def by_model(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the records of each model's latest process."""
    latest: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        if record["what"] == "machine":
            latest[record["section"]] = []
        latest[record["section"]].append(record)
    return latest


def kind_of(layer: str) -> str:
    """Return a layer's name without its numbers.

    >>> kind_of("transformer_blocks.12.norm1.linear")
    'transformer_blocks.*.norm1.linear'
    """
    return ".".join("*" if part.isdecimal() else part for part in layer.split("."))


def layer_errors(records: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for each kind of layer and each format how many layers, and the dB over all calls."""
    names: dict[str, set[str]] = {}
    values: dict[str, dict[str, list[float]]] = {}
    for record in records:
        for layer, db in record["db"].items() if record["what"] == "layers" else ():
            for kind in (kind_of(layer), "all"):
                names.setdefault(kind, set()).add(layer)
                values.setdefault(kind, {}).setdefault(record["format"], []).append(db)
    return {
        kind: {name: spread(numbers, len(names[kind])) for name, numbers in formats.items()}
        for kind, formats in values.items()
    }


def spread(values: list[float], layers: int) -> dict[str, Any]:
    return {
        "layers": layers,
        "values": len(values),
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
    }


def output_errors(model: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return for each output of each denoiser call the dB by format."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for record in records:
        for index, db in enumerate(record["db"]) if record["what"] == "denoiser" else ():
            step = math.ceil(record["call"] * STEPS / record["calls"])
            output = OUTPUTS.get(model, ("image",))[index]
            row = rows.setdefault((record["call"], index), {"step": step, "call": record["call"], "output": output})
            row[record["format"]] = db
    return list(rows.values())


def summarise(folder: Path) -> None:
    """Write what the records say so far, as JSON and as Markdown."""
    models = {
        model: {
            "facts": [record for record in records if record["what"] in {"machine", "seconds", "done"}],
            "layers": layer_errors(records),
            "denoiser": output_errors(model, records),
        }
        for model, records in by_model(read_records(folder / RECORDS)).items()
    }
    (folder / "emulated-error.json").write_text(json.dumps(models, indent=1) + "\n")
    text = "".join(markdown(model, found) for model, found in models.items())
    (folder / "emulated-error.md").write_text(f"# Emulated formats against BF16: signal over error, dB\n{text}")


def markdown(model: str, found: dict[str, Any]) -> str:
    machine = found["facts"][0]
    took = [
        f"{fact['of']} {fact['seconds']:.1f} s" + (f" (peak {fact['peak_gib']:.1f} GiB)" if fact["peak_gib"] else "")
        for fact in found["facts"]
        if fact["what"] == "seconds"
    ]
    done = [
        ", ".join(f"{key} {fact[key]}" for key in (*SHOWN, "sampled_steps") if key in fact)
        for fact in found["facts"]
        if fact["what"] == "done"
    ]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    lines = [
        f"## {model}",
        f"{machine['device']}; {packages}; {done[0] if done else 'not run to its end'}. {'; '.join(took)}.",
        table(
            ("layer alone, same input", "layers", *(f"{name} {what}" for name in FORMATS for what in SPREAD)),
            [layer_row(kind, formats) for kind, formats in sorted(found["layers"].items())],
        ),
        table(
            ("all layers: the denoiser's", "step", "call", *FORMATS),
            [
                (row["output"], row["step"], row["call"], *(number(row.get(name)) for name in FORMATS))
                for row in found["denoiser"]
            ],
        ),
    ]
    return "".join(f"\n{line}\n" for line in lines)


def layer_row(kind: str, formats: dict[str, dict[str, Any]]) -> tuple[object, ...]:
    layers = max(numbers["layers"] for numbers in formats.values())
    return f"`{kind}`", layers, *(number(formats.get(name, {}).get(what)) for name in FORMATS for what in SPREAD)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def table(head: tuple[object, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def command(model: str, options: argparse.Namespace) -> list[str]:
    arguments = [__file__, "--child", model, "--device", options.device, "--out", str(options.out)]
    arguments += ["--tiny"] if options.tiny else []
    return arguments + ([] if options.frames is None else ["--frames", str(options.frames)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help=f"folder of {RECORDS}, which is appended to")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models: a trial")
    parser.add_argument("--models", default=",".join(LIMITS), help="default: all of them, in this order")
    parser.add_argument("--frames", type=int, help="frames of a video (default: as published)")
    parser.add_argument("--table", action="store_true", help="measure nothing; sum up the records")
    parser.add_argument("--deadline", type=float, default=math.inf, help="seconds after which nothing goes on")
    parser.add_argument("--child", choices=LIMITS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.table:
        limits = {model: LIMITS[model] for model in options.models.split(",")}
        for ended in run_sections(limits, partial(command, options=options), deadline=options.deadline):
            print(ended, flush=True)
            summarise(options.out)
    summarise(options.out)


if __name__ == "__main__":
    main()
