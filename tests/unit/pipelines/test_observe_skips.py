"""Evidence where calls of the denoiser leave layers out, and where its hooks multiply with other weights."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_denoiser import LAYERS, ONE, WIDTH, Denoiser, observed, quantized, sample, scripted
from torch.nn import functional

from pytest_mxq.pipelines.observe import observe_execution


def skip_block(denoiser: Any) -> None:
    denoiser.blocks[0].forward = lambda x: x


def mix_in(denoiser: Any) -> None:
    """Hook a denoiser with one that is no part of it, after the observation has begun."""
    other = Denoiser()
    denoiser.register_forward_hook(lambda _module, args, result: (result + other(*args)) / 2)


def test_layers_of_a_block_that_one_call_leaves_out_are_named_and_ran_quantized() -> None:
    execution = observed(quantized(), skip_block, calls=2)
    assert (execution.layers, execution.skipped, execution.partly) == (LAYERS, LAYERS[:2], ())
    assert {layer.name: (layer.called, layer.quantized) for layer in execution.layer_calls} == {
        **dict.fromkeys(LAYERS[:2], (1, 1)),
        **dict.fromkeys(LAYERS[2:], (2, 2)),
    }


def test_a_layer_that_is_called_and_multiplies_nothing_ran_partly() -> None:
    def replace_forward(denoiser: Any) -> None:
        denoiser.blocks[0].up.forward = lambda x: x

    execution = observed(quantized(), replace_forward, calls=2)
    assert (execution.partly, execution.skipped) == (("blocks.0.up",), ())


def test_a_weight_that_is_read_without_a_call_of_its_module_must_multiply_in_every_call() -> None:
    def observe(skip: Any) -> tuple[str, ...]:
        denoiser = quantized()
        up = denoiser.blocks[0].up
        denoiser.blocks[0].forward = lambda x: functional.linear(x, up.weight, up.bias)
        return observed(denoiser, skip, calls=2).partly

    assert observe(None) == ()
    assert observe(skip_block) == ("blocks.0.up",)


def test_what_a_hook_of_the_denoiser_multiplies_counts_in_both_shares() -> None:
    execution = observed(quantized(), mix_in, calls=2)
    assert execution.weight_share == 0.5
    attention = 4 * 2 * 3 * 3 * WIDTH  # of the other one's two blocks: more than the first call made
    assert execution.total_arithmetic == 3 * 4 * ONE + attention
    assert execution.not_quantized == (f"unknown ({WIDTH}, {WIDTH})", "unknown, in some calls")


@pytest.mark.parametrize("product", [torch.matmul, lambda x, w: torch.einsum("...i,io,o->...o", x, w, w[0])])
def test_products_with_bare_tensors_in_one_call_of_three_are_unknown(product: Any) -> None:
    weight = torch.randn(WIDTH, WIDTH, dtype=torch.bfloat16)
    denoiser, calls = quantized(), itertools.count()
    denoiser.register_forward_hook(
        lambda _module, _args, result: product(result, weight) if next(calls) == 1 else result
    )
    execution = observed(denoiser, calls=3)
    assert execution.total_arithmetic == 3 * 4 * ONE + ONE
    assert execution.not_quantized == ("unknown, in some calls",)


def test_a_call_with_arguments_of_other_shapes_is_looked_at_as_closely_as_the_first() -> None:
    weight = torch.randn(WIDTH, WIDTH, dtype=torch.bfloat16)
    denoiser = quantized()
    denoiser.register_forward_hook(
        lambda _module, args, result: scripted(result, weight) if len(args[0]) > 2 else result
    )
    with torch.no_grad(), observe_execution(SimpleNamespace(transformer=denoiser), ["transformer"]) as recorder:
        denoiser(sample())
        denoiser(torch.cat([sample(), sample()]))
    assert recorder.execution.not_quantized == ("unknown",)


def test_an_error_in_a_denoiser_with_other_hooks_leaves_no_hook_behind() -> None:
    denoiser = quantized()
    denoiser.blocks[1].forward = lambda x: x.no_such_attribute
    with pytest.raises(AttributeError, match="no_such_attribute"):
        observed(denoiser)
    assert not denoiser._forward_hooks
    assert not denoiser._forward_pre_hooks
