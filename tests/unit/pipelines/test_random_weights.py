"""Random weights: what they are, that activations stay finite, and that the pipeline takes a prompt."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from torch import nn

from pytest_mxq.errors import MxqError
from pytest_mxq.models import GENERIC_RULE, Recipe
from pytest_mxq.models.flux import FLUX_1_DEV, FULL_SIZE, TINY_SIZE, FluxSize, build_flux
from pytest_mxq.pipelines.random_weights import load_random, materialise

CALL = {"height": 64, "width": 64, "num_inference_steps": 4, "max_sequence_length": 16, "output_type": "pt"}
# As many blocks as FLUX.1-dev has: it is the depth in which activations blow up.
DEEP_SIZE = FluxSize(
    transformer={
        **TINY_SIZE.transformer,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "axes_dims_rope": (8, 12, 12),
    },
    vae=TINY_SIZE.vae,
)


def sized(size: FluxSize) -> Recipe:
    return replace(FLUX_1_DEV, random=lambda: build_flux(size))


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_random(sized(TINY_SIZE), device="cpu").pipe


def generated(pipe: Any, prompt: str | list[str], **arguments: Any) -> torch.Tensor:
    images = pipe(prompt, **CALL, **arguments, generator=torch.Generator().manual_seed(0)).images
    assert isinstance(images, torch.Tensor)
    return images


def parameters(pipe: Any) -> dict[str, torch.Tensor]:
    return {
        f"{component}.{name}": parameter
        for component in ("transformer", "vae", "text_encoder", "text_encoder_2")
        for name, parameter in getattr(pipe, component).named_parameters()
    }


def test_every_parameter_is_bf16_on_the_device_and_ready_to_run(tiny: Any) -> None:
    found = parameters(tiny)
    assert {(value.dtype, value.device.type, value.requires_grad) for value in found.values()} == {
        (torch.bfloat16, "cpu", False)
    }
    assert not any(module.training for module in tiny.transformer.modules())


def test_matrices_are_normal_by_fan_in_norms_are_one_and_biases_zero(tiny: Any) -> None:
    found = parameters(tiny)
    matrix = found["transformer.single_transformer_blocks.1.proj_out.weight"]
    assert matrix.float().std().item() == pytest.approx(matrix.shape[1] ** -0.5, rel=0.01)
    assert abs(matrix.float().mean().item()) < 0.001
    kernel = found["vae.decoder.up_blocks.0.resnets.0.conv1.weight"]
    assert kernel.float().std().item() == pytest.approx((8 * 3 * 3) ** -0.5, rel=0.1)
    assert (found["transformer.transformer_blocks.0.attn.norm_q.weight"] == 1).all()
    assert (found["vae.decoder.conv_norm_out.weight"] == 1).all()
    assert (found["transformer.proj_out.bias"] == 0).all()


def test_a_seed_gives_the_same_weights_again_and_another_seed_others() -> None:
    first, again, other = (load_random(sized(TINY_SIZE), device="cpu", seed=seed) for seed in (7, 7, 8))
    assert (first.weights, other.weights) == ("random:7", "random:8")
    name = "transformer.x_embedder.weight"
    assert torch.equal(parameters(first.pipe)[name], parameters(again.pipe)[name])
    assert not torch.equal(parameters(first.pipe)[name], parameters(other.pipe)[name])


def test_no_two_layers_are_alike(tiny: Any) -> None:
    first, second = tiny.transformer.transformer_blocks
    assert not torch.equal(first.attn.to_q.weight, second.attn.to_q.weight)
    assert not torch.equal(first.attn.to_q.weight, first.attn.to_k.weight)


def test_buffers_keep_their_computed_values() -> None:
    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(4, 4))
            self.frequencies: torch.Tensor
            self.register_buffer("frequencies", torch.arange(3.0), persistent=False)

    with init_empty_weights(include_buffers=False):
        module = Rotary()
    assert module.weight.device.type == "meta"
    materialise(module, torch.Generator().manual_seed(0))
    assert torch.equal(module.frequencies, torch.arange(3.0))
    assert module.frequencies.dtype is torch.float32


def test_activations_stay_small_through_as_many_blocks_as_flux_has() -> None:
    pipe = load_random(sized(DEEP_SIZE), device="cpu").pipe
    largest: list[float] = []

    def watch(_module: nn.Module, _given: Any, returned: tuple[torch.Tensor, ...]) -> None:
        largest.extend(tensor.abs().max().item() for tensor in returned)

    for block in (*pipe.transformer.transformer_blocks, *pipe.transformer.single_transformer_blocks):
        block.register_forward_hook(watch)
    images = generated(pipe, "a")
    assert len(largest) == 2 * 57 * 4
    assert 0.1 < max(largest) < 100
    assert images.isfinite().all()
    assert images.float().std() > 0.05


def test_a_prompt_or_a_list_of_them_generates_that_many_images(tiny: Any) -> None:
    assert generated(tiny, "a").shape == (1, 3, 64, 64)
    assert generated(tiny, ["a", "b"], num_images_per_prompt=2).shape == (4, 3, 64, 64)


def test_every_prompt_gets_the_same_embeddings_and_given_ones_are_taken(tiny: Any) -> None:
    assert torch.equal(generated(tiny, "a"), generated(tiny, "something else"))
    tokens, pooled, ids = tiny.encode_prompt(["a", "b"], max_sequence_length=8)
    assert (tokens.shape, pooled.shape, ids.shape) == ((2, 8, 320), (2, 320), (8, 3))
    assert torch.equal(tokens[0], tokens[1])
    assert tokens.is_contiguous()
    given = tiny.encode_prompt("a", prompt_embeds=tokens + 1, pooled_prompt_embeds=pooled)
    assert torch.equal(given[0], tokens + 1)


def test_a_pipeline_of_the_same_components_generates_the_same_image(tiny: Any) -> None:
    """An arm is such a pipeline, with another denoiser."""
    assert torch.equal(generated(type(tiny)(**tiny.components), "a"), generated(tiny, "a"))


def test_the_full_size_needs_no_memory_before_it_is_filled() -> None:
    with init_empty_weights(include_buffers=False):
        pipe = build_flux(FULL_SIZE)
    assert {value.device.type for value in parameters(pipe).values()} == {"meta"}


def test_a_recipe_without_a_builder_is_refused_by_name() -> None:
    recipe = Recipe(name="mine", source="me/mine", rule=GENERIC_RULE)
    with pytest.raises(MxqError, match=r"'mine' cannot be built with random weights.*random="):
        load_random(recipe, device="cpu")
