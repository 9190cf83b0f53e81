"""Evidence where calls of the denoiser leave layers out, and where its hooks multiply with other weights."""

from __future__ import annotations

from typing import Any

import pytest
from small_denoiser import LAYERS, ONE, WIDTH, Denoiser, observed, quantized
from torch.nn import functional


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
    assert execution.total_arithmetic == 3 * 4 * ONE
    assert execution.not_quantized == (f"unknown ({WIDTH}, {WIDTH})",)


def test_an_error_in_a_denoiser_with_other_hooks_leaves_no_hook_behind() -> None:
    denoiser = quantized()
    denoiser.blocks[1].forward = lambda x: x.no_such_attribute
    with pytest.raises(AttributeError, match="no_such_attribute"):
        observed(denoiser)
    assert not denoiser._forward_hooks
    assert not denoiser._forward_pre_hooks
