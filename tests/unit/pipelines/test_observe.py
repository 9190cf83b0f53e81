"""Evidence from execution: each way in which a module tree full of quantized weights runs something else."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from demo_arms import call_demo, demo_arm
from small_denoiser import LAYERS, ONE, WIDTH, Denoiser, observed, quantized, sample
from torch import nn
from torch.nn import functional
from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig, NVFP4WeightOnlyConfig
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
)
from torchao.quantization.quantize_.common import KernelPreference

from pytest_mxq.errors import MxqError
from pytest_mxq.pipelines.observe import observe_execution, observe_one_call, record_first_call
from pytest_mxq.pipelines.products import Multiplication


def test_every_layer_that_multiplies_quantized_is_named_with_its_arithmetic_and_bytes() -> None:
    execution = observed(quantized(), calls=3)
    assert execution.layers == LAYERS
    assert (execution.partly, execution.not_quantized, execution.not_run, execution.changed) == ((), (), (), ())
    assert execution.quantized_arithmetic == execution.total_arithmetic == 3 * 4 * ONE
    assert execution.denoiser_calls == (("transformer", 3),)
    assert (execution.weights, execution.all_weights) == (4 * WIDTH**2, 4 * WIDTH**2)
    assert execution.bytes_ratio == 0.515625
    assert execution.multiplied is Multiplication.EMULATED
    assert {(layer.quantized, layer.not_quantized) for layer in execution.layer_calls} == {(3, 0)}


def test_an_unquantized_denoiser_has_no_evidence_and_no_attention_scores_in_its_arithmetic() -> None:
    execution = observed(Denoiser())
    assert (execution.layers, execution.not_quantized) == ((), LAYERS)
    assert (execution.arithmetic_share, execution.total_arithmetic) == (0.0, 4 * ONE)
    assert (execution.multiplied, execution.bytes_ratio) == (Multiplication.NONE, 1.0)


def test_the_share_is_of_arithmetic_and_of_weights() -> None:
    execution = observed(quantized(only="blocks.0"))
    assert execution.arithmetic_share == execution.weight_share == 0.5


def test_a_copied_block_whose_forward_is_the_originals_ran_none_of_its_layers() -> None:
    original = Denoiser()
    copied = quantized(original)
    copied.blocks[0].forward = original.get_submodule("blocks.0").forward
    execution = observed(copied)
    assert execution.layers == LAYERS[2:]
    assert execution.not_run == LAYERS[:2]
    assert execution.not_quantized == (f"unknown ({WIDTH}, {WIDTH})",)
    assert execution.arithmetic_share == 0.5


def test_a_linear_whose_forward_a_hook_replaced_is_named_itself() -> None:
    original = Denoiser()
    copied = quantized(original)
    copied.blocks[0].up.forward = original.get_submodule("blocks.0.up").forward
    execution = observed(copied)
    assert (execution.not_quantized, execution.layers) == (("blocks.0.up",), (LAYERS[0], *LAYERS[2:]))
    assert execution.multiplied is Multiplication.EMULATED


def put_bf16_back(denoiser: Any) -> None:
    denoiser.blocks[0].up.weight = nn.Parameter(torch.ones(WIDTH, WIDTH).bfloat16(), requires_grad=False)


def test_weights_put_back_between_two_calls_are_seen_as_changed_and_partly_quantized() -> None:
    execution = observed(quantized(), put_bf16_back, calls=2)
    assert execution.partly == ("blocks.0.up",)
    assert execution.changed == ("blocks.0.up.weight: replaced",)
    assert execution.arithmetic_share == 7 / 8


def test_a_weight_changed_in_place_is_seen_below_its_wrapper() -> None:
    execution = observed(quantized(), lambda it: it.blocks[1].down.weight.values.mul_(2), calls=2)
    assert execution.changed == ("blocks.1.down.weight: changed in place",)


def test_a_second_denoiser_that_is_not_quantized_halves_the_share() -> None:
    pipe = SimpleNamespace(transformer=quantized(), transformer_2=Denoiser(), vae=None)
    with torch.no_grad(), observe_execution(pipe, ["transformer", "transformer_2"]) as recorder:
        pipe.transformer_2(pipe.transformer(sample()))
    execution = recorder.execution
    assert execution.layers == tuple(f"transformer.{name}" for name in LAYERS)
    assert execution.not_quantized == tuple(f"transformer_2.{name}" for name in LAYERS)
    assert execution.arithmetic_share == execution.weight_share == 0.5


def test_a_denoiser_that_was_exchanged_has_no_calls_and_is_called_replaced() -> None:
    pipe = SimpleNamespace(transformer=quantized())
    with torch.no_grad(), observe_execution(pipe, ["transformer"]) as recorder:
        pipe.transformer = Denoiser()
        pipe.transformer(sample())
    assert recorder.execution.denoiser_calls == (("transformer", 0),)
    assert recorder.execution.changed == ("transformer: component replaced",)
    assert recorder.execution.not_run == LAYERS


class BareWeights(nn.Module):
    """Products with bare parameters, with slices of one, in an attention layer and in a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.bare = nn.Parameter(torch.ones(WIDTH, WIDTH))
        self.experts = nn.Parameter(torch.ones(2, WIDTH, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.patch = nn.Conv1d(WIDTH, 32, 2, stride=2)
        self.unpatch = nn.ConvTranspose1d(32, WIDTH, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.einsum("bri,io->bro", x @ self.bare, self.experts[0])
        x = torch.matmul(x, self.experts[1].t())
        x = self.attention(x, x, x, need_weights=False)[0]
        y: torch.Tensor = self.unpatch(self.patch(x.transpose(1, 2)))
        return y


def test_bare_parameters_attention_layers_and_convolutions_count_with_their_arithmetic() -> None:
    with torch.no_grad(), observe_execution(SimpleNamespace(unet=BareWeights()), ["unet"]) as recorder:
        recorder._denoisers[0].module(torch.ones(2, 4, WIDTH))
    arithmetic = {layer.name: layer.arithmetic for layer in recorder.execution.layer_calls}
    one = 8 * WIDTH * WIDTH
    assert arithmetic == {
        "bare": one,
        "experts": 2 * one,
        "attention.in_proj_weight": 3 * one,
        "attention.out_proj": one,
        "patch": 4 * 32 * WIDTH * 2,
        "unpatch": 4 * 32 * WIDTH * 2,
    }
    assert recorder.execution.not_quantized == tuple(sorted(arithmetic))


MX_EMULATED = MXDynamicActivationMXWeightConfig(
    activation_dtype=torch.float8_e4m3fn,
    weight_dtype=torch.float8_e4m3fn,
    kernel_preference=KernelPreference.EMULATED,
)


@pytest.mark.parametrize(
    ("config", "multiplied"),
    [
        pytest.param(MX_EMULATED, Multiplication.EMULATED, id="mx-emulated"),
        pytest.param(
            Int8DynamicActivationInt8WeightConfig(set_inductor_config=False), Multiplication.NATIVE, id="int8"
        ),
        pytest.param(
            Int8WeightOnlyConfig(set_inductor_config=False), Multiplication.DEQUANTIZED, id="int8-weight-only"
        ),
        pytest.param(
            Float8WeightOnlyConfig(set_inductor_config=False), Multiplication.DEQUANTIZED, id="float8-weight-only"
        ),
        pytest.param(NVFP4WeightOnlyConfig(), Multiplication.DEQUANTIZED, id="nvfp4-weight-only"),
    ],
)
def test_what_multiplied_a_torchao_weight_is_seen_below_it(config: Any, multiplied: Multiplication) -> None:
    execution = observed(quantized(config=config))
    assert execution.multiplied is multiplied
    assert execution.layers == LAYERS
    assert execution.bytes_ratio < 0.6


class PackedLinear(nn.Module):
    """A layer that holds bytes and multiplies them dequantized, as some do where a kernel is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("packed", torch.ones(WIDTH, WIDTH, dtype=torch.uint8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.get_buffer("packed").bfloat16())


class MatmulLinear(PackedLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.get_buffer("packed").bfloat16().t()


@pytest.mark.parametrize("kind", [PackedLinear, MatmulLinear])
def test_bytes_that_a_layer_dequantizes_itself_count_as_dequantized_and_not_quantized(kind: type[nn.Module]) -> None:
    denoiser = Denoiser()
    denoiser.blocks[0].up = kind()
    execution = observed(denoiser)
    assert execution.multiplied is Multiplication.DEQUANTIZED
    assert "blocks.0.up.packed" in execution.not_quantized
    assert execution.quantized_arithmetic == 0


class ScaledLinear(PackedLinear):
    """A layer that gives its bytes to a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = self.get_buffer("packed").to(torch.int8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(0, -2).to(torch.int8).repeat(4, 1)  # the kernel wants more than 16
        return torch._int_mm(rows, self.packed.t())[: x.shape[0] * x.shape[1]].view(*x.shape).bfloat16()


def test_bytes_that_a_kernel_takes_count_as_native() -> None:
    denoiser = Denoiser()
    denoiser.blocks[0].up = ScaledLinear()
    execution = observed(denoiser)
    assert execution.layers == ("blocks.0.up.packed",)
    assert execution.multiplied is Multiplication.NATIVE


@torch.library.custom_op("pytest_mxq_tests::their_linear", mutates_args=())
def their_linear(x: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    """Somebody's own kernel."""
    return functional.linear(x, packed.bfloat16())


class CustomLinear(PackedLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.pytest_mxq_tests.their_linear(x, self.get_buffer("packed"))
        return result


def test_bytes_that_a_custom_operator_takes_count_as_native_with_their_arithmetic() -> None:
    denoiser = Denoiser()
    denoiser.blocks[0].up = CustomLinear()
    execution = observed(denoiser)
    assert (execution.layers, execution.quantized_arithmetic) == (("blocks.0.up.packed",), ONE)


def test_a_wrapper_around_bf16_is_told_by_its_bytes() -> None:
    from own_formats import own_format

    number_format = own_format("wide", lambda weight: weight)
    assert number_format.emulation is not None
    execution = observed(quantized(config=number_format.emulation()))
    assert (execution.layers, execution.bytes_ratio) == (LAYERS, 1.0)
    assert execution.multiplied is Multiplication.DEQUANTIZED


def test_the_record_is_there_only_after_the_block_and_no_hook_stays() -> None:
    denoiser = quantized()
    with (
        observe_execution(SimpleNamespace(transformer=denoiser), ["transformer"]) as recorder,
        pytest.raises(MxqError, match="still being observed"),
    ):
        _ = recorder.execution
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in denoiser.modules())


def test_a_forward_that_raises_leaves_no_function_mode_behind() -> None:
    denoiser = quantized()
    skipped = denoiser.blocks[0]
    skipped.forward = lambda _x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        observed(denoiser)
    del skipped.forward
    assert observed(denoiser).layers == LAYERS
    assert torch._C._len_torch_function_stack() == 0


def test_a_pipeline_without_the_denoiser_cannot_be_observed() -> None:
    with (
        pytest.raises(MxqError, match="no denoiser named unet or transformer"),
        observe_execution(SimpleNamespace(transformer=None), ["unet", "transformer"]),
    ):
        pass


def test_a_compiled_denoiser_is_refused_in_a_call_and_observed_in_one_eager_call() -> None:
    denoiser = quantized()
    ran: list[str] = []

    def note(graph: Any, _inputs: Any) -> Any:
        ran.append("compiled")
        return graph.forward

    for block in denoiser.blocks:
        block.compile(backend=note)
    with pytest.raises(MxqError, match="compiled"):
        observed(denoiser)
    with record_first_call(denoiser) as first, torch.no_grad():
        denoiser(sample())
        denoiser(sample() + 1)
    assert first.args is not None
    assert torch.equal(first.args[0], sample())
    ran.clear()
    execution = observe_one_call(denoiser, first.args, first.kwargs)
    assert (execution.layers, execution.denoiser_calls, ran) == (LAYERS, (("denoiser", 1),), [])


@pytest.mark.parametrize(("name", "ratio"), [("mxfp8", 0.516), ("nvfp4", 0.281)])
def test_the_demo_runs_its_52_layers_and_is_bit_identical_while_observed(name: str, ratio: float) -> None:
    arm = demo_arm(name)
    assert arm.chosen is not None
    plain = call_demo(arm.pipe)
    with observe_execution(arm.pipe, ["transformer"]) as recorder:
        images = call_demo(arm.pipe)
    execution = recorder.execution
    assert torch.equal(plain, images)
    assert execution.layers == arm.chosen.names
    assert len(execution.layers) == 52
    assert (execution.partly, execution.not_run, execution.changed) == ((), (), ())
    assert execution.arithmetic_share > 0.95
    assert execution.bytes_ratio == pytest.approx(ratio, abs=0.01)
    assert execution.denoiser_calls == (("transformer", 2),)


def test_a_diffusers_hook_on_the_base_leaves_the_copied_arm_its_own_blocks() -> None:
    """A hook keeps the forward of the block that it was put on; a bare copy of the denoiser would run the base's."""
    from diffusers.hooks import HookRegistry, ModelHook

    from pytest_mxq.pipelines.cache import ArmStore

    store = ArmStore("cpu")
    for block in demo_arm(None, store).pipe.transformer.single_transformer_blocks:
        HookRegistry.check_if_exists_or_initialize(block).register_hook(ModelHook(), "nothing")
    arm = demo_arm("mxfp8", store)
    with observe_execution(arm.pipe, ["transformer"]) as recorder:
        call_demo(arm.pipe)
    execution = recorder.execution
    assert (len(execution.layers), execution.not_run) == (52, ())
    assert not any(name.startswith("unknown") for name in execution.not_quantized)
    assert execution.arithmetic_share > 0.95


def test_names_of_layers_are_sorted_and_unique() -> None:
    execution = observed(quantized(only="up"), calls=2)
    names = [layer.name for layer in execution.layer_calls]
    assert all(first < second for first, second in itertools.pairwise(names))
