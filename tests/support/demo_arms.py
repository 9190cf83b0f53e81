"""The packaged demo's arms, built once for the tests that observe or change pipelines."""

from __future__ import annotations

import functools
from typing import Any

import torch

from pytest_mxq.formats import built_in_formats
from pytest_mxq.models import ModelSource
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines.cache import Arm, ArmStore

_FORMATS = {number_format.name: number_format for number_format in built_in_formats()}


@functools.cache
def base_store() -> ArmStore:
    """The store whose base and latest quantized arm all callers share."""
    return ArmStore("cpu")


def demo_arm(format_name: str | None, store: ArmStore | None = None) -> Arm:
    """The demo's arm in a format, emulated; None: in BF16."""
    number_format = None if format_name is None else _FORMATS[format_name]
    return (store or base_store()).arm(ModelSource(recipe=DEMO), number_format, emulated=True)


def call_demo(pipe: Any, *, steps: int = 2, size: int = 64, count: int = 1, **arguments: Any) -> torch.Tensor:
    """Generate small images of the demo's first prompts with seeds 0, 1, ...: (count, 3, size, size)."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(count)]
    call = {**DEMO.call, "height": size, "width": size, "num_inference_steps": steps, **arguments}
    with torch.no_grad():
        images: torch.Tensor = pipe(
            prompt=list(DEMO.prompts[:count]), generator=generators, output_type="pt", **call
        ).images
    return images
