"""Faults in the work of the quantized arm: it does something else than BF16 did."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchLCMScheduler
from gate_bench import FORMATS
from torch.nn import functional
from trust_bench import WHOLE, Fault, Layer, Scene

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.settings import Reference


class _HalfOfTheSteps(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]  # diffusers ships no types
    def set_timesteps(self, *args: Any, sigmas: Any = None, **kwargs: Any) -> None:
        super().set_timesteps(*args, sigmas=None if sigmas is None else sigmas[::2], **kwargs)


_HalfOfTheSteps.__name__ = "FlowMatchEulerDiscreteScheduler"  # as one that was changed in place would be called


def with_scheduler(kind: Any, **changes: Any) -> Any:
    """Return a body that exchanges the scheduler."""

    def act(scene: Scene) -> object:
        scene.pipe.scheduler = kind.from_config(scene.pipe.scheduler.config, **changes)
        return scene.call()

    return act


def _calling(**arguments: Any) -> Any:
    return lambda scene: scene.call(**arguments)


def _other_prompt(scene: Scene) -> object:
    return scene.pipeline(DEMO.prompts[5]).images


def _other_noise(scene: Scene) -> object:
    return scene.call(latents=torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(9)).bfloat16())


def _from_the_bf16_pipeline(scene: Scene) -> object:
    scene.call()
    given = {name: value for name, value in scene.pipeline.arguments.items() if name != "output_type"}
    return scene.memory["pipe"](prompt=scene.prompt, output_type="pt", **given).images


def _from_memory(scene: Scene) -> object:
    scene.call()
    return scene.memory["images"][0 if scene.prompt == DEMO.prompts[0] else -1]


def _copy_from_memory(scene: Scene) -> object:
    scene.call()
    return scene.memory["images"][0 if scene.prompt == DEMO.prompts[0] else -1].clone()


def _one_copy_from_memory(scene: Scene) -> object:
    generated = scene.call()
    return scene.memory["images"][0].clone() if scene.prompt == DEMO.prompts[0] else generated


def _mixed_from_memory(scene: Scene) -> object:
    kept = scene.memory["images"][0 if scene.prompt == DEMO.prompts[0] else -1]
    return 0.95 * kept + 0.05 * scene.call()


def _written_from_memory(scene: Scene) -> object:
    """Write BF16's image into the pipeline's own memory, and change one value."""
    images = scene.call()
    images.copy_(scene.memory["images"][0 if scene.prompt == DEMO.prompts[0] else -1])
    images[0, 0, 0, 0] = 1 - images[0, 0, 0, 0].round()
    return images


def _mixed_on_both_arms(scene: Scene) -> object:
    """Mix each arm's image, at half the size, into the one that BF16 generated (5 to 95)."""
    small = functional.avg_pool2d(scene.call().float(), 2)
    kept = scene.memory.setdefault(scene.prompt, small)
    return functional.interpolate(0.95 * kept + 0.05 * small, scale_factor=2)


def _without_a_call(scene: Scene) -> object:
    return scene.memory["images"][0]


def _one_more_call(scene: Scene) -> object:
    given: list[Any] = []
    transformer = scene.pipe.transformer
    hook = transformer.register_forward_pre_hook(
        lambda _m, args, kwargs: given.append((args, kwargs)), with_kwargs=True
    )
    images = scene.call()
    hook.remove()
    args, kwargs = given[0]
    transformer(*args, **kwargs)
    return images


def _best_of_two(scene: Scene) -> object:
    scene.call()
    return scene.call()


def _other_seed(scene: Scene) -> object:
    scene.pipeline.seed += 7
    return scene.call()


def _other_seed_once(scene: Scene) -> object:
    scene.pipeline.seed += 7 if scene.prompt == DEMO.prompts[1] else 0
    return scene.call()


def _other_index_meanwhile(scene: Scene) -> object:
    """Generate from the noise of another image, and leave no trace of it."""
    index = scene.pipeline.first_index
    scene.pipeline.first_index = 7
    images = scene.call()
    scene.pipeline.first_index = index
    return images


def _embeddings_lost(scene: Scene) -> object:
    encode = scene.pipe.encode_prompt

    def lost(*args: Any, **kwargs: Any) -> Any:
        embeddings, pooled, *rest = encode(*args, **kwargs)
        return (torch.zeros_like(embeddings), pooled, *rest)

    scene.pipe.encode_prompt = lost
    return scene.call()


def _noise_of_one_image(scene: Scene) -> object:
    """Start one image of the batch from other noise, behind the pipeline's back."""
    prepare = scene.pipe.prepare_latents

    def other(*args: Any, **kwargs: Any) -> Any:
        latents, *rest = prepare(*args, **kwargs)
        latents = latents.clone()
        noise = torch.randn(latents[3].shape, generator=torch.Generator().manual_seed(9))
        latents[3] = noise.to(latents.dtype)
        return (latents, *rest)

    scene.pipe.prepare_latents = other
    return scene.call()


_body = partial(Fault, layer=Layer.BODY)
_from_bf16s_images = partial(
    _body,
    expected=Outcome.ERROR,
    number_format=lambda: FORMATS["nvfp4"],
    reference=Reference.LIVE,
    said="on the nvfp4 arm alone",
)
_scheduler = partial(Fault, layer=Layer.SCHEDULER, expected=Outcome.ERROR)

FAULTS = [
    _scheduler(
        injected="half of the steps on the quantized arm, by its scheduler",
        quantized=with_scheduler(_HalfOfTheSteps),
        said="denoiser calls: transformer 2 -> 1",
        why="the calls of the denoiser are counted on both arms",
    ),
    _scheduler(
        injected="another scheduler on the quantized arm",
        quantized=with_scheduler(FlowMatchLCMScheduler),
        said="scheduler",
        why="the scheduler's class and timesteps are compared",
    ),
    _scheduler(
        injected="another shift of the timesteps on the quantized arm",
        quantized=with_scheduler(FlowMatchEulerDiscreteScheduler, use_dynamic_shifting=False, shift=1.5),
        said="timesteps",
        why="the timesteps that the denoiser was given are compared",
    ),
    _body(
        injected="one step less on the quantized arm, by num_inference_steps",
        expected=Outcome.STALE,
        quantized=_calling(num_inference_steps=1),
        said="num_inference_steps 2 -> 1",
        why="the arguments of each call are part of the case's identity; the stored images are of another case",
    ),
    _body(
        injected="the same, against BF16 of this run",
        expected=Outcome.ERROR,
        reference=Reference.LIVE,
        quantized=_calling(num_inference_steps=1),
        said="num_inference_steps 2 -> 1",
        why="no baseline can be stale: the body does not do the same on both arms",
    ),
    _body(
        injected="another guidance scale on the quantized arm",
        expected=Outcome.STALE,
        quantized=_calling(guidance_scale=7.0),
        said="guidance_scale 3.5 -> 7.0",
        why="the arguments of each call are part of the case's identity",
    ),
    _body(
        injected="the embeddings of the prompt lost (zeros) on the quantized arm",
        expected=Outcome.ERROR,
        quantized=_embeddings_lost,
        said="changed on one arm alone: encode_prompt",
        why="what the body changed of the pipeline is compared between the arms",
    ),
    _body(
        injected="another prompt on the quantized arm",
        expected=Outcome.STALE,
        quantized=_other_prompt,
        said="prompt",
        why="a prompt that is not the planned one is recorded with the call",
    ),
    _body(
        injected="other starting noise on the quantized arm (latents=)",
        expected=Outcome.STALE,
        quantized=_other_noise,
        said="latents",
        why="tensors among the arguments are part of the case's identity, by their digests",
    ),
    _body(
        injected="a generator of the body's own",
        expected=Outcome.ERROR,
        quantized=_calling(generator=torch.Generator()),
        said="generator= is the plugin's own",
        why="the noise of each image is the plugin's: one generator an image, seeded by its number",
    ),
    _body(
        injected="another seed for all images, by the pipeline's seed attribute",
        expected=Outcome.ERROR,
        quantized=_other_seed,
        said="mxq_pipeline.seed",
        why="the noise is the plugin's; the seed cannot be set",
    ),
    _body(
        injected="another seed for one image of two",
        expected=Outcome.ERROR,
        quantized=_other_seed_once,
        said="mxq_pipeline.seed",
        why="the noise is the plugin's; the seed cannot be set",
    ),
    _body(
        injected="the noise of another image, by first_index, which is put back",
        expected=Outcome.ERROR,
        number_format=lambda: FORMATS["nvfp4"],
        quantized=_other_index_meanwhile,
        said="mxq_pipeline.first_index",
        why="what decides the noise cannot be set",
    ),
    _body(
        injected="another seed for all images, in NVFP4",
        expected=Outcome.ERROR,
        number_format=lambda: FORMATS["nvfp4"],
        quantized=_other_seed,
        said="seed",
        why="the noise is the plugin's; the seed is compared after the body",
    ),
    _body(
        injected="other noise for one image of eight, by the pipeline's prepare_latents, in NVFP4",
        expected=Outcome.ERROR,
        number_format=lambda: FORMATS["nvfp4"],
        quantized=_noise_of_one_image,
        said="changed on one arm alone: prepare_latents",
        **WHOLE,
        why="what the body changed of the pipeline is compared between the arms",
    ),
    _body(
        injected="images of the BF16 pipeline returned",
        expected=Outcome.ERROR,
        quantized=_from_the_bf16_pipeline,
        said="something else than what mxq_pipeline",
        why="what the pipeline returned is known by its memory; other pipelines' calls are noticed",
    ),
    _body(
        injected="BF16's images kept and returned, on the quantized arm too",
        expected=Outcome.NOT_QUANTIZED,
        quantized=_from_memory,
        said="bit-identical",
        why="all work was done and thrown away; bit-identical images tell",
    ),
    _body(
        injected="copies of BF16's images returned",
        expected=Outcome.NOT_QUANTIZED,
        quantized=_copy_from_memory,
        said="bit-identical",
        why="all work was done and thrown away; bit-identical images tell",
    ),
    _body(
        injected="a copy of BF16's image returned for one prompt of two",
        expected=Outcome.NOT_QUANTIZED,
        quantized=_one_copy_from_memory,
        said="bit-identical",
        why="quantized arithmetic leaves no image as it was",
    ),
    _from_bf16s_images(
        injected="the quantized image mixed into BF16's (5 to 95)",
        quantized=_mixed_from_memory,
        why="the judged images are nearer to BF16's than what the quantized arm generated",
    ),
    _from_bf16s_images(
        injected="BF16's image written over the quantized one, with one value changed",
        quantized=_written_from_memory,
        why="the judged images are nearer to BF16's than what the quantized arm generated",
    ),
    _from_bf16s_images(
        injected="each arm's image, made smaller, mixed into BF16's (5 to 95), on both arms",
        quantized=_mixed_on_both_arms,
        bf16=_mixed_on_both_arms,
        bound={"max": 0.0005},
        said="beyond the bound",
        why="what the quantized arm generated is beyond the bound, and what was made of it 20 dB nearer to BF16's",
    ),
    _body(
        injected="images returned without a call of the pipeline",
        expected=Outcome.ERROR,
        quantized=_without_a_call,
        said="without calling",
        why="nothing would be gated",
    ),
    _body(
        injected="one more call of the denoiser on the quantized arm",
        expected=Outcome.ERROR,
        quantized=_one_more_call,
        said="denoiser calls: transformer 2 -> 3",
        why="the calls of the denoiser are counted on both arms",
    ),
    _body(
        injected="two calls of the pipeline on the quantized arm, the second one's images returned",
        expected=Outcome.STALE,
        quantized=_best_of_two,
        said="calls",
        why="each call of the pipeline is recorded",
    ),
]
