"""What one generator per call does to LPIPS, on the demo model: the published comparison, and ours.

The published LPIPS compares BF16 images of batches of 32 with NVFP4 images of batches of 16, each call generation from
one generator that is seeded again (sayakpaul/diffusers-blackwell-quants at 9fefb07). A prompt's noise then belongs to
its place in the batch: prompts 17 to 32 of every BF16 batch are the first ones of an NVFP4 batch, and start from other
noise. Here 200 prompts of the demo's grammar are generated so, and with one generator per image, as gates do.

    python benchmarks/generator_composition.py --out generator_composition.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from statistics import mean
from typing import Any

import torch

from pytest_mxq.formats import built_in_formats
from pytest_mxq.metrics.images import to_uint8
from pytest_mxq.metrics.lpips import Lpips
from pytest_mxq.models import ModelSource
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines.cache import ArmStore
from pytest_mxq.pipelines.generate import Series, generate

PROMPTS = 200  # as many as DrawBench has
NVFP4 = next(number_format for number_format in built_in_formats() if number_format.name == "nvfp4")
FILLS, BACKGROUNDS = ("plain", "striped", "checkered"), ("plain", "gradient")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "black", "cyan", "pink")
SHAPES, PLACES = ("circle", "square", "triangle", "ring", "cross", "star"), ("left", "right", "top", "bottom", "center")


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The images of all prompts, uint8 (N, 3, H, W), and the latents that each started from."""

    images: torch.Tensor
    noise: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison of NVFP4 with BF16.

    Attributes:
        other_noise: share of the prompts whose two images start from other noise.
        lpips: mean over all prompts.
        lpips_same_noise, lpips_other_noise: mean over the prompts of each kind; None where there are none.
    """

    generators: str
    bf16_batch: int
    nvfp4_batch: int
    other_noise: float
    lpips: float
    lpips_same_noise: float | None
    lpips_other_noise: float | None


def demo_prompts(count: int) -> tuple[str, ...]:
    scenes = product(("large", "small"), FILLS, COLOURS, SHAPES, PLACES, BACKGROUNDS, COLOURS)
    texts = [
        f"a {size} {fill} {colour} {shape} at the {place} on a {ground} {behind} background"
        for size, fill, colour, shape, place, ground, behind in scenes
        if colour != behind
    ]
    return tuple(random.Random(0).sample(texts, count))


@contextmanager
def recorded_noise(pipe: Any) -> Iterator[list[torch.Tensor]]:
    """Return the latents that every call starts from, in the order of the images."""
    rows: list[torch.Tensor] = []
    prepare = pipe.prepare_latents

    def recording(*arguments: Any, **named: Any) -> Any:
        result = prepare(*arguments, **named)
        rows.extend(result[0].clone())
        return result

    pipe.prepare_latents = recording
    try:
        yield rows
    finally:
        del pipe.prepare_latents


def generated_by_one_generator(pipe: Any, prompts: tuple[str, ...], batch: int) -> torch.Tensor:
    """Generate as published: the generator is seeded before every call, and serves the whole batch."""
    images = [
        pipe(
            prompt=list(prompts[start : start + batch]),
            **DEMO.call,
            generator=torch.Generator("cpu").manual_seed(0),
            output_type="pt",
        ).images
        for start in range(0, len(prompts), batch)
    ]
    return torch.cat(images)


def generated_by_one_each(pipe: Any, prompts: tuple[str, ...], batch: int) -> torch.Tensor:
    series = Series(prompts=prompts, batch_size=batch, seed=0)
    return generate(lambda bound, prompt: bound(prompt), pipe, DEMO.call, series).images


GENERATED = {"one a call, seeded again": generated_by_one_generator, "one an image": generated_by_one_each}


def images(pipe: Any, prompts: tuple[str, ...], generators: str, batch: int) -> Images:
    with recorded_noise(pipe) as noise, torch.no_grad():
        images = GENERATED[generators](pipe, prompts, batch)
    return Images(images=to_uint8(images.float()), noise=torch.stack(noise))


def compared(bf16: Images, nvfp4: Images, metric: Lpips) -> tuple[list[float], list[bool]]:
    same = [torch.equal(one, other) for one, other in zip(bf16.noise, nvfp4.noise, strict=True)]
    return metric.distances(bf16.images, nvfp4.images), same


def measure(prompts: tuple[str, ...], large: int, small: int) -> list[Row]:
    store, metric, source = ArmStore("cpu"), Lpips(), ModelSource(recipe=DEMO)
    pipes = {
        "bf16": store.arm(source, None, emulated=True).pipe,
        "nvfp4": store.arm(source, NVFP4, emulated=True).pipe,
    }
    rows = []
    for generators in GENERATED:
        nvfp4 = images(pipes["nvfp4"], prompts, generators, small)
        for batch in (large, small):
            values, same = compared(images(pipes["bf16"], prompts, generators, batch), nvfp4, metric)
            equal_noise = [value for value, equal in zip(values, same, strict=True) if equal]
            moved = [value for value, equal in zip(values, same, strict=True) if not equal]
            rows.append(
                Row(
                    generators=generators,
                    bf16_batch=batch,
                    nvfp4_batch=small,
                    other_noise=len(moved) / len(prompts),
                    lpips=mean(values),
                    lpips_same_noise=mean(equal_noise) if equal_noise else None,
                    lpips_other_noise=mean(moved) if moved else None,
                )
            )
    return rows


def shown(rows: list[Row]) -> str:
    lines = ["generators                BF16 batch  NVFP4 batch  other noise  LPIPS   same noise  other noise"]
    for row in rows:
        batches = f"{row.bf16_batch:10}  {row.nvfp4_batch:11}"
        kinds = [row.lpips_same_noise, row.lpips_other_noise]
        same, other = (f"{value:.4f}" if value is not None else "-" for value in kinds)
        lines.append(
            f"{row.generators:24}  {batches}  {row.other_noise:11.0%}  {row.lpips:.4f}  {same:>10}  {other:>11}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--out", type=argparse.FileType("w"), help="write the numbers as JSON")
    options = parser.parse_args()
    rows = measure(demo_prompts(options.prompts), large=32, small=16)
    print(shown(rows))
    if options.out:
        result = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
            "versions": {name: version(name) for name in ("torch", "torchao", "diffusers", "lpips")},
            "prompts": options.prompts,
            "rows": [asdict(row) for row in rows],
        }
        options.out.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
