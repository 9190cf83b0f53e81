"""What a rule does to a model at full size, found on the meta device, and checks of published numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pytest_mxq.models import Recipe, SelectionRule, flux, ltx2, qwen_image
from pytest_mxq.models.published import PublishedRun

RATIO = {"mxfp8": 0.515625, "nvfp4": 0.28125}  # bytes of a weight with its scales, against BF16


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """One forward of a denoiser: the rows of activations that each Linear layer saw, and all floating-point work."""

    linears: dict[str, nn.Linear]
    rows: dict[str, int]
    flops: int

    def skipped(self, rule: SelectionRule) -> set[str]:
        return skipped(self.linears, rule)

    def quantized(self, rule: SelectionRule) -> set[str]:
        return self.linears.keys() - self.skipped(rule)

    def weights(self, names: set[str] | None = None) -> int:
        return sum(self.linears[name].weight.numel() for name in self._named(names))

    def work(self, names: set[str] | None = None) -> int:
        """Rows x in x out, twice: a multiplication and an addition."""
        return sum(2 * self.rows[name] * self.linears[name].weight.numel() for name in self._named(names))

    def rows_of(self, names: set[str]) -> set[int]:
        return {self.rows[name] for name in names}

    def _named(self, names: set[str] | None) -> set[str]:
        return set(self.linears) if names is None else names


def run_forward(denoiser: Any, **inputs: Any) -> Forward:
    """Run a denoiser of the meta device once."""
    rows: dict[str, int] = {}
    layers = linears(denoiser)

    def watch(name: str) -> Any:
        def note(_module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            rows[name] = given[0].numel() // given[0].shape[-1]

        return note

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        denoiser(**inputs)
    for hook in hooks:
        hook.remove()
    return Forward(linears=layers, rows=rows, flops=counter.get_total_flops())


def linears(denoiser: Any) -> dict[str, nn.Linear]:
    return {name: layer for name, layer in denoiser.named_modules() if isinstance(layer, nn.Linear)}


def skipped(layers: dict[str, nn.Linear], rule: SelectionRule) -> set[str]:
    return {name for name, layer in layers.items() if rule.skips(name, layer.in_features, layer.out_features)}


def check_speedup(run: PublishedRun, runs: tuple[PublishedRun, ...], *, rounding: float) -> None:
    """A published speedup follows from the published latencies, each rounded by at most so many seconds."""
    bf16 = _bf16(run, runs)
    lowest = (bf16.seconds - rounding) / (run.seconds + rounding)
    highest = (bf16.seconds + rounding) / (run.seconds - rounding)
    assert lowest - 0.005 <= run.speedup <= highest + 0.005


def check_memory(run: PublishedRun, runs: tuple[PublishedRun, ...], quantized_weights: int) -> None:
    """Published peaks differ from BF16's by what the rule saves."""
    saved = 2 * quantized_weights * (1 - RATIO.get(run.format, 1.0)) / 1e9
    assert _bf16(run, runs).peak_gb - run.peak_gb == pytest.approx(saved, rel=0.005)


def _bf16(run: PublishedRun, runs: tuple[PublishedRun, ...]) -> PublishedRun:
    (found,) = (other for other in runs if (other.format, other.batch_size) == ("bf16", run.batch_size))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """A model with published numbers.

    Attributes:
        recipe: its recipe.
        build: builds its pipeline at a size.
        full: its own size.
        tiny: the size for a CPU, at which 1024 of its rule is read as 320.
        inputs: what its denoiser is called with at the published size, on torch's default device.
        runs: published latencies and peaks of memory.
        rounding: by how many seconds the latencies are rounded at most.
    """

    recipe: Recipe
    build: Callable[[Any], Any]
    full: Any
    tiny: Any
    inputs: Callable[[], dict[str, Any]]
    runs: tuple[PublishedRun, ...]
    rounding: float

    def built(self, size: Any) -> Any:
        """Build the pipeline on the meta device."""
        with torch.device("meta"):
            return self.build(size)


def _flux_inputs() -> dict[str, Any]:
    """4096 tokens of the image and 512 of the text."""
    return {
        "hidden_states": torch.empty(1, 4096, 64),
        "encoder_hidden_states": torch.empty(1, 512, 4096),
        "pooled_projections": torch.empty(1, 768),
        "timestep": torch.empty(1),
        "guidance": torch.empty(1),
        "img_ids": torch.empty(4096, 3),
        "txt_ids": torch.empty(512, 3),
    }


def _qwen_image_inputs() -> dict[str, Any]:
    """One of the two forwards of a step: 4096 tokens of the image, 14 of the prompt."""
    return {
        "hidden_states": torch.empty(1, 4096, 64),
        "encoder_hidden_states": torch.empty(1, qwen_image.PROMPT_TOKENS, 3584),
        "timestep": torch.empty(1),
        "img_shapes": [[(1, 64, 64)]],
    }


VIDEOS, VIDEO, AUDIO, TEXT = 2, 16 * 16 * 24, 126, 1024  # a video and its negative one; tokens of each stream of LTX-2


def _ltx2_inputs() -> dict[str, Any]:
    return {
        "hidden_states": torch.empty(VIDEOS, VIDEO, 128),
        "audio_hidden_states": torch.empty(VIDEOS, AUDIO, 128),
        "encoder_hidden_states": torch.empty(VIDEOS, TEXT, 3840),
        "audio_encoder_hidden_states": torch.empty(VIDEOS, TEXT, 3840),
        "encoder_attention_mask": torch.empty(VIDEOS, TEXT),
        "audio_encoder_attention_mask": torch.empty(VIDEOS, TEXT),
        "timestep": torch.empty(VIDEOS),
        "video_coords": torch.empty(VIDEOS, 3, VIDEO, 2),
        "audio_coords": torch.empty(VIDEOS, 1, AUDIO, 2),
    }


PUBLISHED = {
    model.recipe.name: model
    for model in (
        PublishedModel(
            recipe=flux.FLUX_1_DEV,
            build=flux.build_flux,
            full=flux.FULL_SIZE,
            tiny=flux.TINY_SIZE,
            inputs=_flux_inputs,
            runs=flux.PUBLISHED_RUNS,
            rounding=0.005,
        ),
        PublishedModel(
            recipe=qwen_image.QWEN_IMAGE,
            build=qwen_image.build_qwen_image,
            full=qwen_image.FULL_SIZE,
            tiny=qwen_image.TINY_SIZE,
            inputs=_qwen_image_inputs,
            runs=qwen_image.PUBLISHED_RUNS,
            rounding=0.0005,
        ),
        PublishedModel(
            recipe=ltx2.LTX_2,
            build=ltx2.build_ltx2,
            full=ltx2.FULL_SIZE,
            tiny=ltx2.TINY_SIZE,
            inputs=_ltx2_inputs,
            runs=ltx2.PUBLISHED_RUNS,
            rounding=0.0005,
        ),
    )
}


@functools.cache
def full_size(name: str) -> Any:
    """Return a model's pipeline at full size on the meta device, built once a process."""
    model = PUBLISHED[name]
    return model.built(model.full)


@functools.cache
def forward_of(name: str) -> Forward:
    """Return one forward of a model's denoiser at the published size, run once a process."""
    with torch.device("meta"):
        return run_forward(full_size(name).transformer, **PUBLISHED[name].inputs())


def weights(module: Any) -> int:
    """Return the number of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
