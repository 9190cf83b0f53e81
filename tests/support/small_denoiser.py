"""A denoiser of four Linears, quantized and observed in milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torchao.quantization import quantize_

from pytest_mxq.formats.emulation.numerics import NumberFormat
from pytest_mxq.formats.emulation.tensor import EmulationConfig
from pytest_mxq.pipelines.execution import Execution
from pytest_mxq.pipelines.observe import observe_execution
from pytest_mxq.pipelines.quantize import share_copy

MXFP8 = EmulationConfig(number_format=NumberFormat.MXFP8)
ROWS, WIDTH = 6, 128
ONE = ROWS * WIDTH * WIDTH  # multiplications of one Linear


class Block(nn.Module):
    """Two Linears with attention scores between them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, WIDTH)
        self.down = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.up(x)
        scores = torch.softmax(hidden @ hidden.transpose(-1, -2), -1)
        down: torch.Tensor = self.down(scores @ hidden)
        return down


class Denoiser(nn.Module):
    """Two blocks; nothing but their four Linears has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.to(torch.bfloat16).requires_grad_(requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


LAYERS = ("blocks.0.down", "blocks.0.up", "blocks.1.down", "blocks.1.up")


def sample() -> torch.Tensor:
    return torch.randn(2, ROWS // 2, WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()


def quantized(original: nn.Module | None = None, config: Any = MXFP8, only: str = "") -> Any:
    copied = share_copy(original or Denoiser())
    quantize_(copied, config, filter_fn=lambda module, name: isinstance(module, nn.Linear) and only in name)
    return copied


def observed(denoiser: nn.Module, run: Callable[[Any], None] | None = None, calls: int = 1) -> Execution:
    """What a denoiser ran; ``run`` is called between its calls."""
    with torch.no_grad(), observe_execution(SimpleNamespace(transformer=denoiser), ["transformer"]) as recorder:
        for call in range(calls):
            if call and run is not None:
                run(denoiser)
            denoiser(sample())
    return recorder.execution


def _matmul(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.matmul(x, weight.t())


def scripted(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply in a scripted function, which no torch function mode sees."""
    if not _SCRIPTED:
        with pytest.warns(FutureWarning):
            _SCRIPTED.append(torch.jit.script(_matmul))
    result: torch.Tensor = _SCRIPTED[0](x, weight)
    return result


_SCRIPTED: list[Any] = []
