"""Faults in one call of the denoiser alone, the fourth of eight, or from one prompt to the next."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from small_denoiser import scripted
from torch import nn
from torch.nn import functional
from trust_bench import WHOLE, Act, Fault, Layer, Scene
from trust_layers import linears

from pytest_mxq.gates.outcome import Outcome

_CALL = 4


def _counted(denoiser: nn.Module) -> Callable[[], bool]:
    """Return what tells whether the fourth call of a denoiser runs."""
    calls: list[int] = []
    denoiser.register_forward_pre_hook(lambda *_: calls.append(0))
    return lambda: len(calls) == _CALL


def _weights_in_one_call(scene: Scene) -> object:
    """Put BF16 weights into every layer for the fourth call, and the quantized ones back after it."""
    denoiser, bf16 = scene.pipe.transformer, dict(scene.memory["transformer"].named_modules())
    layers = linears(denoiser)
    quantized = {name: layer.weight for name, layer in layers.items()}
    runs = _counted(denoiser)

    def put_in(*_: Any) -> None:
        for name, layer in layers.items() if runs() else ():
            layer.weight = bf16[name].weight

    def put_back(*_: Any) -> None:
        for name, layer in layers.items() if runs() else ():
            layer.weight = quantized[name]

    denoiser.register_forward_pre_hook(put_in)
    denoiser.register_forward_hook(put_back)
    return scene.call()


def _layer_in_one_call(scene: Scene) -> object:
    """Multiply one layer's input with the BF16 weight in the fourth call, beside the quantized one."""
    layer, bf16 = (
        pipe.transformer_blocks[0].attn.to_q for pipe in (scene.pipe.transformer, scene.memory["transformer"])
    )
    runs, forward = _counted(scene.pipe.transformer), layer.forward
    layer.forward = lambda x: functional.linear(x, bf16.weight, bf16.bias) if runs() else forward(x)
    return scene.call()


def _products_in_one_call(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Act:
    """Return a body whose quantized layers run, and return products with bare BF16 tensors in the fourth call."""

    def act(scene: Scene) -> object:
        bf16 = dict(scene.memory["transformer"].named_modules())
        runs = _counted(scene.pipe.transformer)
        for name, layer in linears(scene.pipe.transformer).items():
            weight, bias = bf16[name].weight.detach().clone(), bf16[name].bias

            def hook(_m: Any, args: Any, result: Any, weight: Any = weight, bias: Any = bias) -> torch.Tensor:
                if not runs():
                    return result  # type: ignore[no-any-return]
                product = multiply(args[0], weight)
                return product if bias is None else product + bias

            layer.register_forward_hook(hook)
        return scene.call()

    return act


def _denoiser_in_one_call(scene: Scene) -> object:
    """Return the BF16 denoiser's outputs by a hook of the quantized one, in the fourth call."""
    bf16, runs = scene.memory["transformer"], _counted(scene.pipe.transformer)
    scene.pipe.transformer.register_forward_hook(
        lambda _module, args, kwargs, result: bf16(*args, **kwargs) if runs() else result, with_kwargs=True
    )
    return scene.call()


def _module_of_a_later_prompt(scene: Scene) -> object:
    """Put a BF16 block in place of the quantized one before the second prompt."""
    if scene.memory.setdefault("quantized calls", []):
        scene.pipe.transformer.transformer_blocks[0] = scene.memory["transformer"].transformer_blocks[0]
    scene.memory["quantized calls"].append(0)
    return scene.call()


def _block_of_a_prompt_between(scene: Scene) -> object:
    """Put a BF16 block in place of the quantized one for the second prompt alone."""
    calls = scene.memory.setdefault("quantized calls", [])
    calls.append(0)
    blocks = scene.pipe.transformer.transformer_blocks
    quantized = blocks[0]
    if len(calls) == 2:
        blocks[0] = scene.memory["transformer"].transformer_blocks[0]
    result = scene.call()
    blocks[0] = quantized
    return result


_body = partial(Fault, layer=Layer.BODY, expected=Outcome.NOT_QUANTIZED)

FAULTS = [
    _body(
        injected="BF16 weights in the fourth of eight calls alone, the quantized ones put back after it",
        quantized=_weights_in_one_call,
        why="every product of every call is observed: 52 layers did not run quantized in one of eight",
        layers=0,
        **WHOLE,
    ),
    _body(
        injected="one layer's product with its BF16 weight in the fourth of eight calls alone",
        quantized=_layer_in_one_call,
        why="a layer that is called in a call has to multiply quantized in it",
        layers=51,
        **WHOLE,
    ),
    _body(
        injected="products with bare BF16 tensors (x @ w.T) in the fourth of eight calls alone",
        quantized=_products_in_one_call(lambda x, w: x @ w.T),
        said="belong to no denoiser",
        why="products without a known weight are compared with those of the call that was looked at more closely",
        **WHOLE,
    ),
    _body(
        injected="the same as an einsum of three operands",
        quantized=_products_in_one_call(lambda x, w: torch.einsum("...i,oi,o->...o", x, w, torch.ones_like(w[:, 0]))),
        said="belong to no denoiser",
        why="products without a known weight are compared with those of the call that was looked at more closely",
        **WHOLE,
    ),
    _body(
        injected="the same in a scripted function",
        expected=Outcome.ERROR,
        quantized=_products_in_one_call(scripted),
        why="the hook on one arm alone tells; the products inside are looked for in the first call of the denoiser alone",
        **WHOLE,
    ),
    _body(
        injected="the BF16 denoiser's outputs returned by a hook in the fourth of eight calls alone",
        quantized=_denoiser_in_one_call,
        said="belong to no denoiser",
        why="what a denoiser's hooks multiply counts: a ninth of the arithmetic is with BF16's weights",
        **WHOLE,
    ),
    _body(
        injected="a BF16 block put in place of the quantized one before the second prompt",
        quantized=_module_of_a_later_prompt,
        why="the weights are compared at the end with those at the start",
    ),
    _body(
        injected="a BF16 block in place of the quantized one for one of two prompts alone, put back after it",
        quantized=_block_of_a_prompt_between,
        why="the calls of all prompts are observed: the block's layers did not run in one of them",
    ),
]
