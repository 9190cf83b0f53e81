"""Patches, hooks and settings of the pipeline that a body puts on the quantized arm alone."""

from __future__ import annotations

from functools import partial
from typing import Any

from trust_bench import Act, Fault, Layer, Scene
from trust_outputs import changing

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.settings import Reference


def _guidance_by_a_hook(scale: float) -> Act:
    def change(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "guidance": kwargs["guidance"] * 0 + scale}

    def act(scene: Scene) -> object:
        scene.pipe.transformer.register_forward_pre_hook(change, with_kwargs=True)
        return scene.call()

    return act


def _mixed_by_a_patch(scene: Scene) -> object:
    """Mix BF16's image into what the pipeline itself returns, by a patch that is taken off again."""
    kept = scene.memory["images"][0 if scene.prompt == DEMO.prompts[0] else -1]
    return changing(lambda images: 0.95 * kept + 0.05 * images)(scene)


def tiled(scene: Scene) -> object:
    """Let the VAE decode in tiles."""
    scene.pipe.vae.enable_tiling()
    return scene.call()


def _tiled_once(scene: Scene) -> object:
    """Let the VAE decode in tiles where no call did so before: in BF16, which comes first."""
    is_first = scene.memory.setdefault("first call", scene.pipeline) is scene.pipeline
    return tiled(scene) if is_first else scene.call()


_body = partial(Fault, layer=Layer.BODY)

FAULTS = [
    _body(
        injected="another guidance scale on the quantized arm, by a hook of the denoiser",
        expected=Outcome.ERROR,
        quantized=_guidance_by_a_hook(1.0),
        said="changed on one arm alone: transformer: forward pre-hooks",
        why="what the body changed of the pipeline is compared between the arms",
    ),
    _body(
        injected="another guidance scale on the quantized arm, by a hook that both arms have",
        expected=Outcome.REGRESSION,
        quantized=_guidance_by_a_hook(1.0),
        bf16=_guidance_by_a_hook(3.5),
        reference=Reference.LIVE,
        why="nothing but the numbers differs; the images show it",
    ),
    _body(
        injected="BF16's image mixed in (95 to 5) by a patch of the pipeline's image processor, which is taken off again",
        expected=Outcome.ERROR,
        quantized=_mixed_by_a_patch,
        said="changed on one arm alone: image_processor: postprocess",
        why="what the body changed of the pipeline is looked for in its calls as well",
    ),
    _body(
        injected="the VAE's tiling enabled on the quantized arm alone",
        expected=Outcome.ERROR,
        quantized=tiled,
        said="changed on one arm alone: vae: use_tiling False -> True",
        why="what the body changed of the pipeline is compared between the arms",
    ),
    _body(
        injected="the same in the first call of the run alone, which is BF16's",
        expected=Outcome.ERROR,
        quantized=_tiled_once,
        bf16=_tiled_once,
        reference=Reference.LIVE,
        said="changed on one arm alone: vae: use_tiling False -> True",
        why="each arm's pipeline is put back, and the quantized one was never changed",
    ),
]
