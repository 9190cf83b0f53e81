"""LTX-2's own rules, rows of activations and published call: what no other recipe shares."""

import inspect
from typing import Any

import pytest
from diffusers import LTX2Pipeline
from recipe_facts import AUDIO, TEXT, VIDEO, VIDEOS, Forward, check_memory, forward_of, full_size, linears, weights

from pytest_mxq.models.ltx2 import LTX_2, PUBLISHED_RUNS

MODULATIONS = (
    "time_embed",
    "audio_time_embed",
    "av_cross_attn_video_scale_shift",
    "av_cross_attn_audio_scale_shift",
    "av_cross_attn_video_a2v_gate",
    "av_cross_attn_audio_v2a_gate",
)
SKIPPED = {
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
GIB = 2**30

# Arguments of the pipeline's call that change neither a video nor its audio, given the others.
OTHERWISE_GIVEN = {
    *("self", "prompt", "generator", "output_type", "return_dict", "num_videos_per_prompt"),
    *("latents", "audio_latents", "sigmas", "timesteps", "attention_kwargs"),
    *(f"{sign}prompt_{kind}" for sign in ("", "negative_") for kind in ("embeds", "attention_mask")),
    *("callback_on_step_end", "callback_on_step_end_tensor_inputs"),
    *("min_seconds", "max_seconds"),  # of a video whose num_frames is not given
    *("decode_timestep", "decode_noise_scale"),  # of a VAE conditioned on a timestep
    *("system_prompt", "prompt_max_new_tokens", "prompt_enhancement_kwargs", "prompt_enhancement_seed"),  # not enabled
}


@pytest.fixture(scope="module")
def ltx2() -> Any:
    return full_size("ltx-2")


@pytest.fixture(scope="module")
def forward() -> Forward:
    return forward_of("ltx-2")


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
    assert forward.skipped(LTX_2.rule) == SKIPPED
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


def test_the_intended_rule_skips_modulation_and_the_text_s_keys_and_values_besides(forward: Forward) -> None:
    assert forward.skipped(INTENDED) == SKIPPED | INTENDED_BESIDES
    quantized = forward.quantized(INTENDED)
    assert (len(quantized), len(forward.linears)) == (1152, 1370)
    assert forward.rows_of(quantized) == {VIDEOS * VIDEO, VIDEOS * AUDIO}
    assert forward.weights(quantized) / forward.weights() == pytest.approx(0.8750, abs=5e-5)
    assert forward.work(quantized) / forward.work() == pytest.approx(0.9741, abs=5e-5)
    assert forward.work(quantized) / forward.flops == pytest.approx(0.8011, abs=5e-5)


@pytest.mark.parametrize("pattern", DEAD)
def test_a_published_clause_that_the_rule_leaves_out_matches_nothing(ltx2: Any, pattern: str) -> None:
    assert not [name for name in linears(ltx2.transformer) if pattern in name]


def test_the_intended_rule_would_save_less_than_was_published(forward: Forward) -> None:
    with pytest.raises(AssertionError):
        check_memory(PUBLISHED_RUNS[1], PUBLISHED_RUNS, forward.weights(forward.quantized(INTENDED)))


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
