"""Caches that leave layers out, and BF16 modules that belong to no component: what each arm called, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig, FluxImg2ImgPipeline, PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig
from gate_bench import Bench, without_compiler
from torch.nn import functional
from trust_bench import RECIPE, Fault, Layer, Scene
from trust_stored import edited

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.models import Recipe
from pytest_mxq.pipelines.quantize import share_copy
from pytest_mxq.planning.settings import Reference


def _broadcast(pipe: Any, skip_range: int) -> Any:
    """Keep attention for so many steps; 1: the hooks are there and never skip."""
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=skip_range,
        spatial_attention_timestep_skip_range=(0, 1000),
        current_timestep_callback=lambda: pipe.current_timestep,
    )


def _every_block_but_the_first(_pipe: Any) -> Any:
    return FirstBlockCacheConfig(threshold=1e9)


def _predicted(_pipe: Any) -> Any:
    return TaylorSeerCacheConfig(cache_interval=5, disable_cache_before_step=1)


def _cached(config: Any) -> Recipe:
    return replace(RECIPE, prepare=lambda pipe: pipe.transformer.enable_cache(config(pipe)))


def _broadcasting() -> Recipe:
    return _cached(partial(_broadcast, skip_range=2))


def _refreshed(bench: Bench, recipe: Recipe) -> None:
    with pytest.MonkeyPatch.context() as patch:
        without_compiler(patch)
        bench.refresh(bench.case(recipe, prompts=2))


def _refreshed_by_an_older_version(bench: Bench) -> None:
    _refreshed(bench, _broadcasting())
    edited(lambda document: document.pop("works"), sealed=True)(bench)


def _caching(scene: Scene) -> object:
    if not scene.pipe.transformer.is_cache_enabled:
        scene.pipe.transformer.enable_cache(_broadcast(scene.pipe, 2))
    return scene.call()


def _skipping_in_the_second_step(scene: Scene) -> object:
    """Keep what a layer that is not quantized (the modulation of a block) made in the first step."""
    norm = scene.pipe.transformer.single_transformer_blocks[1].norm
    forward = norm.forward
    made: list[Any] = []

    def keeping(*args: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(forward(*args, **kwargs))
        return made[0]

    norm.forward = keeping
    return scene.call()


def _mixed_into_a_block(scene: Scene) -> object:
    """Mix what BF16's last block makes into the quantized one's, inside the denoiser."""
    bf16 = scene.memory["transformer"].single_transformer_blocks[-1]

    def mix(_module: Any, args: Any, kwargs: Mapping[str, Any], result: Any) -> Any:
        return tuple(torch.lerp(*pair, 0.5) for pair in zip(result, bf16(*args, **kwargs), strict=True))

    scene.pipe.transformer.single_transformer_blocks[-1].register_forward_hook(mix, with_kwargs=True)
    return scene.call()


def _low_rank(scene: Scene) -> object:
    """Add a product of rank 2 in BF16 to each layer, with weights that a closure keeps."""

    def adding(layer: torch.nn.Linear) -> Any:
        down = torch.ones(2, layer.in_features).bfloat16() * 1e-6
        up = torch.ones(layer.out_features, 2).bfloat16() * 1e-6
        return lambda _module, args, out: out + functional.linear(functional.linear(args[0], down), up)

    for layer in scene.pipe.transformer.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(adding(layer))
    return scene.call()


def _mixed_between_steps(scene: Scene) -> object:
    """Mix BF16's denoiser in where a step ends, outside of the quantized one's forward."""
    given: list[Any] = []

    def keep(_module: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        given.append((args, kwargs))

    def callback(_pipe: Any, _step: int, _timestep: Any, held: dict[str, Any]) -> dict[str, Any]:
        if not scene.is_quantized:
            return {}
        args, kwargs = given[-1]
        return {"latents": held["latents"] + 0.01 * scene.memory["transformer"](*args, **kwargs)[0]}

    scene.pipe.transformer.register_forward_pre_hook(keep, with_kwargs=True)
    return scene.call(callback_on_step_end=callback)


def _mixed_in_a_step(scene: Scene) -> object:
    """Mix BF16's denoiser in where the scheduler steps."""
    if "kept" not in scene.memory:
        kind = type(scene.pipe.transformer)
        scene.memory["kept"] = kind.from_pretrained(RECIPE.source, subfolder="transformer", torch_dtype=torch.bfloat16)
    bf16 = scene.memory["kept"]
    given: list[Any] = []
    step = scene.pipe.scheduler.step

    def keep(module: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        if module is scene.pipe.transformer:
            given.append((args, kwargs))

    def mixed(noise: torch.Tensor, *rest: Any, **kwargs: Any) -> Any:
        args, named = given[-1]
        return step(torch.lerp(noise, bf16(*args, **named)[0], 0.9), *rest, **kwargs)

    scene.pipe.transformer.register_forward_pre_hook(keep, with_kwargs=True)
    scene.pipe.scheduler.step = mixed
    return scene.call()


def _linear_between_steps(scene: Scene) -> object:
    """Multiply with BF16's weights where a step ends, in no module."""
    weights = [weight for weight in scene.memory["transformer"].parameters() if weight.dim() == 2]

    def callback(_pipe: Any, _step: int, _timestep: Any, held: dict[str, Any]) -> dict[str, Any]:
        rows = len(held["latents"][0])
        made = (functional.linear(weight.new_ones(rows, weight.shape[1]), weight).mean() for weight in weights)
        return {"latents": held["latents"] + 1e-6 * sum(made)}

    return scene.call(callback_on_step_end=callback)


def _ranked(scene: Scene) -> object:
    """Let a large module that is no component look at the images, as a reranker or a safety checker does."""
    images = scene.call()
    ranker = scene.memory.setdefault("ranker", torch.nn.Linear(4096, 4096).bfloat16())
    ranker(images.bfloat16().reshape(-1, 4096))
    return images


def _ranked_in_the_call(scene: Scene) -> object:
    """Let a large module that is no component look at the latents after each step."""
    ranker = scene.memory.setdefault("ranker", torch.nn.Linear(4096, 4096).bfloat16())

    def callback(_pipe: Any, _step: int, _timestep: Any, held: dict[str, Any]) -> dict[str, Any]:
        ranker(held["latents"].reshape(-1, 4096))
        return {}

    return scene.call(callback_on_step_end=callback)


def _refined(scene: Scene) -> object:
    """Refine the images by another pipeline, with the BF16 denoiser."""
    parts = {**scene.pipe.components, "transformer": scene.memory["transformer"]}
    taken = {name: part for name, part in parts.items() if name not in {"image_encoder", "feature_extractor"}}
    refiner = FluxImg2ImgPipeline(**taken)
    refiner.set_progress_bar_config(disable=True)
    given = {"prompt": scene.prompt, "num_inference_steps": 4, "strength": 0.5, "max_sequence_length": 16}
    return refiner(image=scene.call(), output_type="pt", height=128, width=128, **given).images


def _mixed_on_both_arms() -> Recipe:
    """The mean of each arm's denoiser and a BF16 one that is no component."""
    kept: dict[str, Any] = {}

    def prepare(pipe: Any) -> None:
        bf16 = kept.setdefault("bf16", share_copy(pipe.transformer))

        def mean(_module: Any, args: Any, kwargs: Mapping[str, Any], result: Any) -> Any:
            return ((result[0] + bf16(*args, **kwargs)[0]) / 2,)

        pipe.transformer.register_forward_hook(mean, with_kwargs=True)

    return replace(RECIPE, prepare=prepare)


_unharmed = partial(Fault, layer=Layer.NOTHING, expected=Outcome.PASS)
_body = partial(Fault, layer=Layer.BODY, expected=Outcome.ERROR)

FAULTS = [
    _unharmed(
        injected="hooks of a cache (pyramid attention broadcast) in the recipe's prepare, on both arms",
        recipe=lambda: _cached(partial(_broadcast, skip_range=1)),
        layers=52,
        why="no fault: the cache hooks each arm's own denoiser, and all 52 layers run quantized",
    ),
    _unharmed(
        injected="attention kept for the second step by pyramid attention broadcast, on both arms",
        recipe=_broadcasting,
        stored=lambda bench: _refreshed(bench, _broadcasting()),
        layers=52,
        why="no fault: both arms leave out the same layers, as the stored one did, and what runs is quantized",
    ),
    _unharmed(
        injected="the same cache, against BF16 of this run",
        recipe=_broadcasting,
        reference=Reference.LIVE,
        layers=52,
        why="no fault: the calls of each layer are equal",
    ),
    _unharmed(
        injected="every block but the first kept for the second step (first block cache), on both arms",
        recipe=lambda: _cached(_every_block_but_the_first),
        reference=Reference.LIVE,
        layers=52,
        why="no fault: the calls of each layer are equal",
    ),
    _unharmed(
        injected="denoiser outputs predicted in the second step (TaylorSeer), on both arms",
        recipe=lambda: _cached(_predicted),
        reference=Reference.LIVE,
        layers=52,
        why="no fault: the calls of each layer are equal",
    ),
    _body(
        injected="a cache on both arms, and a baseline that was stored without it",
        expected=Outcome.STALE,
        recipe=_broadcasting,
        said="layer calls",
        why="the baseline holds how often BF16 called its layers",
    ),
    _body(
        injected="a cache on both arms, and a baseline of an older version, without layer calls",
        expected=Outcome.NOT_QUANTIZED,
        recipe=_broadcasting,
        stored=_refreshed_by_an_older_version,
        said="left out layers",
        why="without BF16's calls a layer must run in every call of the denoiser",
    ),
    _body(
        injected="a cache (pyramid attention broadcast) on the quantized arm alone",
        quantized=_caching,
        said="layer calls: single_transformer_blocks.0.attn.to_k 2 -> 1",
        why="the calls of each layer are counted on both arms",
    ),
    _body(
        injected="one layer that is not quantized left out of the second step, on the quantized arm",
        quantized=_skipping_in_the_second_step,
        reference=Reference.LIVE,
        said="layer calls: single_transformer_blocks.1.norm.linear 2 -> 1",
        why="layers that stay in BF16 are counted as well",
    ),
    _body(
        injected="BF16's last block mixed into the quantized one, by a hook inside the denoiser",
        expected=Outcome.NOT_QUANTIZED,
        quantized=_mixed_into_a_block,
        said="belong to no denoiser",
        why="the arithmetic with weights that are not the denoiser's is bounded",
    ),
    _body(
        injected="a LoRA of rank 2 in BF16 that hooks of the quantized layers keep in a closure",
        expected=Outcome.PASS,
        quantized=_low_rank,
        bf16=_low_rank,
        reference=Reference.LIVE,
        said="belong to no denoiser",
        why="a small share of the arithmetic: a caution names it",
    ),
    _body(
        injected="BF16's denoiser mixed in between the steps (callback_on_step_end)",
        expected=Outcome.NOT_QUANTIZED,
        quantized=_mixed_between_steps,
        bf16=_mixed_between_steps,
        reference=Reference.LIVE,
        said="belong to no denoiser",
        why="weights of the denoiser's shapes that belong to no component are counted wherever the pipeline calls them",
    ),
    _body(
        injected="the same by scheduler.step, on both arms",
        expected=Outcome.NOT_QUANTIZED,
        quantized=_mixed_in_a_step,
        bf16=_mixed_in_a_step,
        reference=Reference.LIVE,
        said="belong to no denoiser",
        why="weights of the denoiser's shapes that belong to no component are counted wherever the pipeline calls them",
    ),
    _body(
        injected="BF16's weights multiplied in between the steps, in no module, on both arms",
        expected=Outcome.NOT_QUANTIZED,
        quantized=_linear_between_steps,
        bf16=_linear_between_steps,
        reference=Reference.LIVE,
        said="belong to no denoiser",
        why="between the denoiser's calls products with weights of its shapes count as well",
    ),
    _unharmed(
        injected="a large module that is no component (a reranker) called after the pipeline, on both arms",
        quantized=_ranked,
        bf16=_ranked,
        reference=Reference.LIVE,
        layers=52,
        why="no fault: what runs outside of the pipeline's calls changes nothing that they generate",
    ),
    _unharmed(
        injected="a reranker that is no component, called after each step, on both arms",
        quantized=_ranked_in_the_call,
        bf16=_ranked_in_the_call,
        reference=Reference.LIVE,
        said="belong to no component",
        layers=52,
        why="no fault: both arms call it, and its weights are unlike the denoiser's; a caution names its share",
    ),
    _body(
        injected="a reranker after the pipeline's call, on the quantized arm alone",
        quantized=_ranked,
        reference=Reference.LIVE,
        said="other module calls",
        why="modules of no component are counted on both arms",
    ),
    _body(
        injected="images of a refiner returned, an image-to-image pipeline with the BF16 denoiser, on both arms",
        quantized=_refined,
        bf16=_refined,
        reference=Reference.LIVE,
        said="something else than what mxq_pipeline",
        why="what is judged comes from the pipeline that the body was handed, not from one of another class",
    ),
    _body(
        injected="a BF16 denoiser that is no component mixed in by hooks, on both arms",
        expected=Outcome.NOT_QUANTIZED,
        recipe=_mixed_on_both_arms,
        reference=Reference.LIVE,
        said="belong to no denoiser",
        why="both arms do the same work, and half of the arithmetic is with weights that are not the denoiser's",
    ),
]
