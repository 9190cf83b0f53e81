"""What a pipeline generated, beside what a body made of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pytest_mxq.pipelines.generate import Generated, Series, generate
from pytest_mxq.pipelines.originals import Original
from pytest_mxq.pipelines.outputs import Audio, Returned, VideoInfo

SERIES = Series(prompts=("red", "green"), batch_size=1, seed=0)


class NoisePipeline:
    """Images of each generator's noise, and a denoiser that is called."""

    def __init__(self) -> None:
        self.transformer = torch.nn.Identity()
        self.components = {"transformer": self.transformer}

    def __call__(self, prompt: Any, *, generator: list[torch.Generator], **_arguments: Any) -> SimpleNamespace:
        del prompt
        noise = torch.cat([torch.rand(1, 3, 8, 8, generator=one) for one in generator])
        return SimpleNamespace(images=self.transformer(noise))


def made(change: Any) -> Generated:
    return generate(lambda pipeline, prompt: change(pipeline(prompt).images), NoisePipeline(), {}, SERIES)


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images,
        lambda images: images.clamp(0, 1),
        lambda images: images.mul(255).round().to(torch.uint8),
        lambda images: SimpleNamespace(images=images.double()),
    ],
    ids=["as they are", "clamped", "8-bit", "another dtype"],
)
def test_the_same_numbers_are_no_change(change: Any) -> None:
    assert made(change).originals == {}


@pytest.mark.parametrize(
    "change",
    [lambda images: images.mul_(0.5), lambda images: images[..., :4], lambda images: images.flip(-1)],
    ids=["in the pipeline's memory", "cropped", "mirrored"],
)
def test_what_the_pipeline_generated_is_kept_where_a_body_changes_it(change: Any) -> None:
    plain, changed = made(lambda images: images), made(change)
    assert sorted(changed.originals) == [0, 1]
    kept = torch.cat([changed.originals[start].images for start in (0, 1)])
    assert torch.equal(kept, plain.images.mul(255).round().to(torch.uint8))


def test_the_output_of_any_call_of_a_body_is_no_change() -> None:
    def first_of_two(pipeline: Any, prompt: Any) -> Any:
        images = pipeline(prompt).images
        pipeline(prompt, strength=0.5)
        return images

    assert generate(first_of_two, NoisePipeline(), {}, SERIES).originals == {}


def test_videos_and_their_audio_are_kept_and_audio_that_is_left_out_is_no_change() -> None:
    frames, waves = torch.rand(1, 5, 3, 8, 8), torch.rand(1, 2, 100)
    original = Original.of(SimpleNamespace(frames=frames, audio=waves))
    assert original is not None
    assert Original.of((frames, waves)) is not None
    assert (len(original.images), original.waves is waves) == (5, False)

    def returned(audio: torch.Tensor | None) -> Returned:
        held = None if audio is None else Audio(waves=audio, rate=100)
        return Returned(images=frames[0], video=VideoInfo(frames=5, rate=24.0, audio=held))

    assert original.is_returned(returned(waves))
    assert original.is_returned(returned(None))
    assert not original.is_returned(returned(waves * 0.5))


@pytest.mark.parametrize("output", [None, "text", ["PIL"], torch.zeros(3, 8, 8), SimpleNamespace(images=["PIL"])])
def test_an_output_without_such_tensors_is_not_kept(output: Any) -> None:
    assert Original.of(output) is None
