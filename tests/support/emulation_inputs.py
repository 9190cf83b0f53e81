"""Activations, Linears and parametrizations for the tests of emulated numerics."""

import copy
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
from torchao.quantization import quantize_

from pytest_mxq.formats.emulation import numerics
from pytest_mxq.formats.emulation.numerics import NUMERICS, NumberFormat
from pytest_mxq.formats.emulation.tensor import EmulatedTensor, EmulationConfig

BF16, FP32 = torch.bfloat16, torch.float32
ALL = pytest.mark.parametrize("number_format", list(NumberFormat), ids=lambda kind: kind.value)
MX_ELEMENTS = {NumberFormat.MXFP8: torch.float8_e4m3fn, NumberFormat.MXFP4: torch.float4_e2m1fn_x2}
MX = pytest.mark.parametrize("number_format", list(MX_ELEMENTS), ids=lambda kind: kind.value)
MAGNITUDES = pytest.mark.parametrize("magnitude", [1e-28, 1e-9, 1e-3, 1.0, 37.0, 1e6, 1e30])
E2M1 = [Fraction(v) for v in ("0", "1/2", "1", "3/2", "2", "3", "4", "6")]


def normal(*shape: int, seed: int = 0, magnitude: float = 1.0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * magnitude).to(BF16)


def awkward(magnitude: float) -> Tensor:
    """Normals, and rows of ties, zeros, blocks of zeros, outliers and a wide range."""
    x = normal(64, 192, magnitude=magnitude)
    x[1] = 0
    x[2, 64:128] = 0
    x[3, ::3] = -0.0
    x[4] = (torch.arange(192) % 97 - 48).to(BF16) / 16 * magnitude
    x[5, 7] = 100 * magnitude
    x[6] = normal(192, seed=1).float().mul(3).exp().mul(magnitude).to(BF16)
    x[7] = normal(192, seed=2, magnitude=magnitude * 2.0**-12)
    return x


def linear(in_features: int = 192, out_features: int = 64, *, bias: bool = True, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, bias=bias, dtype=BF16)
    with torch.no_grad():
        layer.weight.copy_(normal(out_features, in_features, seed=seed + 10, magnitude=0.05))
        if layer.bias is not None:
            layer.bias.copy_(normal(out_features, seed=seed + 11))
    return layer.requires_grad_(requires_grad=False)


def emulated(layer: nn.Linear, number_format: NumberFormat) -> nn.Linear:
    layer = copy.deepcopy(layer)
    quantize_(layer, EmulationConfig(number_format=number_format))
    return layer


def weight_of(layer: nn.Linear) -> EmulatedTensor:
    assert isinstance(layer.weight, EmulatedTensor)
    return layer.weight


def activation(x: Tensor, number_format: NumberFormat, dtype: torch.dtype = BF16) -> numerics.Operand:
    return NUMERICS[number_format].quantize_activation(x, dtype)


def torchao_nvfp4(x: Tensor) -> tuple[Tensor, Tensor]:
    """Values without the tensor's scale (FP32), and that scale."""
    scale = per_tensor_amax_to_scale(torch.max(torch.abs(x)))
    native = NVFP4Tensor.to_nvfp4(x, per_tensor_scale=scale)
    native.per_tensor_scale = None
    values: Tensor = native.dequantize(FP32)
    return values, scale


def use_fp32_gemm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "fast_gemm_dtype", lambda _device: FP32)


def decibels(reference: Tensor, value: Tensor) -> float:
    reference, value = reference.double(), value.double()
    return float(20 * torch.log10(reference.norm() / (reference - value).norm()))
