"""Faults in what is quantized and in what runs: layers that are BF16 although the arm says otherwise."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers import FluxPipeline
from own_formats import own_format
from small_denoiser import scripted
from torch.nn import functional
from trust_bench import RECIPE, Act, Fault, Layer, Scene, empty_store

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.models import Recipe, SelectionRule, SkipPattern
from pytest_mxq.pipelines.quantize import share_copy
from pytest_mxq.planning.settings import Reference


def linears(module: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    """Return the layers whose weight is quantized, by name."""
    found = {name: part for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)}
    return {name: part for name, part in found.items() if type(part.weight).__name__ == "EmulatedTensor"}


def put_back(scene: Scene, matches: Callable[[str], bool]) -> None:
    """Put BF16 weights into the quantized layers of some names."""
    bf16 = dict(scene.memory["transformer"].named_modules())
    for name, layer in linears(scene.pipe.transformer).items():
        if matches(name):
            layer.weight = bf16[name].weight


def with_bf16(matches: Callable[[str], bool]) -> Act:
    """Return a body that puts BF16 weights back before it generates."""

    def act(scene: Scene) -> object:
        put_back(scene, matches)
        return scene.call()

    return act


def _first(name: str) -> bool:
    return name == "transformer_blocks.0.attn.to_q"


def _after_the_first_step(scene: Scene) -> object:
    def callback(pipe: Any, _step: int, _timestep: Any, _given: Any) -> dict[str, Any]:
        if scene.is_quantized:
            put_back(scene, lambda _name: True)
        return {}

    return scene.call(callback_on_step_end=callback)


def _in_the_first_step(scene: Scene) -> object:
    layers = linears(scene.pipe.transformer)
    weights = {name: layer.weight for name, layer in layers.items()}
    put_back(scene, lambda _name: True)

    def callback(_pipe: Any, _step: int, _timestep: Any, _given: Any) -> dict[str, Any]:
        for name, layer in layers.items():
            layer.weight = weights[name]
        return {}

    return scene.call(callback_on_step_end=callback)


def _forward_of_bf16(scene: Scene) -> object:
    scene.pipe.transformer.forward = scene.memory["transformer"].forward
    return scene.call()


def _denoiser_of_bf16(scene: Scene) -> object:
    scene.pipe.transformer = scene.memory["transformer"]
    return scene.call()


def _written_over(scene: Scene) -> object:
    """Write BF16's numbers over the quantized ones, where autograd's version counter sees it."""
    bf16 = dict(scene.memory["transformer"].named_modules())
    for name, layer in linears(scene.pipe.transformer).items():
        weight: Any = layer.weight
        weight.values.copy_(bf16[name].weight)
    return scene.call()


def _written_over_unseen(scene: Scene) -> object:
    """Write BF16's numbers over the quantized ones, past autograd's version counter."""
    bf16 = dict(scene.memory["transformer"].named_modules())
    for name, layer in linears(scene.pipe.transformer).items():
        weight: Any = layer.weight
        weight.values.data.copy_(bf16[name].weight)
    return scene.call()


def _output_of_bf16(share: float) -> Act:
    """Return a body that mixes the BF16 denoiser's outputs into the quantized one's."""

    def act(scene: Scene) -> object:
        bf16 = scene.memory["transformer"]

        def mix(_module: Any, args: Any, kwargs: Mapping[str, Any], result: Any) -> Any:
            return (torch.lerp(result[0], bf16(*args, **kwargs)[0], share),)

        scene.pipe.transformer.register_forward_hook(mix, with_kwargs=True)
        return scene.call()

    return act


def _products_of_bf16(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Act:
    """Return a body whose quantized layers run, and return products with BF16 tensors that are no parameters."""

    def act(scene: Scene) -> object:
        bf16 = dict(scene.memory["transformer"].named_modules())
        for name, layer in linears(scene.pipe.transformer).items():
            if name.startswith("single_transformer_blocks"):
                weight, bias = bf16[name].weight.detach().clone(), bf16[name].bias

                def hook(_m: Any, args: Any, _out: Any, weight: Any = weight, bias: Any = bias) -> torch.Tensor:
                    product = multiply(args[0], weight)
                    return product if bias is None else product + bias

                layer.register_forward_hook(hook)
        return scene.call()

    return act


def _dequantized(scene: Scene) -> object:
    def forward(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        weight: Any = layer.weight
        scale = 1.0 if weight.scale is None else weight.scale
        return functional.linear(x, (weight.values.float() * scale).to(x.dtype), layer.bias)

    for layer in linears(scene.pipe.transformer).values():
        layer.forward = types.MethodType(forward, layer)  # type: ignore[method-assign]
    return scene.call()


def _deleted(scene: Scene) -> object:
    """Skip a block: its forward returns what it was given."""
    block = scene.pipe.transformer.single_transformer_blocks[0]
    block.forward = lambda hidden_states, encoder_hidden_states, **_: (encoder_hidden_states, hidden_states)
    return scene.call()


def _prepared(prepare: Callable[[Any], None]) -> Recipe:
    return replace(RECIPE, prepare=prepare)


class _TwoDenoisers(FluxPipeline):  # type: ignore[misc]  # diffusers ships no types
    def __init__(self, *args: Any, transformer_2: Any = None, **kwargs: Any) -> None:
        raise NotImplementedError  # a pipeline becomes one; none is made

    @property
    def components(self) -> dict[str, Any]:
        return {"transformer_2": self.transformer_2, "transformer": self.transformer} | {
            name: getattr(self, name) for name in ("scheduler", "vae", "text_encoder", "text_encoder_2")
        }


def _two_denoisers() -> Recipe:
    """A second denoiser in BF16, of whose outputs and the first one's the mean is taken."""
    kept: dict[str, Any] = {}

    def prepare(pipe: Any) -> None:
        kept.setdefault("bf16", share_copy(pipe.transformer))
        pipe.__class__ = _TwoDenoisers
        pipe.transformer_2 = copy.copy(kept["bf16"])

        def mean(_module: Any, args: Any, kwargs: Mapping[str, Any], result: Any) -> Any:
            other = pipe.transformer_2(*args, **kwargs)
            return ((result[0] + other[0]) / 2,)

        pipe.transformer.register_forward_hook(mean, with_kwargs=True)

    return _prepared(prepare)


def _prepared_bf16() -> Recipe:
    """`prepare` puts the BF16 denoiser into the quantized arm."""
    kept: dict[str, Any] = {}

    def prepare(pipe: Any) -> None:
        pipe.transformer = kept.setdefault("bf16", pipe.transformer)

    return _prepared(prepare)


def _rule(*patterns: str, min_features: int = 192) -> Recipe:
    skips = tuple(SkipPattern(pattern=pattern, reason="the fault") for pattern in patterns)
    rule = SelectionRule(min_features=min_features, skip=(*RECIPE.rule.skip, *skips))
    return replace(RECIPE, rule=rule)


_body = partial(Fault, layer=Layer.BODY, expected=Outcome.NOT_QUANTIZED)
_layers = partial(Fault, layer=Layer.LAYERS, expected=Outcome.NOT_QUANTIZED)

FAULTS = [
    _body(
        injected="BF16 weights put back into every layer by the body",
        quantized=with_bf16(lambda _name: True),
        said="what ran is not what was built",
        why="every product of the judged call is observed: none is with a quantized weight",
    ),
    _body(
        injected="BF16 weight put back into one layer",
        quantized=with_bf16(_first),
        said="transformer_blocks.0.attn.to_q",
        why="one chosen layer of 52 that did not run quantized is enough",
    ),
    _body(
        injected="BF16 weights put back into all layers of a kind (attn.to_q)",
        quantized=with_bf16(lambda name: name.endswith("attn.to_q")),
        said="attn.to_q",
        why="each chosen layer is looked at by its name",
    ),
    _body(
        injected="BF16 weights put back after the first step",
        quantized=_after_the_first_step,
        bf16=_after_the_first_step,
        reference=Reference.LIVE,
        said="what ran is not what was built",
        why="the weights are looked at after the calls as well",
    ),
    _body(
        injected="BF16 weights in the first step alone",
        quantized=_in_the_first_step,
        bf16=_in_the_first_step,
        reference=Reference.LIVE,
        said="what ran is not what was built",
        why="a layer has to run quantized in every call of the denoiser",
    ),
    _body(
        injected="forward of the denoiser replaced by the BF16 denoiser's",
        quantized=_forward_of_bf16,
        said="did not run quantized",
        why="the quantized weights are held and never multiplied",
    ),
    _body(
        injected="quantized denoiser replaced by the BF16 one on the pipeline, by the body",
        quantized=_denoiser_of_bf16,
        said="did not run quantized",
        why="the denoiser that was built is observed, and it was not called",
    ),
    _body(
        injected="products with BF16 tensors (no parameters) returned by hooks of the quantized layers",
        quantized=_products_of_bf16(functional.linear),
        said="belong to no denoiser",
        why="a weight counts whatever kind of tensor it is, in the share of the weights and of the arithmetic",
    ),
    _body(
        injected="the same, written as an einsum of three operands",
        quantized=_products_of_bf16(lambda x, w: torch.einsum("...i,oi,o->...o", x, w, torch.ones_like(w[:, 0]))),
        said="belong to no denoiser",
        why="products are counted at the operators that they come down to as well",
    ),
    _body(
        injected="the same, in a scripted function",
        quantized=_products_of_bf16(scripted),
        said="belong to no denoiser",
        why="products are counted at the operators that they come down to as well",
    ),
    _body(
        injected="the same, as multiplications and a sum",
        quantized=_products_of_bf16(lambda x, w: (x[..., None, :] * w).sum(-1)),
        said="belong to no denoiser",
        why="an elementwise product that repeats both operands counts as a matrix product",
    ),
    _body(
        injected="weights dequantized before the product",
        quantized=_dequantized,
        said="did not run quantized",
        why="a dequantized copy is an unknown weight, which counts as BF16",
    ),
    _body(
        injected="BF16's numbers written over the quantized ones",
        quantized=_written_over,
        said="changed in place",
        why="the parameters are compared with those that were built",
    ),
    _body(
        injected="BF16's numbers written over the quantized ones through .data",
        quantized=_written_over_unseen,
        said="written over",
        why="some bytes of every weight are compared after the call",
    ),
    _body(
        injected="the BF16 denoiser's outputs returned by a hook of the quantized one",
        quantized=_output_of_bf16(1.0),
        said="belong to no denoiser",
        why="the quantized layers ran for nothing, and half of the arithmetic is with BF16's weights",
    ),
    _body(
        injected="the mean of both denoisers' outputs returned by a hook of the quantized one",
        quantized=_output_of_bf16(0.5),
        said="belong to no denoiser",
        why="what a denoiser's hooks multiply counts: half of the arithmetic is with BF16's weights",
    ),
    _body(
        injected="a block skipped on the quantized arm",
        quantized=_deleted,
        said="single_transformer_blocks.0",
        why="its layers were chosen and did not run",
    ),
    _layers(
        injected="quantized denoiser replaced by the BF16 one in the recipe's prepare",
        recipe=_prepared_bf16,
        why="the evidence is collected after prepare, from the denoiser that is going to run",
    ),
    _layers(
        injected="a second denoiser in BF16 beside the quantized one",
        recipe=_two_denoisers,
        reference=Reference.LIVE,
        said="are wanted",
        why="the share is of the weights of all denoisers that ran: it halves, below the 75 % that are wanted",
    ),
    _layers(
        injected="a rule that keeps the single-stream blocks in BF16",
        recipe=lambda: _rule("single_transformer_blocks"),
        settings={"min_share": 0.01},
        said="single_transformer_blocks",
        why="the stored baseline recorded which layers the format quantizes",
    ),
    _layers(
        injected="a rule that keeps one layer in BF16",
        recipe=lambda: _rule("transformer_blocks.0.attn.to_q"),
        settings={"min_share": 0.01},
        said="to_q",
        why="the stored selection has one layer more",
    ),
    _layers(
        injected="a rule that keeps the single-stream blocks in BF16, without a baseline",
        recipe=lambda: _rule("single_transformer_blocks"),
        stored=empty_store,
        said="are wanted",
        why="51 % of the weights are quantized, and the demo wants 75 %",
    ),
    _layers(
        injected="a rule that quantizes nothing",
        recipe=lambda: _rule(min_features=4096),
        said="none of",
        why="torchao raises nothing where its filter matches nothing; the evidence does",
    ),
    _layers(
        injected="fewer weights quantized than wanted (min_share=0.99)",
        settings={"min_share": 0.99},
        said="are wanted",
        why="the share of the weights is measured, and compared with what the test asks for",
    ),
    _layers(
        injected="a format that leaves the numbers as they are",
        number_format=lambda: own_format("mxfp8", lambda weight: weight),
        said="bit-identical",
        why="every image is bit-identical to BF16's: quantization had no effect",
    ),
]
