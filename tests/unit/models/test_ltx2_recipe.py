"""LTX-2's recipe against the model's own shapes, on the meta device, and against the published numbers."""

import dataclasses
import inspect
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusers import LTX2Pipeline
from recipe_facts import Forward, check_memory, check_speedup, kept, linears, run_forward

from pytest_mxq.models import built_in_models
from pytest_mxq.models.ltx2 import FULL_SIZE, LTX_2, PUBLISHED_RUNS, TINY_SIZE, Ltx2Size, build_ltx2
from pytest_mxq.models.published import PublishedRun

MODULATIONS = (
    "time_embed",
    "audio_time_embed",
    "av_cross_attn_video_scale_shift",
    "av_cross_attn_audio_scale_shift",
    "av_cross_attn_video_a2v_gate",
    "av_cross_attn_audio_v2a_gate",
)
KEPT = {
    *("proj_in", "audio_proj_in", "proj_out", "audio_proj_out"),
    *(f"{stream}caption_projection.linear_{half}" for stream in ("", "audio_") for half in (1, 2)),
    *(f"{name}.emb.timestep_embedder.linear_1" for name in MODULATIONS),  # 256 inputs
}
INTENDED_BESIDES = {
    *(f"{name}.{layer}" for name in MODULATIONS for layer in ("linear", "emb.timestep_embedder.linear_2")),
    *(
        f"transformer_blocks.{block}.{stream}attn2.{layer}"
        for block in range(48)
        for stream in ("", "audio_")
        for layer in ("to_k", "to_v")
    ),
}
DEAD = ("patch_embed", "adaln_single", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_out")
INTENDED = LTX_2.selection("intended")
VIDEOS, VIDEO, AUDIO, TEXT = 2, 16 * 16 * 24, 126, 1024  # a video and its negative one; tokens of each stream
GIB = 2**30

# Arguments of the pipeline's call that have nothing to do with what a video looks and audio like, given the others.
OTHERWISE_GIVEN = {
    *("self", "prompt", "generator", "output_type", "return_dict", "num_videos_per_prompt"),
    *("latents", "audio_latents", "sigmas", "timesteps", "attention_kwargs"),
    *(f"{sign}prompt_{kind}" for sign in ("", "negative_") for kind in ("embeds", "attention_mask")),
    *("callback_on_step_end", "callback_on_step_end_tensor_inputs"),
    *("min_seconds", "max_seconds"),  # of a video whose num_frames is not given
    *("decode_timestep", "decode_noise_scale"),  # of a VAE conditioned on a timestep
    *("system_prompt", "prompt_max_new_tokens", "prompt_enhancement_kwargs", "prompt_enhancement_seed"),  # not enabled
}


def built(size: Ltx2Size) -> Any:
    with torch.device("meta"):
        return build_ltx2(size)


@pytest.fixture(scope="module")
def ltx2() -> Any:
    return built(FULL_SIZE)


@pytest.fixture(scope="module")
def forward(ltx2: Any) -> Forward:
    """One forward at the published size."""
    with torch.device("meta"):
        return run_forward(
            ltx2.transformer,
            hidden_states=torch.empty(VIDEOS, VIDEO, 128),
            audio_hidden_states=torch.empty(VIDEOS, AUDIO, 128),
            encoder_hidden_states=torch.empty(VIDEOS, TEXT, 3840),
            audio_encoder_hidden_states=torch.empty(VIDEOS, TEXT, 3840),
            encoder_attention_mask=torch.empty(VIDEOS, TEXT),
            audio_encoder_attention_mask=torch.empty(VIDEOS, TEXT),
            timestep=torch.empty(VIDEOS),
            video_coords=torch.empty(VIDEOS, 3, VIDEO, 2),
            audio_coords=torch.empty(VIDEOS, 1, AUDIO, 2),
        )


def weights(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_full_size_is_ltx_2(ltx2: Any) -> None:
    assert weights(ltx2.transformer) == 18_876_174_592
    assert weights(ltx2.connectors) == 1_431_475_200
    assert weights(ltx2.vae) == 1_222_479_601
    assert weights(ltx2.audio_vae) + weights(ltx2.vocoder) == 108_840_948
    assert ltx2.transformer._repeated_blocks == ["LTX2VideoTransformerBlock"]
    assert len(ltx2.transformer.transformer_blocks) == 48
    assert (ltx2.vae_spatial_compression_ratio, ltx2.vae_temporal_compression_ratio) == (32, 8)
    assert ltx2.vocoder.config.output_sampling_rate == 24000


def test_the_table_in_the_text_encoder_s_place_has_its_output_s_shape(ltx2: Any) -> None:
    assert ltx2.text_encoder.rows.shape == (TEXT, 3840 * 49)
    assert ltx2.tokenizer is None


def test_the_published_rule_quantizes_1356_of_1370_layers(forward: Forward) -> None:
    assert forward.kept(LTX_2.rule) == KEPT
    quantized = forward.quantized(LTX_2.rule)
    assert (len(quantized), len(forward.linears)) == (1356, 1370)
    assert forward.weights(quantized) / forward.weights() == pytest.approx(0.9973, abs=5e-5)
    assert forward.work(quantized) / forward.work() == pytest.approx(0.9994, abs=5e-5)
    assert forward.work(quantized) / forward.flops == pytest.approx(0.8219, abs=5e-5)


def test_the_published_rule_quantizes_layers_of_one_row_a_video(forward: Forward) -> None:
    quantized = forward.quantized(LTX_2.rule)
    modulation = {name for name in quantized if forward.rows[name] == VIDEOS}
    assert modulation == {name for name in INTENDED_BESIDES if name.startswith(MODULATIONS)}
    assert forward.rows_of(quantized - modulation) == {VIDEOS * VIDEO, VIDEOS * AUDIO, VIDEOS * TEXT}
    assert forward.weights(modulation) / forward.weights() == pytest.approx(0.0156, abs=5e-5)
    assert forward.work(modulation) / forward.work() < 1e-5


def test_the_intended_rule_keeps_modulation_and_the_text_s_keys_and_values_besides(forward: Forward) -> None:
    assert forward.kept(INTENDED) == KEPT | INTENDED_BESIDES
    quantized = forward.quantized(INTENDED)
    assert (len(quantized), len(forward.linears)) == (1152, 1370)
    assert forward.rows_of(quantized) == {VIDEOS * VIDEO, VIDEOS * AUDIO}
    assert forward.weights(quantized) / forward.weights() == pytest.approx(0.8750, abs=5e-5)
    assert forward.work(quantized) / forward.work() == pytest.approx(0.9741, abs=5e-5)
    assert forward.work(quantized) / forward.flops == pytest.approx(0.8011, abs=5e-5)


@pytest.mark.parametrize("selection", ["published", "intended"])
def test_no_pattern_of_a_rule_is_dead(ltx2: Any, selection: str) -> None:
    for clause in LTX_2.selection(selection).keep:
        assert any(clause.matches(name) for name in linears(ltx2.transformer)), clause
        assert clause.reason


@pytest.mark.parametrize("pattern", DEAD)
def test_a_published_clause_that_the_rule_leaves_out_matches_nothing(ltx2: Any, pattern: str) -> None:
    assert not [name for name in linears(ltx2.transformer) if pattern in name]


@pytest.mark.parametrize("selection", ["published", "intended"])
def test_at_the_tiny_size_each_layer_s_decision_is_that_of_the_full_size(ltx2: Any, selection: str) -> None:
    def decisions(pipe: Any, threshold: int) -> dict[str, bool]:
        rule = dataclasses.replace(LTX_2.selection(selection), min_features=threshold)
        held = kept(linears(pipe.transformer), rule)
        return {re.sub(r"\d+\.", "N.", name, count=1): name in held for name in linears(pipe.transformer)}

    assert decisions(built(TINY_SIZE), 320) == decisions(ltx2, 1024)


@pytest.mark.parametrize("run", PUBLISHED_RUNS, ids=lambda run: f"{run.format}-{run.batch_size}")
def test_the_published_memory_is_what_the_published_rule_saves(forward: Forward, run: PublishedRun) -> None:
    check_memory(run, PUBLISHED_RUNS, forward.weights(forward.quantized(LTX_2.rule)))


def test_the_intended_rule_would_save_less_than_was_published(forward: Forward) -> None:
    with pytest.raises(AssertionError):
        check_memory(PUBLISHED_RUNS[1], PUBLISHED_RUNS, forward.weights(forward.quantized(INTENDED)))


@pytest.mark.parametrize("run", PUBLISHED_RUNS, ids=lambda run: f"{run.format}-{run.batch_size}")
def test_the_published_speedups_follow_from_the_published_latencies(run: PublishedRun) -> None:
    check_speedup(run, PUBLISHED_RUNS, rounding=0.0005)


def test_the_memory_it_needs_is_that_of_its_weights_and_of_the_published_peaks(ltx2: Any) -> None:
    need = LTX_2.memory
    assert need is not None
    rest = (ltx2.connectors, ltx2.vae, ltx2.audio_vae, ltx2.vocoder)
    assert need.denoiser == pytest.approx(2 * weights(ltx2.transformer) / GIB, abs=0.005)
    assert need.weights - need.encoders == pytest.approx(need.denoiser + 2 * sum(map(weights, rest)) / GIB, abs=0.05)
    for run in PUBLISHED_RUNS:
        if run.format == "bf16":
            peak = need.weights + need.call + run.batch_size * need.image
            assert peak == pytest.approx(run.peak_gb * 1e9 / GIB, rel=0.002), run


def test_the_call_is_the_published_one_and_nothing_guides_it_but_the_negative_prompt() -> None:
    assert dict(LTX_2.call) == {
        "height": 512,
        "width": 768,
        "num_frames": 121,
        "frame_rate": 24.0,
        "num_inference_steps": 40,
        "guidance_scale": 4.0,
        "negative_prompt": "worst quality, inconsistent motion, blurry, jittery, distorted",
        "max_sequence_length": 1024,
        "audio_guidance_scale": 4.0,
        **dict.fromkeys(("stg_scale", "audio_stg_scale", "guidance_rescale", "audio_guidance_rescale"), 0.0),
        **dict.fromkeys(("modality_scale", "audio_modality_scale"), 1.0),
        "spatio_temporal_guidance_blocks": None,
        "use_cross_timestep": False,
        "noise_scale": 0.0,
        "motion_speed": 1.0,
        "enable_prompt_enhancement": False,
    }


def test_the_call_pins_every_argument_of_the_pipeline_that_could_change_a_video() -> None:
    """So an argument that a later diffusers adds is found here, whatever its default."""
    arguments = inspect.signature(LTX2Pipeline.__call__).parameters.keys()
    assert arguments - OTHERWISE_GIVEN == LTX_2.call.keys()
    assert arguments >= OTHERWISE_GIVEN


def test_the_arms_run_without_cuda_graphs_at_every_batch_size() -> None:
    assert LTX_2.graphs_up_to == 0


def test_the_recipe_comes_with_the_package_and_names_one_commit_of_its_weights() -> None:
    assert built_in_models()[-1] is LTX_2
    assert re.fullmatch("[0-9a-f]{40}", LTX_2.revision or "")


def test_reading_the_recipe_imports_no_torch() -> None:
    code = "import sys; import pytest_mxq.models.ltx2; assert not {'torch', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
