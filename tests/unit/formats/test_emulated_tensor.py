"""Emulated weights and Linears: torchao's values, cached activations, copies, devices, compilers, guards."""

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from emulation_inputs import (
    ALL,
    BF16,
    FP32,
    MX,
    MX_ELEMENTS,
    activation,
    decibels,
    emulated,
    linear,
    normal,
    torchao_nvfp4,
    use_fp32_gemm,
    weight_of,
)
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
from torchao.prototype.mx_formats.mx_tensor import MXTensor, ScaleCalculationMode
from torchao.quantization import PerRow, quantize_
from torchao.quantization.quantize_.common import KernelPreference
from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.formats.emulation import numerics
from pytest_mxq.formats.emulation import tensor as emulate
from pytest_mxq.formats.emulation.numerics import NumberFormat
from pytest_mxq.formats.emulation.tensor import EmulatedTensor, EmulationConfig, EmulationError, RecentActivation


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
    """Counter of quantizations that changes none of them."""

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


def test_inference_tensors_have_no_version_and_are_never_cached(counting: Counting) -> None:
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


def test_the_cached_values_go_with_the_input() -> None:
    recent, x = RecentActivation(), normal(8, 192)
    cached = weakref.ref(recent.quantize(x, NumberFormat.MXFP8, BF16).values)
    gc.collect()
    assert cached() is not None
    del x
    gc.collect()
    assert cached() is None


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
    with pytest.raises(EmulationError, match=r"mxfp8: the weight is torch.float32; only bfloat16"):
        emulated(linear().float(), NumberFormat.MXFP8)


def test_a_weight_that_is_no_matrix_is_refused() -> None:
    with pytest.raises(EmulationError, match=r"nvfp4: the weight has shape \(2, 16, 16\); only torch.nn.Linear"):
        EmulatedTensor.from_weight(torch.zeros(2, 16, 16, dtype=BF16), NumberFormat.NVFP4)


def test_an_activation_that_is_not_bf16_is_refused() -> None:
    with pytest.raises(EmulationError, match=r"mxfp8: the activation is torch.float32; run the pipeline in"):
        emulated(linear(), NumberFormat.MXFP8)(torch.zeros(2, 192))


@ALL
def test_joining_quantized_weights_is_refused_with_what_to_do(number_format: NumberFormat) -> None:
    weight = weight_of(emulated(linear(), number_format))
    with pytest.raises(
        EmulationError, match=rf"{number_format.value}: aten.cat.*\(.* and \(.*leave fuse_qkv_projections"
    ):
        torch.cat([weight, weight])
