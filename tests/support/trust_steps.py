"""Faults in some of the steps: the denoiser does something else in two of the eight of the packaged gate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from trust_bench import WHOLE, WITHOUT_EFFECT, Act, Fault, Layer, Scene

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.planning.settings import Reference


def _in_two_steps(other: Callable[[Scene, list[Any], Any, Any], Any]) -> Act:
    """Return a body whose denoiser does something else in its fourth and fifth call; `other` has the results so far."""

    def act(scene: Scene) -> object:
        forward = scene.pipe.transformer.forward
        results: list[Any] = []

        def changed(*args: Any, **kwargs: Any) -> Any:
            is_changed = len(results) in {3, 4}
            results.append(other(scene, results, args, kwargs) if is_changed else forward(*args, **kwargs))
            return results[-1]

        scene.pipe.transformer.forward = changed
        return scene.call()

    return act


def _outputs_repeated(*steps: int) -> Act:
    """Return a body whose denoiser runs in every step, and puts the outputs of the step before in place of some."""

    def act(scene: Scene) -> object:
        results: list[Any] = []

        def repeat(_module: Any, _args: Any, result: Any) -> Any:
            results.append(results[-1] if len(results) + 1 in steps else result)
            return results[-1]

        scene.pipe.transformer.register_forward_hook(repeat)
        return scene.call()

    return act


_hooked = _outputs_repeated()  # the same hook, without effect
WITHOUT_EFFECT.add(_hooked)
_body = partial(Fault, layer=Layer.BODY, **WHOLE)

FAULTS = [
    _body(
        injected="two of eight steps left out by the denoiser, which returns its outputs of the step before",
        expected=Outcome.ERROR,
        quantized=_in_two_steps(lambda _scene, results, _args, _kwargs: results[-1]),
        why="the layers are called six times on the quantized arm and eight times in BF16: less work",
    ),
    _body(
        injected="the BF16 denoiser in two of eight steps",
        expected=Outcome.NOT_QUANTIZED,
        quantized=_in_two_steps(lambda scene, _results, args, kwargs: scene.memory["transformer"](*args, **kwargs)),
        why="the quantized layers ran in six of eight calls",
    ),
    _body(
        injected="the outputs of the fourth and fifth of eight steps replaced by the third's, by a hook of the denoiser",
        expected=Outcome.REGRESSION,
        quantized=_outputs_repeated(4, 5),
        bf16=_hooked,
        reference=Reference.LIVE,
        gate="psnr",
        why="all work was done; one image is below the bound of the worst",
    ),
    _body(
        injected="the outputs of the fifth and seventh of eight steps replaced by those of the step before, by a hook",
        expected=Outcome.PASS,
        unseen=True,
        quantized=_outputs_repeated(5, 7),
        bf16=_hooked,
        reference=Reference.LIVE,
        gate="psnr",
        why="all work was done, and late steps are so alike that the images change less than by MXFP8 itself",
    ),
]
