"""Emulated activations against each format's definition and torchao's own primitives, bit by bit."""

from bisect import bisect_left
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from emulation_inputs import (
    ALL,
    BF16,
    E2M1,
    FP32,
    MAGNITUDES,
    MX,
    MX_ELEMENTS,
    activation,
    awkward,
    emulated,
    linear,
    normal,
    torchao_nvfp4,
)
from torchao.prototype.mx_formats.mx_tensor import MXTensor, ScaleCalculationMode
from torchao.quantization import PerRow
from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor

from pytest_mxq.formats.emulation import numerics
from pytest_mxq.formats.emulation.numerics import NumberFormat


@MX
@MAGNITUDES
def test_mx_activation_equals_torchao_bit_by_bit(number_format: NumberFormat, magnitude: float) -> None:
    x = awkward(magnitude)
    native = MXTensor.to_mx(x, MX_ELEMENTS[number_format], 32, scaling_mode=ScaleCalculationMode.RCEIL)
    assert torch.equal(activation(x, number_format).values, native.dequantize(BF16))


@MX
def test_mx_rounds_every_bf16_number_as_torchao_does(number_format: NumberFormat) -> None:
    """Every significand at 24 exponents under each of three amaxes, and every amax between 2**-110 and 2**119."""
    exponents = torch.arange(127 - 20, 127 + 4)
    numbers = ((exponents[:, None] << 7) + torch.arange(128)).flatten().to(torch.int16).view(BF16)
    blocks = torch.zeros(len(numbers) // 16, 3, 32, dtype=BF16)
    blocks[:, :, :16] = numbers.view(-1, 1, 16)
    blocks[:, :, 16] = torch.tensor([15.9375, 14.0, 14.0625])
    amaxes = torch.zeros((119 + 110) * 128, 32, dtype=BF16)
    amaxes[:, 0] = (((127 - 110) << 7) + torch.arange(len(amaxes))).to(torch.int16).view(BF16)
    amaxes[:, 1:] = amaxes[:, :1] * torch.linspace(-1, 1, 31).to(BF16)
    x = torch.cat([blocks.view(-1, 32), -blocks.view(-1, 32), amaxes])
    native = MXTensor.to_mx(x, MX_ELEMENTS[number_format], 32, scaling_mode=ScaleCalculationMode.RCEIL)
    assert torch.equal(activation(x, number_format).values, native.dequantize(BF16))


@MX
def test_mx_activation_of_several_pieces_equals_torchao_bit_by_bit(number_format: NumberFormat) -> None:
    x = awkward(1.0).repeat(30, 1)
    assert x.numel() > 2 * numerics._PIECE
    native = MXTensor.to_mx(x, MX_ELEMENTS[number_format], 32, scaling_mode=ScaleCalculationMode.RCEIL)
    assert torch.equal(activation(x, number_format).values, native.dequantize(BF16))


def test_nvfp4_activation_of_several_pieces_has_one_scale() -> None:
    """The largest magnitude lies in the last piece, and every piece is scaled by it."""
    x = awkward(1.0).repeat(30, 1)
    assert x.numel() > 2 * numerics._PIECE
    x[-1, -1] = 5000
    values, scale = torchao_nvfp4(x)
    mine = activation(x, NumberFormat.NVFP4)
    assert mine.scale is not None
    assert torch.equal(mine.scale, scale)
    assert torch.equal(mine.values.float(), values)


@MAGNITUDES
def test_nvfp4_activation_equals_torchao_bit_by_bit(magnitude: float) -> None:
    x = awkward(magnitude)
    values, scale = torchao_nvfp4(x)
    mine = activation(x, NumberFormat.NVFP4)
    assert torch.equal(mine.values.float(), values)
    assert mine.scale is not None
    assert torch.equal(mine.scale, scale)


@MAGNITUDES
def test_float8_activation_equals_torchao_bit_by_bit(magnitude: float) -> None:
    x = awkward(magnitude)
    native = Float8Tensor.from_hp(x, torch.float8_e4m3fn, PerRow())
    mine = activation(x, NumberFormat.FLOAT8, FP32)
    assert mine.scale is not None
    assert torch.equal(mine.scale, native.scale)
    assert torch.equal(mine.values.nan_to_num(9), native.qdata.float().nan_to_num(9))


def test_nvfp4_tie_of_the_block_scale_goes_to_even() -> None:
    """With a tensor scale of 1, amax 6 * 1.0625 asks for the scale 1.0625, half way between 1 and 1.125 of E4M3."""
    x = torch.zeros(3, 16, dtype=BF16)
    x[0, 0], x[1, 0], x[2, 0] = 2688.0, 6.375, 7.125  # 7.125 / 6 = 1.1875, half way between 1.125 and 1.25
    mine = activation(x, NumberFormat.NVFP4)
    assert mine.scale is not None
    assert mine.scale.item() == 1.0
    assert mine.values[:, 0].tolist() == [2688.0, 6.0, 7.5]


def nearest(value: Fraction, grid: list[Fraction]) -> Fraction:
    """Nearest number of ``grid``; a tie goes to the one with the even index, the even mantissa."""
    at = min(bisect_left(grid, value), len(grid) - 1)
    if at == 0 or grid[at] == value:
        return grid[at]
    below, above = grid[at - 1], grid[at]
    if value - below != above - value:
        return below if value - below < above - value else above
    return grid[at - 1] if (at - 1) % 2 == 0 else grid[at]


def fp32(value: Fraction) -> Fraction:
    return Fraction(torch.tensor(float(value), dtype=torch.float64).float().item())


def test_nvfp4_equals_its_definition_in_exact_fractions() -> None:
    """The format's definition, in rationals rounded to FP32 where FP32 is computed."""
    e4m3 = [Fraction(2) ** e * (8 + m) / 8 for e in range(-6, 9) for m in range(8)][:-1]
    x = awkward(1.0)[:8]
    table = [[Fraction(v) for v in row] for row in x.double().tolist()]
    tensor_scale = fp32(max(abs(v) for row in table for v in row) / (448 * 6))
    expected = []
    for row in table:
        for start in range(0, len(row), 16):
            block = row[start : start + 16]
            wanted = fp32(fp32(max(map(abs, block)) / 6) / tensor_scale)
            scale = nearest(max(min(wanted, Fraction(448)), e4m3[0]), e4m3)
            factor = fp32(fp32(1 / tensor_scale) / scale)
            for value in block:
                magnitude = nearest(min(fp32(abs(value) * factor), Fraction(6)), E2M1)
                expected.append(float(magnitude * scale * (-1 if value < 0 else 1)))
    mine = activation(x, NumberFormat.NVFP4)
    assert mine.scale is not None
    assert mine.scale.item() == float(tensor_scale)
    assert mine.values.flatten().tolist() == expected


def test_nvfp4_element_ties_go_to_even() -> None:
    """Two blocks whose scales are exact powers of two: every midpoint of E2M1 in one of them."""
    midpoints = [float((a + b) / 2) for a, b in pairwise(E2M1)]
    x = torch.zeros(2, 16, dtype=BF16)
    x[0, 0] = 2688.0
    x[1, : len(midpoints)] = torch.tensor(midpoints)
    x[1, 15] = -6.0
    assert activation(x, NumberFormat.NVFP4).values[1].tolist() == [0, 1, 1, 2, 2, 4, 4, *[0] * 8, -6]


@ALL
def test_values_do_not_depend_on_the_gemm_s_dtype(number_format: NumberFormat) -> None:
    x = awkward(1.0)[2:]
    wide, narrow = activation(x, number_format, FP32).values, activation(x, number_format, BF16).values
    assert (wide.dtype, narrow.dtype) == (FP32, BF16)
    assert torch.equal(wide, narrow.float())


@ALL
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so(number_format: NumberFormat, bad: float) -> None:
    x = normal(4, 192)
    x[1, 3] = bad
    assert not torch.isfinite(emulated(linear(), number_format)(x)[1]).any()


@pytest.mark.parametrize(("number_format", "limit"), [(NumberFormat.MXFP8, 124), (NumberFormat.MXFP4, 122)])
def test_mx_magnitudes_over_the_documented_limit_are_not_finite(number_format: NumberFormat, limit: int) -> None:
    x = normal(4, 192)
    x[1, 3], x[2, 3] = -(2.0**limit), 1.9921875 * 2.0 ** (limit - 1)
    native = MXTensor.to_mx(x, MX_ELEMENTS[number_format], 32, scaling_mode=ScaleCalculationMode.RCEIL)
    values = activation(x, number_format).values
    assert not torch.isfinite(values[1, 3])
    assert torch.equal(values[[0, 2, 3]], native.dequantize(BF16)[[0, 2, 3]])


@pytest.mark.parametrize("number_format", [NumberFormat.NVFP4, NumberFormat.FLOAT8], ids=lambda kind: kind.value)
def test_the_other_formats_take_the_largest_bf16_numbers(number_format: NumberFormat) -> None:
    x = normal(4, 192)
    x[1, 3] = -3e38
    assert torch.isfinite(emulated(linear(), number_format)(x)).all()


def test_an_all_zero_nvfp4_activation_is_nan_as_in_torchao() -> None:
    zeros = torch.zeros(2, 32, dtype=BF16)
    assert torchao_nvfp4(zeros)[0].isnan().all()
    assert activation(zeros, NumberFormat.NVFP4).values.isnan().all()


@MX
def test_an_all_zero_mx_activation_is_zero(number_format: NumberFormat) -> None:
    assert activation(torch.zeros(2, 32, dtype=BF16), number_format).values.eq(0).all()


@MX
def test_blocks_under_the_documented_limit_are_off_by_less_than_it(number_format: NumberFormat) -> None:
    x = normal(64, 96, magnitude=2.0**-122)
    native = MXTensor.to_mx(x, MX_ELEMENTS[number_format], 32, scaling_mode=ScaleCalculationMode.RCEIL)
    difference = activation(x, number_format).values.double() - native.dequantize(BF16).double()
    assert difference.abs().max() < 2.0**-118


@pytest.mark.parametrize(
    ("device", "mkldnn", "expected"), [("cpu", True, BF16), ("cpu", False, FP32), ("meta", False, BF16)]
)
def test_the_gemm_is_fp32_only_where_bf16_is_slow(
    monkeypatch: pytest.MonkeyPatch, device: str, *, mkldnn: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: mkldnn)
    assert numerics.fast_gemm_dtype(torch.device(device)) is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), FP32), ((8, 0), BF16), ((9, 0), BF16)])
def test_a_gpu_before_ampere_multiplies_in_fp32(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert numerics.fast_gemm_dtype(torch.device("cuda")) is expected
