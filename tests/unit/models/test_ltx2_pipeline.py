"""LTX-2 at its tiny size: saved and loaded, with random weights, and compiled; its images and its audio."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_mxq.formats import built_in_formats
from pytest_mxq.models import ModelSource, Recipe
from pytest_mxq.models.ltx2 import FULL_SIZE, LTX_2, TINY_SIZE, Ltx2Size, build_ltx2, save_tiny_ltx2
from pytest_mxq.pipelines.cache import ArmStore
from pytest_mxq.pipelines.compile import compile_blocks, repeated_blocks
from pytest_mxq.pipelines.load import load_pipeline
from pytest_mxq.pipelines.quantize import choose_layers, quantize_layers, share_copy
from pytest_mxq.pipelines.random_weights import load_random
from pytest_mxq.pipelines.weights_names import folder_digest

TINY_CALL = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 4, "max_sequence_length": 64}
# As many blocks as LTX-2 has: it is the depth in which activations blow up.
DEEP_SIZE = replace(
    TINY_SIZE,
    transformer={
        **TINY_SIZE.transformer,
        "num_layers": 48,
        "num_attention_heads": 2,
        "cross_attention_dim": 128,
        "audio_num_attention_heads": 2,
        "audio_cross_attention_dim": 128,
    },
)


def sized(size: Ltx2Size) -> Recipe:
    return replace(LTX_2, random=lambda: build_ltx2(size))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "ltx-2"
    save_tiny_ltx2(path)
    return path


@pytest.fixture(scope="module")
def saved(folder: Path) -> Any:
    return load_pipeline(replace(LTX_2, source=str(folder)), revision=None, device="cpu").pipe


@pytest.fixture(scope="module")
def unsaved() -> Any:
    return load_random(sized(TINY_SIZE), device="cpu").pipe


@pytest.fixture
def calls(saved: Any) -> Iterator[list[int]]:
    """Batch size of each call of the transformer."""
    found: list[int] = []

    def note(_module: nn.Module, _given: Any, named: dict[str, Any], _returned: Any) -> None:
        found.append(len(named["hidden_states"]))

    hook = saved.transformer.register_forward_hook(note, with_kwargs=True)
    yield found
    hook.remove()


def videos(pipe: Any, prompt: str | list[str], seeds: tuple[int, ...] = (0,), **given: Any) -> Any:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(prompt, **{**LTX_2.call, **TINY_CALL, **given}, generator=generators, output_type="pt")


def test_the_saved_pipeline_gives_images_and_audio(saved: Any) -> None:
    video = videos(saved, "a cat")
    assert (video.frames.shape, video.audio.shape) == ((1, 9, 3, 64, 64), (1, 2, 7920))
    assert (video.frames.dtype, video.audio.dtype) == (torch.float32, torch.bfloat16)
    assert video.frames.min() >= 0
    assert video.frames.max() <= 1
    assert video.frames.std() > 0.05
    assert video.audio.isfinite().all()
    assert video.audio.abs().max() <= 1
    assert video.audio.float().std() > 0.01
    assert video.audio.float().mean().abs() < 0.01
    assert saved.vocoder.config.output_sampling_rate == 24000


@pytest.mark.parametrize("num_frames", [8, 9, 10, 12, 13])
def test_images_are_rounded_down_to_the_latents_grid_and_the_audio_is_not(saved: Any, num_frames: int) -> None:
    video = videos(saved, "a", num_frames=num_frames, num_inference_steps=2)
    assert video.frames.shape[1] == (num_frames - 1) // 4 * 4 + 1
    latents = round(num_frames / 24 * 16000 / 160 / 4)
    assert video.audio.shape[-1] == (4 * latents - 3) * 240


def test_a_step_calls_the_transformer_once_for_prompt_and_negative_prompt(saved: Any, calls: list[int]) -> None:
    videos(saved, ["a", "b"], (0, 1))
    assert calls == [4] * 4


def test_with_the_pipeline_s_own_guidance_a_step_calls_it_three_times(saved: Any, calls: list[int]) -> None:
    ours = videos(saved, "a")
    calls.clear()
    given = {name: LTX_2.call[name] for name in ("negative_prompt", "guidance_scale", "frame_rate")}
    theirs = saved(
        "a",
        **given,
        **TINY_CALL,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        spatio_temporal_guidance_blocks=[0],  # by default block 28, which the tiny one has not
    )
    assert calls == [2, 1, 1] * 4
    assert (theirs.frames - ours.frames).abs().max() > 0.1


def test_a_prompt_s_video_is_the_same_alone_and_in_a_batch(saved: Any) -> None:
    noise: list[tuple[torch.Tensor, torch.Tensor]] = []

    def generated(prompt: list[str], seeds: tuple[int, ...]) -> Any:
        output = videos(saved, prompt, seeds)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        video = saved.prepare_latents(len(seeds), 32, 64, 64, 9, dtype=torch.float32, generator=generators)
        audio = saved.prepare_audio_latents(len(seeds), 8, 9, 16, dtype=torch.float32, generator=generators)
        noise.append((video, audio))
        return output

    both, one, other = generated(["a cat", "a dog"], (3, 4)), generated(["a cat"], (3,)), generated(["a dog"], (4,))
    for index, alone in enumerate((one, other)):
        assert torch.equal(noise[0][0][index], noise[index + 1][0][0])
        assert torch.equal(noise[0][1][index], noise[index + 1][1][0])
        torch.testing.assert_close(both.frames[index], alone.frames[0], atol=0.02, rtol=0)
        torch.testing.assert_close(both.audio[index], alone.audio[0], atol=0.005, rtol=0)
    assert (one.frames - other.frames).abs().max() > 0.1


def test_prompts_and_negative_prompts_matter(saved: Any) -> None:
    video = videos(saved, "a cat")
    for other in (videos(saved, "a dog"), videos(saved, "a cat", negative_prompt="bright")):
        assert not torch.equal(other.frames, video.frames)
        assert not torch.equal(other.audio, video.audio)


@pytest.mark.parametrize("random", [False, True])
def test_the_vae_of_an_arm_is_tiled(folder: Path, *, random: bool) -> None:
    recipe = replace(sized(TINY_SIZE), source=str(folder))
    assert ArmStore("cpu").base(ModelSource(recipe=recipe, random=random)).pipe.vae.use_tiling


def test_it_is_saved_alike_each_time_and_the_caller_s_random_numbers_stay(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    save_tiny_ltx2(tmp_path / "again")
    assert torch.equal(torch.rand(1), expected)
    assert folder_digest(tmp_path / "again") == folder_digest(folder)


def test_images_and_audio_tell_formats_from_a_transformer_without_blocks(saved: Any) -> None:
    mxfp8 = next(kind for kind in built_in_formats() if kind.name == "mxfp8")
    quantized, empty = share_copy(saved.transformer), share_copy(saved.transformer)
    chosen = choose_layers(quantized, replace(LTX_2.rule, min_features=320), mxfp8)
    assert (len(chosen.names), chosen.total) == (40, 54)
    quantize_layers(quantized, chosen, mxfp8, emulated=True)
    for block in repeated_blocks(empty):
        for layer in block.modules():
            if isinstance(layer, nn.Linear):
                layer.weight = nn.Parameter(torch.zeros_like(layer.weight), requires_grad=False)
    whole = videos(saved, "a cat")
    near, far = (
        videos(type(saved)(**{**saved.components, "transformer": denoiser}), "a cat") for denoiser in (quantized, empty)
    )
    assert _decibels(whole.frames, near.frames) > 17
    assert _decibels(whole.frames, far.frames) < 8
    assert _decibels(whole.audio, near.audio) > 10
    assert _decibels(whole.audio, far.audio) < 4


def _decibels(signal: torch.Tensor, other: torch.Tensor) -> float:
    """Ratio of a signal's variation to its difference from another."""
    difference = signal.float() - other.float()
    return 20 * (signal.float().std() / difference.std()).log10().item()


def test_the_blocks_compile_whole_into_one_graph_and_change_nothing(saved: Any) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def eagerly(graph: torch.fx.GraphModule, _inputs: list[Any], **_options: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    denoiser = share_copy(saved.transformer)
    assert [type(block).__name__ for block in repeated_blocks(denoiser)] == ["LTX2VideoTransformerBlock"]
    compile_blocks(denoiser, backend=eagerly)
    video = videos(type(saved)(**{**saved.components, "transformer": denoiser}), "a cat")
    assert len(graphs) == 1
    assert torch.equal(video.frames, videos(saved, "a cat").frames)


def test_random_weights_give_images_and_audio_for_any_prompt(unsaved: Any) -> None:
    video, other = videos(unsaved, ["a", "b"], (0, 0)), videos(unsaved, "c", num_videos_per_prompt=2, seeds=(0, 0))
    assert (video.frames.shape, video.audio.shape) == ((2, 9, 3, 64, 64), (2, 2, 7920))
    assert video.frames.float().std() > 0.05
    assert video.audio.float().std() > 0.005
    assert torch.equal(video.frames, other.frames)
    assert torch.equal(video.audio, other.audio)


def test_embeddings_are_one_table_never_copied_and_the_negative_ones_half_of_it(unsaved: Any) -> None:
    rows, mask, negative, negative_mask = unsaved.encode_prompt(["a", "b"], num_videos_per_prompt=2)
    table = unsaved.text_encoder.rows
    assert rows.shape == negative.shape == (4, 1024, 96)
    assert {part.data_ptr() for part in (rows, rows[3], negative, negative[3])} == {table.data_ptr()}
    assert mask.sum(1).tolist() == [1024] * 4
    assert negative_mask.sum(1).tolist() == [512] * 4
    assert negative_mask[:, 512:].all()


def test_guidance_acts_on_random_weights(unsaved: Any) -> None:
    guided, free = (videos(unsaved, "a", guidance_scale=scale, audio_guidance_scale=scale) for scale in (4.0, 1.0))
    assert (guided.frames.float() - free.frames.float()).abs().max() > 0.1
    assert (guided.audio.float() - free.audio.float()).abs().max() > 0.01


def test_given_embeddings_are_taken(unsaved: Any) -> None:
    rows, mask, negative, negative_mask = unsaved.encode_prompt("a", max_sequence_length=32)
    given = unsaved.encode_prompt(
        "a",
        prompt_embeds=rows + 1,
        prompt_attention_mask=mask,
        negative_prompt_embeds=negative,
        negative_prompt_attention_mask=negative_mask,
    )
    assert torch.equal(given[0], rows + 1)
    assert given[2] is negative


def test_activations_stay_small_through_as_many_blocks_as_ltx_2_has() -> None:
    pipe = load_random(sized(DEEP_SIZE), device="cpu").pipe
    largest: list[float] = []

    def watch(_module: nn.Module, _given: Any, returned: tuple[torch.Tensor, ...]) -> None:
        largest.extend(tensor.abs().max().item() for tensor in returned)

    for block in repeated_blocks(pipe.transformer):
        block.register_forward_hook(watch)
    video = videos(pipe, "a", num_inference_steps=2)
    assert len(largest) == 2 * 48 * 2
    assert 0.1 < max(largest) < 1000
    assert video.frames.isfinite().all()
    assert video.frames.float().std() > 0.05
    assert video.audio.float().std() > 0.005


def test_the_full_size_needs_no_memory_before_it_is_filled() -> None:
    with torch.device("meta"):
        pipe = build_ltx2(FULL_SIZE)
    modules = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    assert {value.device.type for module in modules for value in module.parameters()} == {"meta"}
    assert len(modules) == 6
