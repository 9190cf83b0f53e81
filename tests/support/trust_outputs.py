"""Faults in the images themselves, between the pipeline and the gate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from gate_bench import FORMATS
from torch.nn import functional
from trust_bench import WITHOUT_EFFECT, Act, Fault, Layer, Scene, empty_store, plainly

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.settings import Reference

Change = Callable[[torch.Tensor], torch.Tensor]


def changing(change: Change) -> Act:
    """Return a body whose pipeline returns changed images, by a patch that it takes off again."""

    def act(scene: Scene) -> object:
        processor = scene.pipe.image_processor
        postprocess = processor.postprocess
        processor.postprocess = lambda *args, **kwargs: change(postprocess(*args, **kwargs))
        try:
            return scene.call()
        finally:
            del processor.postprocess

    return act


def _returning(change: Change) -> Any:
    """Return a body that itself changes what the pipeline returned."""
    return lambda scene: change(scene.call())


def _second(change: Change) -> Any:
    """Return a body that changes the image of the second prompt alone."""
    act = changing(change)
    return lambda scene: act(scene) if scene.prompt == DEMO.prompts[1] else scene.call()


# The faults of images stand in the same patch on both arms, which has no effect in BF16: a patch on one arm is an error.
_patched, _patched_second = changing(lambda images: images), _second(lambda images: images)
WITHOUT_EFFECT |= {_patched, _patched_second}


def _not_finite(images: torch.Tensor) -> torch.Tensor:
    images[0, 0, 5, 5] = torch.nan
    return images


def _repeated(scene: Scene) -> object:
    return changing(lambda images: scene.memory.setdefault("first", images.clone()))(scene)


def _blurred(images: torch.Tensor) -> torch.Tensor:
    """Average each 2 x 2 pixels, as strong JPEG does to colours."""
    small = functional.avg_pool2d(images.float(), 2)
    return functional.interpolate(small, scale_factor=2, mode="bilinear").to(images.dtype)


def _smaller(images: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(images.float(), size=(96, 96), mode="bilinear")


_outputs = partial(Fault, layer=Layer.OUTPUTS, expected=Outcome.REGRESSION, bf16=_patched, reference=Reference.LIVE)
_degenerate = partial(_outputs, expected=Outcome.DEGENERATE)

FAULTS = [
    _outputs(injected="negated images", quantized=changing(lambda x: 1 - x), why="nothing is where it was"),
    _outputs(
        injected="images from -1 to 1",
        quantized=changing(lambda x: 2 * x - 1),
        expected=Outcome.ERROR,
        said="0 to 1",
        why="values beyond 0 to 1 would be cut off; the range is looked at before",
    ),
    _degenerate(
        injected="black images", quantized=changing(torch.zeros_like), said="constant", why="nothing is in them"
    ),
    _degenerate(
        injected="images of one grey",
        quantized=changing(lambda x: torch.full_like(x, 0.5)),
        said="constant",
        why="nothing is in them",
    ),
    _degenerate(
        injected="one black image of two",
        quantized=_second(torch.zeros_like),
        bf16=_patched_second,
        said="image 1",
        why="each image counts",
    ),
    _degenerate(
        injected="one NaN in one pixel of one image",
        quantized=_second(_not_finite),
        bf16=_patched_second,
        said="not-finite",
        why="8-bit images would hide it; the floats are looked at",
    ),
    _outputs(
        injected="images of another size (96 x 96)",
        expected=Outcome.ERROR,
        quantized=changing(_smaller),
        said="96 x 96 pixels on the mxfp8 arm and of 128 x 128 on the BF16 arm",
        why="both arms do the same; nothing is resized to be compared",
    ),
    _degenerate(
        injected="images of another size on both arms",
        quantized=changing(_smaller),
        bf16=changing(_smaller),
        said="wrong-size",
        why="the size that the call asked for is compared with the size that came",
    ),
    _outputs(
        injected="the two images of a batch exchanged",
        batch_size=2,
        quantized=changing(lambda x: x.flip(0)),
        why="each image is compared with the one of its own prompt",
    ),
    _degenerate(
        injected="the first image repeated for the second prompt",
        quantized=_repeated,
        said="duplicate",
        why="two prompts never give one image",
    ),
    _outputs(
        injected="brightness up by 8/255",
        quantized=changing(lambda x: (x + 8 / 255).clamp(0, 1)),
        why="LPIPS hardly looks at brightness, and the bounds of MXFP8 are narrower still",
    ),
    _outputs(
        injected="brightness up by 8/255, judged by PSNR",
        gate="psnr",
        quantized=changing(lambda x: (x + 8 / 255).clamp(0, 1)),
        why="8/255 is 30.1 dB, below the bound of 50 dB",
    ),
    _outputs(
        injected="brightness up by 8/255, in NVFP4",
        number_format=lambda: FORMATS["nvfp4"],
        quantized=changing(lambda x: (x + 8 / 255).clamp(0, 1)),
        expected=Outcome.PASS,
        unseen=True,
        why="LPIPS hardly looks at brightness; PSNR does",
    ),
    _outputs(injected="mirrored images", quantized=changing(lambda x: x.flip(-1)), why="LPIPS compares place by place"),
    _outputs(injected="blurred images (2 x 2 averages)", quantized=changing(_blurred), why="the details are gone"),
    _outputs(injected="red and blue exchanged", quantized=changing(lambda x: x.flip(1)), why="the colours are others"),
    _outputs(
        injected="one image of two mirrored",
        quantized=_second(lambda x: x.flip(-1)),
        bf16=_patched_second,
        why="one image is beyond the bound of the worst",
    ),
    _outputs(
        injected="images moved by one pixel",
        quantized=changing(lambda x: x.roll(1, dims=-1)),
        why="small, and still beyond the bound",
    ),
    _outputs(
        injected="brightness up by 8/255 by the body, on the quantized arm alone, in NVFP4",
        expected=Outcome.ERROR,
        number_format=lambda: FORMATS["nvfp4"],
        quantized=_returning(lambda x: (x + 8 / 255).clamp(0, 1)),
        bf16=plainly,
        said="on the nvfp4 arm alone",
        why="what the test returned is compared with what the pipeline generated, on both arms",
    ),
    _outputs(
        injected="images blurred by the body, on both arms",
        layer=Layer.NOTHING,
        expected=Outcome.PASS,
        stored=empty_store,
        quantized=_returning(_blurred),
        bf16=_returning(_blurred),
        why="no fault: both arms' images are postprocessed alike",
    ),
    _degenerate(
        injected="BF16 itself generates black images",
        stored=empty_store,
        quantized=changing(torch.zeros_like),
        bf16=changing(torch.zeros_like),
        said="BF16 arm itself",
        why="two arms that are equally broken are not compared",
    ),
]
