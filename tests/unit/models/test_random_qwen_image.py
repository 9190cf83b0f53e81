"""Qwen-Image with random weights: true CFG as with trained ones, two texts of the published lengths."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pytest_mxq.models.qwen_image import QWEN_IMAGE, TINY_SIZE, QwenImageSize, build_qwen_image
from pytest_mxq.pipelines.random_weights import load_random

CALL = {**QWEN_IMAGE.call, "height": 64, "width": 64, "num_inference_steps": 3, "output_type": "pt"}
# As many blocks as Qwen-Image has: it is the depth in which activations blow up.
DEEP_SIZE = QwenImageSize(
    transformer={**TINY_SIZE.transformer, "num_layers": 60, "num_attention_heads": 1}, vae=TINY_SIZE.vae
)


def built(size: QwenImageSize) -> Any:
    return load_random(replace(QWEN_IMAGE, random=lambda: build_qwen_image(size)), device="cpu").pipe


@pytest.fixture(scope="module")
def tiny() -> Any:
    return built(TINY_SIZE)


def generated(pipe: Any, prompt: str | list[str], **arguments: Any) -> torch.Tensor:
    images = pipe(prompt, **{**CALL, **arguments}, generator=torch.Generator().manual_seed(0)).images
    assert isinstance(images, torch.Tensor)
    return images


def texts_of_each_forward(pipe: Any, **arguments: Any) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    hook = pipe.transformer.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(given["encoder_hidden_states"]), with_kwargs=True
    )
    generated(pipe, "a", **arguments)
    hook.remove()
    return seen


def test_each_step_runs_the_prompt_and_the_negative_prompt(tiny: Any) -> None:
    seen = texts_of_each_forward(tiny)
    assert [text.shape for text in seen] == [(1, 14, 320), (1, 6, 320)] * 3
    assert not torch.equal(seen[0][:, :6], seen[1])


def test_without_guidance_each_step_runs_the_prompt_alone(tiny: Any) -> None:
    assert len(texts_of_each_forward(tiny, true_cfg_scale=1.0)) == 3


def test_the_negative_prompt_changes_the_image(tiny: Any) -> None:
    assert not torch.equal(generated(tiny, "a"), generated(tiny, "a", negative_prompt="blurry"))


def test_a_prompt_or_a_list_of_them_generates_that_many_images(tiny: Any) -> None:
    assert generated(tiny, "a").shape == (1, 3, 64, 64)
    several = generated(tiny, ["a", "b"], negative_prompt=[" ", " "], num_images_per_prompt=2)
    assert several.shape == (4, 3, 64, 64)
    assert torch.equal(generated(tiny, "a"), generated(tiny, "something else"))


def test_given_embeddings_are_taken(tiny: Any) -> None:
    tokens, mask = tiny.encode_prompt(["a", "b"])
    assert (tokens.shape, mask) == ((2, 14, 320), None)
    assert torch.equal(tiny.encode_prompt("a", prompt_embeds=tokens + 1)[0], tokens + 1)


def test_the_scales_of_the_vae_s_norms_are_one(tiny: Any) -> None:
    """They are (channels, 1, 1, 1), which looks like a kernel."""
    found = {name: value for name, value in tiny.vae.named_parameters() if name.endswith("gamma")}
    assert found
    for value in found.values():
        assert value.ndim > 2
        assert (value == 1).all()


def test_activations_stay_small_through_as_many_blocks_as_qwen_image_has() -> None:
    pipe = built(DEEP_SIZE)
    largest: list[float] = []

    def watch(_module: Any, _given: Any, returned: tuple[torch.Tensor, ...]) -> None:
        largest.extend(tensor.abs().max().item() for tensor in returned)

    for block in pipe.transformer.transformer_blocks:
        block.register_forward_hook(watch)
    images = generated(pipe, "a")
    assert len(largest) == 2 * 60 * 3 * 2  # streams, blocks, steps, passes
    assert 0.1 < max(largest) < 100
    assert images.isfinite().all()
    assert images.float().std() > 0.05
