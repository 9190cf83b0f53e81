"""LTX-2: the published call, rules and results, its pipeline with random weights, and a tiny one with an encoder.

Source: PyTorch blog, 8 April 2026, "Faster Diffusion on Blackwell: MXFP8 and NVFP4 with Diffusers and TorchAO", and its
code, sayakpaul/diffusers-blackwell-quants at 9fefb07. That code embeds one prompt and makes N videos of it
(``num_videos_per_prompt=N``); a gate embeds N prompts, which adds little to a call.

What ``LTX2Pipeline`` returns for ``output_type="pt"``, of N videos:

- ``frames`` (N, F, 3, H, W), 0 to 1, in the dtype of the VAE. F is ``num_frames`` less what is over 1 + 8k.
- ``audio`` (N, 2, samples), -1 to 1, in the dtype of the vocoder, at ``vocoder.config.output_sampling_rate``
  (24000 Hz). Its length follows the ``num_frames`` asked for, in steps of 40 ms: 120,240 samples for 121 frames at
  24 frames a second.

Given one generator a video, each generates the noise of its video's images and then that of its audio, as it does for
that video alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pytest_mxq.models.base import MemoryNeed, Recipe, SelectionRule, SkipPattern
from pytest_mxq.models.embeddings import embedding_table
from pytest_mxq.models.published import PublishedRun
from pytest_mxq.models.tiny import gemma_tokenizer, save_pipeline, seeded, strengthen_blocks

_MAX_SEQUENCE_LENGTH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Ltx2Size:
    """The configuration of an LTX-2 pipeline of some size, where it is not diffusers' default.

    Attributes:
        transformer: arguments of ``LTX2VideoTransformer3DModel``. Its input channels are the VAE's latent channels; its
            audio input channels are the audio VAE's latent channels x mel bins / 4.
        connectors: arguments of ``LTX2TextConnectors``, whose channels are the transformer's caption channels.
        vae: arguments of ``AutoencoderKLLTX2Video``.
        audio_vae: arguments of ``AutoencoderKLLTX2Audio``, whose base channels are as many as the transformer's audio
            input channels.
        vocoder: arguments of ``LTX2Vocoder``, whose input channels are the audio VAE's output channels x mel bins.
    """

    transformer: Mapping[str, Any]
    connectors: Mapping[str, Any]
    vae: Mapping[str, Any]
    audio_vae: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    vocoder: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


FULL_SIZE = Ltx2Size(
    # As diffusers' script converts the original weights; its own defaults are LTX-2's but for these.
    transformer=MappingProxyType({"rope_type": "split"}),
    connectors=MappingProxyType({"rope_type": "split"}),
    vae=MappingProxyType({"decoder_causal": False, "spatial_compression_ratio": 32, "temporal_compression_ratio": 8}),
)

_TINY_CAPTIONS = 32
_TINY_TEXT_LAYERS = 2

# The same architecture for a CPU: every clause of the rules still decides as at full size if 1024 is read as 320. The
# VAE has 16 pixels and 4 frames to a latent.
TINY_SIZE = Ltx2Size(
    transformer=MappingProxyType(
        {
            "in_channels": 32,
            "out_channels": 32,
            "num_attention_heads": 5,
            "attention_head_dim": 64,
            "cross_attention_dim": 320,
            "audio_in_channels": 32,
            "audio_out_channels": 32,
            "audio_num_attention_heads": 5,
            "audio_attention_head_dim": 64,
            "audio_cross_attention_dim": 320,
            "num_layers": 1,
            "caption_channels": _TINY_CAPTIONS,
            "rope_type": "split",
        }
    ),
    connectors=MappingProxyType(
        {
            "caption_channels": _TINY_CAPTIONS,
            "text_proj_in_factor": _TINY_TEXT_LAYERS + 1,
            **{
                f"{stream}_connector_{name}": value
                for stream in ("video", "audio")
                for name, value in (
                    ("num_attention_heads", 2),
                    ("attention_head_dim", _TINY_CAPTIONS // 2),
                    ("num_layers", 1),
                    ("num_learnable_registers", 16),
                )
            },
            "rope_type": "split",
        }
    ),
    vae=MappingProxyType(
        {
            "latent_channels": 32,
            "block_out_channels": (8, 8),
            "down_block_types": ("LTX2VideoDownBlock3D",) * 2,
            "decoder_block_out_channels": (8, 8),
            "layers_per_block": (1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1),
            "spatio_temporal_scaling": (True, True),
            "decoder_spatio_temporal_scaling": (True, True),
            "decoder_inject_noise": (False, False, False),
            "downsample_type": ("spatiotemporal",) * 2,
            "upsample_type": ("spatiotemporal",) * 2,
            "upsample_residual": (False, False),
            "upsample_factor": (1, 1),
            "decoder_causal": False,
        }
    ),
    audio_vae=MappingProxyType({"base_channels": 32, "ch_mult": (1,), "num_res_blocks": 1, "mel_bins": 16}),
    vocoder=MappingProxyType(
        {
            "in_channels": 2 * 16,
            "hidden_channels": 64,
            "resnet_kernel_sizes": [3],
            "resnet_dilations": [[1, 3, 5]],
        }
    ),
)

_SCHEDULER = MappingProxyType(
    {
        "use_dynamic_shifting": True,
        "base_shift": 0.95,
        "max_shift": 2.05,
        "base_image_seq_len": 1024,
        "max_image_seq_len": 4096,
        "shift_terminal": 0.1,
    }
)


def build_ltx2(size: Ltx2Size = FULL_SIZE) -> Any:
    """Build an LTX-2 pipeline from its configuration: the ``Recipe.random`` of LTX-2.

    Args:
        size: configuration of every model but the text encoder.

    Returns:
        An LTX2Pipeline without text encoder and tokenizer: a table of embeddings stands in the encoder's place, and
        every prompt gets the same ones. A negative prompt gets them too, but half of them do not count. Weights are the
        constructors' own, in float32 on torch's default device.
    """
    parts = _parts(size)
    config = parts["connectors"].config
    table = embedding_table(_MAX_SEQUENCE_LENGTH, config.caption_channels * config.text_proj_in_factor)
    return _random_class()(**parts, text_encoder=table, tokenizer=None)


def _parts(size: Ltx2Size) -> dict[str, Any]:
    """Return the components of a pipeline beside its text encoder."""
    from diffusers import (
        AutoencoderKLLTX2Audio,
        AutoencoderKLLTX2Video,
        FlowMatchEulerDiscreteScheduler,
        LTX2VideoTransformer3DModel,
    )
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

    return {
        "transformer": LTX2VideoTransformer3DModel(**size.transformer),
        "connectors": LTX2TextConnectors(**size.connectors),
        "vae": AutoencoderKLLTX2Video(**size.vae),
        "audio_vae": AutoencoderKLLTX2Audio(**size.audio_vae),
        "vocoder": LTX2Vocoder(**size.vocoder),
        "scheduler": FlowMatchEulerDiscreteScheduler(**_SCHEDULER),
    }


def _random_class() -> Any:
    import torch
    from diffusers import LTX2Pipeline

    class RandomLTX2Pipeline(LTX2Pipeline):  # type: ignore[misc]  # diffusers is untyped
        """Takes a prompt as LTX2Pipeline does, and looks at nothing but how many there are."""

        def encode_prompt(
            self,
            prompt: str | list[str],
            *,
            num_videos_per_prompt: int = 1,
            max_sequence_length: int = _MAX_SEQUENCE_LENGTH,
            **given: Any,
        ) -> Any:
            """Return embeddings (N, tokens, features) and masks (N, tokens) of the prompts and of negative ones.

            The embeddings of them all are one table (0.36 GiB at full size), repeated without a copy.
            """
            if given.get("prompt_embeds") is None:
                count = num_videos_per_prompt * (1 if isinstance(prompt, str) else len(prompt))
                rows = self.text_encoder.rows[:max_sequence_length].expand(count, -1, -1)
                tokens = torch.arange(rows.shape[1], device=rows.device).expand(count, -1)
                given["prompt_embeds"] = given["negative_prompt_embeds"] = rows
                given["prompt_attention_mask"] = (tokens >= 0).long()
                given["negative_prompt_attention_mask"] = (tokens >= rows.shape[1] // 2).long()  # padded on the left
            return super().encode_prompt(prompt, **given)

    return RandomLTX2Pipeline


def save_tiny_ltx2(folder: Path) -> None:
    """Save a pipeline of `TINY_SIZE` with a text encoder of two layers: the ``Recipe.save_tiny`` of LTX-2.

    Args:
        folder: a new folder; 32 MB are written to it.
    """
    from diffusers import LTX2Pipeline

    tokenizer = gemma_tokenizer()
    with seeded():
        parts = _parts(TINY_SIZE)
        encoder = _tiny_encoder(tokenizer)
    strengthen_blocks(parts["transformer"])
    _make_audible(parts["vocoder"])
    save_pipeline(LTX2Pipeline(**parts, text_encoder=encoder, tokenizer=tokenizer), folder)


def _make_audible(vocoder: Any) -> None:
    """Let audio follow its spectrum: as constructed, a vocoder's biases make nearly the same audio of everything."""
    for parameter in vocoder.parameters():
        parameter.data.mul_(2.0 if parameter.ndim > 1 else 0.0)


def _tiny_encoder(tokenizer: Any) -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": _TINY_CAPTIONS,
        "intermediate_size": 64,
        "num_hidden_layers": _TINY_TEXT_LAYERS,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {  # LTX-2 shows it no images, but its class has a part that sees them
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    images = {"mm_tokens_per_image": 4, "boi_token_index": 5, "eoi_token_index": 6, "image_token_index": 7}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, **images))


def tile_vae(pipe: Any) -> None:
    """Let the VAE decode in tiles of 512x512, as published: the ``Recipe.prepare`` of LTX-2."""
    pipe.vae.enable_tiling()


_CALL = MappingProxyType(
    {
        "height": 512,
        "width": 768,
        "num_frames": 121,
        "frame_rate": 24.0,
        "num_inference_steps": 40,
        "negative_prompt": "worst quality, inconsistent motion, blurry, jittery, distorted",
        "max_sequence_length": _MAX_SEQUENCE_LENGTH,
        "guidance_scale": 4.0,
        # The published call gave no guidance but this, and diffusers' defaults then were LTX-2.0's. Today's are
        # LTX-2.3's: with them a step calls the transformer three times, and images and audio are other ones.
        "audio_guidance_scale": 4.0,  # then: the video's; now 7.0
        "stg_scale": 0.0,  # then off; now 1.0: a second call a step, without effect on weights of LTX-2.0
        "audio_stg_scale": 0.0,  # the same; a 0 here is replaced by stg_scale, which therefore must be 0 too
        "spatio_temporal_guidance_blocks": None,  # blocks of the above; now [28]
        "modality_scale": 1.0,  # then off; now 3.0: a third call a step, without attention between video and audio
        "audio_modality_scale": 1.0,  # the same
        "guidance_rescale": 0.0,  # then off; now 0.7
        "audio_guidance_rescale": 0.0,  # the same; a 0 here is replaced by guidance_rescale
        "use_cross_timestep": False,  # then False, as LTX-2.0 was trained; now True, as LTX-2.3
        # Later arguments and defaults that could move as those have: what they were, or what does nothing.
        "noise_scale": 0.0,  # nothing but noise to start from
        "motion_speed": 1.0,  # positions in time as the frame rate has them
        "enable_prompt_enhancement": False,  # the prompt as it was given
    }
)

_PROJECTIONS = (
    SkipPattern(
        pattern="proj_in", reason="first projections of video and audio latents: act on every pixel and sample"
    ),
    SkipPattern(
        pattern="proj_out", reason="last projections to video and audio latents: act on every pixel and sample"
    ),
    SkipPattern(pattern="caption_projection", reason="projections of the text: condition every block, few rows"),
)

# Every clause matches a layer; two of them (proj_in, proj_out) skip only what the size clause skips too, as these
# layers have 128 inputs or outputs. Left out are the seven published clauses that match nothing in diffusers, whose
# names of these layers are others: patch_embed, adaln_single, add_q_proj, add_k_proj, add_v_proj, to_add_out, norm_out.
# So, against what is said beside them, the modulation layers and the text's keys and values were quantized.
_PUBLISHED_RULE = SelectionRule(min_features=1024, skip=_PROJECTIONS)

# What is said beside the published clauses, in diffusers' names. There is no layer for norm_out (its modulation is a
# table of parameters), and none for add_q_proj and to_add_out (the text makes no queries, and nothing is added to it).
# The audio's layers, of which nothing is said, have fewer rows (126 a video) than the text's (1024), and are quantized.
_INTENDED_RULE = SelectionRule(
    min_features=1024,
    skip=(
        *_PROJECTIONS,
        SkipPattern(pattern="time_embed", reason="modulation of video and of audio (adaln_single): one row a video"),
        SkipPattern(
            pattern="av_cross_attn_", reason="modulation of attention between video and audio: one row a video"
        ),
        SkipPattern(pattern="attn2.to_k", reason="keys from the text, for video and for audio (add_k_proj): few rows"),
        SkipPattern(
            pattern="attn2.to_v", reason="values from the text, for video and for audio (add_v_proj): few rows"
        ),
    ),
)

PUBLISHED_RUNS = (
    PublishedRun(format="bf16", batch_size=1, seconds=16.230, peak_gb=72.77, speedup=1.0),
    PublishedRun(format="mxfp8", batch_size=1, seconds=13.724, peak_gb=54.54, speedup=1.18),
    PublishedRun(format="nvfp4", batch_size=1, seconds=10.374, peak_gb=45.72, speedup=1.56),
    PublishedRun(format="bf16", batch_size=4, seconds=61.591, peak_gb=87.61, speedup=1.0),
    PublishedRun(format="mxfp8", batch_size=4, seconds=50.956, peak_gb=69.38, speedup=1.21),
    PublishedRun(format="nvfp4", batch_size=4, seconds=36.963, peak_gb=60.56, speedup=1.67),
    PublishedRun(format="bf16", batch_size=8, seconds=122.427, peak_gb=107.40, speedup=1.0),
    PublishedRun(format="mxfp8", batch_size=8, seconds=102.546, peak_gb=89.18, speedup=1.19),
    PublishedRun(format="nvfp4", batch_size=8, seconds=72.689, peak_gb=80.36, speedup=1.68),
)

LTX_2 = Recipe(
    # Weights from the configurations; a call and a video from the published peaks at batch 1, 4 and 8 (72.77, 87.61 and
    # 107.40 GB in BF16). With random weights 0.4 of the encoder's stay: the embeddings in its place.
    memory=MemoryNeed(weights=63.0, encoders=22.73, denoiser=35.16, call=0.2, image=4.6),
    name="ltx-2",
    pipeline_class="LTX2Pipeline",
    generates_video=True,
    source="Lightricks/LTX-2",
    # The main branch about when the results were published, as public tests and logs of several projects name it; not
    # looked up on the Hub itself.
    revision="47da56e2ad66ce4125a9922b4a8826bf407f9d0a",
    call=_CALL,
    rule=_PUBLISHED_RULE,
    alternatives=MappingProxyType({"intended": _INTENDED_RULE}),
    steps="num_inference_steps",
    random=build_ltx2,
    graphs_up_to=0,  # published without CUDA Graphs at every batch size: a step computes for long
    prepare=tile_vae,
    save_tiny=save_tiny_ltx2,
    published=PUBLISHED_RUNS,
)
