"""Whether the activation was quantized is seen at the operands of the product, whatever a weight's class states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_denoiser import LAYERS, Denoiser, observed, quantized
from torch.nn import functional
from torchao.core.config import AOBaseConfig
from torchao.quantization.transform_module import register_quantize_module_handler
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.pipelines.products import Multiplication


class OwnTensor(TorchAOBaseTensor):  # type: ignore[misc]  # torchao ships no types
    """A weight of somebody's own: it states the bytes of a native format, as ours do, and nothing of activations."""

    tensor_data_names = ["values"]  # noqa: RUF012  torchao's own way to declare it
    tensor_attribute_names = ["step"]  # noqa: RUF012
    native_bytes = 1

    def __new__(cls, values: torch.Tensor, _step: float) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, device=values.device)

    def __init__(self, values: torch.Tensor, step: float) -> None:
        self.values = values
        self.step = step


def rounded(x: torch.Tensor, step: float) -> torch.Tensor:
    return x if step == 0 else (x / step).round() * step


@OwnTensor.implements_torch_function(functional.linear)  # type: ignore[untyped-decorator]
def _(_func: Any, _types: Any, args: Any, _kwargs: Any) -> torch.Tensor:
    x, weight = args[:2]
    return functional.linear(rounded(x, weight.step), weight.values)


class OwnConfig(AOBaseConfig):  # type: ignore[misc]
    """Rounds weights to eighths, and activations to multiples of a step; 0: not at all."""

    def __init__(self, step: float) -> None:
        self.step = step


@register_quantize_module_handler(OwnConfig)  # type: ignore[untyped-decorator]
def _transform(module: torch.nn.Module, config: OwnConfig) -> torch.nn.Module:
    weight: Any = module.weight
    tensor = OwnTensor(rounded(weight.detach(), 1 / 8), config.step)
    module.weight = torch.nn.Parameter(tensor, requires_grad=False)
    return module


@pytest.mark.parametrize(("step", "multiplied"), [(1 / 8, Multiplication.EMULATED), (0, Multiplication.DEQUANTIZED)])
def test_an_own_emulation_is_one_if_it_changes_the_activation(step: float, multiplied: Multiplication) -> None:
    execution = observed(quantized(Denoiser(), config=OwnConfig(step)))
    assert (execution.layers, execution.multiplied) == (LAYERS, multiplied)
