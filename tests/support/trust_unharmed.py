"""What is no fault and has to pass: plain bodies, and what people do with pipelines on both arms."""

from __future__ import annotations

from functools import partial, partialmethod
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from gate_bench import FORMATS
from trust_bench import WHOLE, Fault, Layer, Scene, empty_store, plainly
from trust_patches import tiled
from trust_work import with_scheduler

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.settings import Reference


def _clamped(scene: Scene) -> object:
    return scene.call().clamp(0, 1)


def _progress_bar(scene: Scene) -> object:
    scene.pipe.set_progress_bar_config(disable=False, leave=False)
    return scene.call()


def _calling_through(owner: Any, method: Any, *args: Any, **kwargs: Any) -> Any:
    return method(owner, *args, **kwargs)


def _changing_what_all_share(scene: Scene) -> object:
    """Replace a method of the scheduler's class with itself, as a patch in a test does, and set torch's default."""
    kind = type(scene.pipe.scheduler)
    kind.step = partialmethod(_calling_through, kind.step)
    images = scene.call()
    torch.set_default_dtype(torch.bfloat16)
    return images


_same_scheduler = with_scheduler(FlowMatchEulerDiscreteScheduler)
_plain = partial(Fault, layer=Layer.NOTHING, expected=Outcome.PASS)

FAULTS = [
    _plain(injected="nothing, against stored images", why="no fault", layers=52),
    _plain(injected="nothing, against BF16 of this run", why="no fault", reference=Reference.LIVE, layers=52),
    _plain(injected="nothing, judged by SSIM", why="no fault", gate="ssim"),
    _plain(injected="nothing, judged by PSNR", why="no fault", gate="psnr"),
    _plain(
        injected="nothing, in NVFP4",
        number_format=lambda: FORMATS["nvfp4"],
        **WHOLE,
        why="no fault",
        layers=52,
    ),
    _plain(
        injected="the prompts in another order",
        prompts=DEMO.prompts[1::-1],
        stored=empty_store,
        why="no fault: each image is compared with the one of its own prompt and seed",
    ),
    _plain(
        injected="a batch of two prompts",
        batch_size=2,
        stored=empty_store,
        why="no fault: both arms generate in the same batches",
    ),
    _plain(
        injected="the same scheduler made again from its configuration, on both arms",
        quantized=_same_scheduler,
        bf16=_same_scheduler,
        reference=Reference.LIVE,
        said="put back",
        why="no fault: the same work; the change of the pipeline is named in a caution and put back",
    ),
    _plain(
        injected="the VAE's tiling enabled, on both arms",
        quantized=tiled,
        bf16=tiled,
        reference=Reference.LIVE,
        said="vae: use_tiling False -> True, and put back",
        why="no fault: both arms' images are decoded alike",
    ),
    _plain(
        injected="a method of the scheduler's class patched, and torch's default dtype set, on both arms",
        quantized=_changing_what_all_share,
        bf16=_changing_what_all_share,
        reference=Reference.LIVE,
        said="class FlowMatchEulerDiscreteScheduler: step replaced, and put back",
        why="no fault: the same work; what all pipelines share is named in a caution and put back",
    ),
    _plain(
        injected="copies of the images (clamp(0, 1)) returned, on both arms",
        quantized=_clamped,
        bf16=_clamped,
        why="no fault: a copy counts as the pipeline's where its work was done",
    ),
    _plain(
        injected="copies of the images returned on the quantized arm",
        quantized=_clamped,
        bf16=plainly,
        why="no fault: the numbers are the same",
    ),
    _plain(
        injected="the progress bar shown, on both arms",
        quantized=_progress_bar,
        bf16=_progress_bar,
        why="no fault: nothing that is computed changes",
    ),
]
