"""What a rule does to a model at full size, found on the meta device, and checks of published numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pytest_mxq.models import SelectionRule
from pytest_mxq.models.published import PublishedRun

RATIO = {"mxfp8": 0.515625, "nvfp4": 0.28125}  # bytes of a weight with its scales, against BF16


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """One forward of a denoiser: the rows of activations that each Linear layer saw, and all floating-point work."""

    linears: dict[str, nn.Linear]
    rows: dict[str, int]
    flops: int

    def kept(self, rule: SelectionRule) -> set[str]:
        return kept(self.linears, rule)

    def quantized(self, rule: SelectionRule) -> set[str]:
        return self.linears.keys() - self.kept(rule)

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


def kept(layers: dict[str, nn.Linear], rule: SelectionRule) -> set[str]:
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
