"""Formats of a test's own, wrong in the ways that guards must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torchao.core.config import AOBaseConfig
from torchao.quantization.transform_module import register_quantize_module_handler
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.formats import Format


def own_format(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Format:
    """A format of weights alone whose emulation changes them as it is told, in a torchao tensor."""
    return Format(
        name=name,
        summary="",
        capability=(99, 0),
        in_multiple=1,
        out_multiple=1,
        native=object,
        weight_only=True,
        emulation=lambda: _OwnConfig(change),
    )


class _Wrapped(TorchAOBaseTensor):
    tensor_data_names = ["values"]  # noqa: RUF012  torchao's own way to declare it
    tensor_attribute_names: list[str] = []  # noqa: RUF012

    def __new__(cls, values: torch.Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, device=values.device)

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values


@_Wrapped.implements_torch_function(torch.nn.functional.linear)
def _(_func: Any, _types: Any, args: Any, kwargs: Any) -> torch.Tensor:
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    return torch.nn.functional.linear(args[0], args[1].values, bias)


class _OwnConfig(AOBaseConfig):
    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.change = change


@register_quantize_module_handler(_OwnConfig)
def _transform(module: torch.nn.Module, config: _OwnConfig) -> torch.nn.Module:
    weight: Any = module.weight
    module.weight = torch.nn.Parameter(_Wrapped(config.change(weight.detach())), requires_grad=False)
    return module
