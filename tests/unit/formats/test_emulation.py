"""Emulated numerics against each format's definition and torchao's own primitives, to the bit."""

import copy
import gc
import weakref
from bisect import bisect_left
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torchao.core.config import AOBaseConfig
from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
from torchao.prototype.mx_formats.mx_tensor import MXTensor, ScaleCalculationMode
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_
from torchao.quantization.quantize_.common import KernelPreference
from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.formats import Emulation, Format, built_in_formats
from pytest_mxq.formats.emulation import numerics
from pytest_mxq.formats.emulation import tensor as emulate
from pytest_mxq.formats.emulation.numerics import NUMERICS, NumberFormat
from pytest_mxq.formats.emulation.tensor import EmulatedTensor, EmulationConfig, EmulationError, RecentActivation

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


# values


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


# weights


@ALL
def test_weight_holds_torchao_s_values(number_format: NumberFormat) -> None:
    layer = linear(out_features=48)
    weight = weight_of(emulated(layer, number_format))
    if number_format in MX_ELEMENTS:
        native = MXTensor.to_mx(layer.weight, MX_ELEMENTS[number_format], 32, scaling_mode=ScaleCalculationMode.RCEIL)
        expected: Tensor = native.dequantize(FP32)
        scale: Tensor | None = None
    elif number_format is NumberFormat.NVFP4:
        expected, scale = torchao_nvfp4(layer.weight)
    else:
        float8 = Float8Tensor.from_hp(layer.weight, torch.float8_e4m3fn, PerRow())
        expected, scale = float8.qdata.float(), float8.scale.flatten()
    assert torch.equal(weight.values.float(), expected)
    if scale is None:
        assert weight.scale is None
    else:
        assert weight.scale is not None
        assert torch.equal(weight.scale, scale)


@pytest.mark.parametrize(
    ("number_format", "expected"),
    [
        (NumberFormat.MXFP8, 256 * 512 * (1 + 1 / 32)),
        (NumberFormat.MXFP4, 256 * 512 * (1 / 2 + 1 / 32)),
        (NumberFormat.NVFP4, 256 * 512 * (1 / 2 + 1 / 16) + 4),
        (NumberFormat.FLOAT8, 256 * 512 + 256 * 4),
    ],
    ids=lambda value: getattr(value, "value", None),
)
def test_native_bytes_are_those_of_the_native_storage(number_format: NumberFormat, expected: float) -> None:
    assert weight_of(emulated(linear(512, 256), number_format)).native_bytes == expected


def test_native_bytes_count_the_padding_of_the_scales() -> None:
    """Scales lie in tiles of 128 rows and 4 columns: 192 x 12 becomes 256 x 12."""
    assert weight_of(emulated(linear(192, 192), NumberFormat.NVFP4)).native_bytes == 192 * 96 + 256 * 12 + 4


@ALL
def test_weight_is_a_torchao_tensor_that_reports_bf16(number_format: NumberFormat) -> None:
    weight = emulated(linear(), number_format).weight
    assert isinstance(weight, TorchAOBaseTensor)
    assert isinstance(weight, nn.Parameter)
    assert (weight.dtype, tuple(weight.shape)) == (BF16, (64, 192))


@ALL
def test_one_copy_of_the_weight_is_held(number_format: NumberFormat) -> None:
    names, _ = weight_of(emulated(linear(), number_format)).__tensor_flatten__()
    assert set(names) <= {"values", "scale"}


# linear


@MX
@pytest.mark.parametrize("bias", [True, False])
def test_mx_linear_equals_torchao_s_emulation_end_to_end(number_format: NumberFormat, *, bias: bool) -> None:
    element = MX_ELEMENTS[number_format]
    reference = linear(bias=bias)
    mine, x = emulated(reference, number_format), normal(2, 33, 192)
    config = MXDynamicActivationMXWeightConfig(
        activation_dtype=element, weight_dtype=element, kernel_preference=KernelPreference.EMULATED
    )
    assert config.scaling_mode is ScaleCalculationMode.RCEIL
    quantize_(reference, config)
    weight = weight_of(mine)
    if weight.values.dtype == BF16:
        assert torch.equal(mine(x), reference(x))
    assert decibels(reference(x), mine(x)) > 50


def nvfp4_route(x: Tensor, layer: nn.Linear) -> Tensor:
    """torchao's primitives and the epilogue of its ``_addmm_nvfp4_dispatch``, with an FP32 product."""
    (left, left_scale), (right, right_scale) = torchao_nvfp4(x.flatten(0, -2)), torchao_nvfp4(layer.weight)
    out = (left @ right.t()).to(BF16) * (left_scale * right_scale).to(BF16)
    return (out if layer.bias is None else out + layer.bias).view(*x.shape[:-1], -1)


def float8_route(x: Tensor, layer: nn.Linear) -> Tensor:
    """torchao's primitives, and what a row-wise ``_scaled_mm`` does with scales and bias."""
    left, right = (Float8Tensor.from_hp(t, torch.float8_e4m3fn, PerRow()) for t in (x.flatten(0, -2), layer.weight))
    out: Tensor = (left.qdata.float() @ right.qdata.float().t()) * right.scale.t() * left.scale
    return (out if layer.bias is None else out + layer.bias.float()).to(BF16).view(*x.shape[:-1], -1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("number_format", "route"), [(NumberFormat.NVFP4, nvfp4_route), (NumberFormat.FLOAT8, float8_route)]
)
def test_linear_equals_the_route_through_torchao_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
    number_format: NumberFormat,
    route: Callable[[Tensor, nn.Linear], Tensor],
    *,
    bias: bool,
) -> None:
    use_fp32_gemm(monkeypatch)
    layer, x = linear(bias=bias), normal(2, 33, 192)
    out = emulated(layer, number_format)(x)
    assert out.shape == (2, 33, 64)
    assert torch.equal(out, route(x, layer))


@ALL
def test_bf16_and_fp32_products_agree_to_the_order_of_accumulation(
    monkeypatch: pytest.MonkeyPatch, number_format: NumberFormat
) -> None:
    layer, x = linear(), normal(64, 192)
    monkeypatch.setattr(numerics, "fast_gemm_dtype", lambda _device: BF16)
    narrow = emulated(layer, number_format)
    use_fp32_gemm(monkeypatch)
    wide = emulated(layer, number_format)
    assert weight_of(wide).values.dtype == FP32
    assert torch.equal(weight_of(narrow).values.float(), weight_of(wide).values)
    assert torch.equal(activation(x, number_format, BF16).values.float(), activation(x, number_format, FP32).values)
    ulps = (narrow(x).view(torch.int16).int() - wide(x).view(torch.int16).int()).abs()
    assert (ulps > 0).float().mean() < 0.01  # a sum at a rounding boundary of BF16, seldom
    assert decibels(wide(x), narrow(x)) > 60


@pytest.mark.parametrize(
    ("number_format", "lowest", "highest"),
    [
        (NumberFormat.MXFP8, 28.3, 28.7),
        (NumberFormat.FLOAT8, 28.3, 28.9),
        (NumberFormat.NVFP4, 17.3, 17.7),
        (NumberFormat.MXFP4, 15.5, 16.0),
    ],
    ids=lambda value: getattr(value, "value", None),
)
def test_signal_to_quantization_noise_of_normals(number_format: NumberFormat, lowest: float, highest: float) -> None:
    """The windows are what torchao's own values give over twelve shapes and seeds, rounded outwards."""
    layer = nn.Linear(1024, 256, bias=False, dtype=BF16).requires_grad_(requires_grad=False)
    layer.weight.copy_(normal(256, 1024, seed=3))
    x = normal(256, 1024, seed=4)
    exact = x.double() @ layer.weight.double().t()
    assert lowest < decibels(exact, emulated(layer, number_format)(x)) < highest


@ALL
def test_a_non_contiguous_activation_gives_the_same(number_format: NumberFormat) -> None:
    layer, x = emulated(linear(), number_format), normal(192, 33)
    assert torch.equal(layer(x.t()), layer(x.t().contiguous()))


# the recent activation


class Counting:
    """Counts quantizations of a format that it otherwise leaves as they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        quantize = numerics.MxNumerics.quantize_activation

        def counted(mx: numerics.MxNumerics, x: Tensor, dtype: torch.dtype) -> numerics.Operand:
            self.count += 1
            return quantize(mx, x, dtype)

        monkeypatch.setattr(numerics.MxNumerics, "quantize_activation", counted)
        monkeypatch.setattr(emulate, "RECENT", RecentActivation())


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def test_linears_with_one_input_quantize_it_once(counting: Counting) -> None:
    layers = [emulated(linear(seed=seed), NumberFormat.MXFP8) for seed in range(3)]
    x = normal(8, 192)
    shared = [layer(x) for layer in layers]
    assert counting.count == 1
    assert all(torch.equal(out, layer(x.clone())) for out, layer in zip(shared, layers, strict=True))
    assert counting.count == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.mul_(3),
        lambda x: x[0].zero_(),
        lambda x: x.view(-1)[5:7].fill_(9),
        lambda x: x.copy_(normal(8, 192)),
    ],
    ids=["whole", "row", "view", "copy"],
)
def test_an_input_changed_in_place_is_quantized_again(counting: Counting, change: Callable[[Tensor], object]) -> None:
    layer, x = emulated(linear(), NumberFormat.MXFP8), normal(8, 192, seed=5)
    layer(x)
    change(x)
    assert torch.equal(layer(x), emulated(linear(), NumberFormat.MXFP8)(x.clone()))
    assert counting.count == 3


def test_inference_tensors_have_no_version_and_are_never_kept(counting: Counting) -> None:
    layer = emulated(linear(), NumberFormat.MXFP8)
    with torch.inference_mode():
        x = normal(8, 192)
        before = layer(x)
        x.mul_(3)
        after = layer(x)
        assert torch.equal(after, layer(x.clone()))
    assert not torch.equal(before, after)
    assert counting.count == 3


def test_a_normal_tensor_changed_in_inference_mode_is_quantized_again() -> None:
    layer, x = emulated(linear(), NumberFormat.MXFP8), normal(8, 192)
    before = layer(x)
    with torch.inference_mode():
        x.mul_(3)
        assert torch.equal(layer(x), layer(x.clone()))
    assert not torch.equal(before, layer(x))


def test_each_format_and_dtype_has_its_own_values() -> None:
    recent, x = RecentActivation(), normal(8, 192)
    formats = (NumberFormat.MXFP8, NumberFormat.MXFP4)
    first, other = (recent.quantize(x, number_format, BF16).values for number_format in formats)
    assert not torch.equal(first, other)
    assert recent.quantize(x, NumberFormat.MXFP4, FP32).values.dtype == FP32


def test_the_kept_values_go_with_the_input() -> None:
    recent, x = RecentActivation(), normal(8, 192)
    kept = weakref.ref(recent.quantize(x, NumberFormat.MXFP8, BF16).values)
    gc.collect()
    assert kept() is not None
    del x
    gc.collect()
    assert kept() is None


# copies, devices, compilers


@ALL
def test_deepcopy_gives_an_independent_equal_layer(number_format: NumberFormat) -> None:
    layer, x = emulated(linear(), number_format), normal(8, 192)
    expected = layer(x)
    twin = copy.deepcopy(layer)
    weight_of(layer).values.zero_()
    assert torch.equal(twin(x), expected)
    assert weight_of(twin).native_bytes == weight_of(layer).native_bytes
    assert weight_of(twin).number_format is number_format


@ALL
def test_to_moves_every_tensor_in_the_dtype_of_the_new_device(
    monkeypatch: pytest.MonkeyPatch, number_format: NumberFormat
) -> None:
    use_fp32_gemm(monkeypatch)
    layer = emulated(linear(), number_format)
    monkeypatch.undo()
    moved = weight_of(layer.to("meta"))
    assert moved.device.type == moved.values.device.type == "meta"
    assert moved.scale is None or moved.scale.device.type == "meta"
    assert moved.values.dtype == (FP32 if number_format is NumberFormat.FLOAT8 else BF16)


@ALL
def test_quantizing_works_on_the_meta_device(number_format: NumberFormat) -> None:
    layer = linear(512, 256)
    expected = weight_of(emulated(layer, number_format)).native_bytes
    assert weight_of(emulated(layer.to("meta"), number_format)).native_bytes == expected


@ALL
def test_compiled_in_one_graph_it_gives_the_same_bits(number_format: NumberFormat) -> None:
    model = nn.Sequential(linear(192, 192), nn.GELU(), linear(192, 64)).requires_grad_(requires_grad=False)
    quantize_(model, EmulationConfig(number_format=number_format))
    x = normal(2, 16, 192)
    with torch.no_grad():
        expected = model(x)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
        assert torch.equal(compiled(x), expected)


@ALL
def test_a_compiler_sees_one_opaque_operator_that_it_cannot_fuse(number_format: NumberFormat) -> None:
    targets: list[str] = []

    def compiler(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
        targets.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    with torch.no_grad():
        backend = aot_autograd(fw_compiler=compiler)
        torch.compile(emulated(linear(), number_format), fullgraph=True, backend=backend)(normal(8, 192))
    assert targets == ["pytest_mxq.emulated_linear.default"]


# guards


@pytest.mark.parametrize(
    ("number_format", "shape"),
    [
        (NumberFormat.MXFP8, (48, 64)),
        (NumberFormat.MXFP4, (16, 64)),
        (NumberFormat.NVFP4, (64, 24)),
        (NumberFormat.NVFP4, (40, 16)),
        (NumberFormat.FLOAT8, (64, 24)),
    ],
)
def test_an_unfit_linear_is_refused_with_its_shape_and_the_rule(
    number_format: NumberFormat, shape: tuple[int, int]
) -> None:
    message = f"{number_format.value}: Linear with in_features {shape[0]}, out_features {shape[1]} does not fit"
    with pytest.raises(EmulationError, match=message):
        emulated(linear(*shape), number_format)


def test_a_weight_that_is_not_bf16_is_refused() -> None:
    with pytest.raises(EmulationError, match=r"mxfp8: the weight is torch.float32; load the model with dtype="):
        emulated(linear().float(), NumberFormat.MXFP8)


def test_a_weight_that_is_no_matrix_is_refused() -> None:
    with pytest.raises(EmulationError, match=r"nvfp4: the weight has shape \(2, 16, 16\); only torch.nn.Linear"):
        EmulatedTensor.from_weight(torch.zeros(2, 16, 16, dtype=BF16), NumberFormat.NVFP4)


def test_an_activation_that_is_not_bf16_is_refused() -> None:
    with pytest.raises(EmulationError, match=r"mxfp8: the activation is torch.float32; run the pipeline in"):
        emulated(linear(), NumberFormat.MXFP8)(torch.zeros(2, 192))


# the registered formats


@pytest.mark.parametrize("kind", built_in_formats(), ids=lambda kind: kind.name)
def test_each_built_in_format_names_its_emulation_and_the_same_shapes(kind: Format) -> None:
    assert isinstance(kind.emulation, Emulation)
    assert kind.emulation() == EmulationConfig(number_format=NumberFormat(kind.name))
    rule = NUMERICS[NumberFormat(kind.name)]
    assert (kind.in_multiple, kind.out_multiple) == (rule.in_multiple, rule.out_multiple)


@pytest.mark.parametrize("kind", built_in_formats(), ids=lambda kind: kind.name)
def test_each_native_configuration_is_torchao_s(kind: Format) -> None:
    config = kind.native()
    assert isinstance(config, AOBaseConfig)
    assert type(config).__module__.startswith("torchao.")


def test_native_float8_leaves_inductor_s_configuration_alone() -> None:
    config = next(kind for kind in built_in_formats() if kind.name == "float8").native()
    assert isinstance(config, Float8DynamicActivationFloat8WeightConfig)
    assert config.set_inductor_config is False
    assert all(isinstance(granularity, PerRow) for granularity in config.granularity)


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
