"""FLUX.1-dev: the published call, rule and results, its pipeline with random weights, and a tiny one for tests.

Source: PyTorch blog, 8 April 2026, "Faster Diffusion on Blackwell: MXFP8 and NVFP4 with Diffusers and TorchAO", and its
code, sayakpaul/diffusers-blackwell-quants at 9fefb07.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pytest_mxq.models.base import MemoryNeed, Recipe, SelectionRule, SkipPattern
from pytest_mxq.models.embeddings import embedding_table
from pytest_mxq.models.published import PublishedLpips, PublishedRun
from pytest_mxq.models.tiny import clip_tokenizer, save_pipeline, seeded, strengthen_blocks, t5_tokenizer

_MAX_SEQUENCE_LENGTH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class FluxSize:
    """The configuration of a FLUX pipeline of some size.

    Attributes:
        transformer: arguments of ``FluxTransformer2DModel``.
        vae: arguments of ``AutoencoderKL``; its latent channels are a quarter of the transformer's input channels.
    """

    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]


def _vae(*, channels: tuple[int, ...], groups: int, layers: int, latents: int) -> Mapping[str, Any]:
    return MappingProxyType(
        {
            "block_out_channels": channels,
            "down_block_types": ("DownEncoderBlock2D",) * len(channels),
            "up_block_types": ("UpDecoderBlock2D",) * len(channels),
            "layers_per_block": layers,
            "norm_num_groups": groups,
            "latent_channels": latents,
            "scaling_factor": 0.3611,
            "shift_factor": 0.1159,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        }
    )


FULL_SIZE = FluxSize(
    # diffusers' defaults are FLUX.1-schnell's; the guidance embedding is what dev has on top.
    transformer=MappingProxyType({"guidance_embeds": True}),
    vae=_vae(channels=(128, 256, 512, 512), groups=32, layers=2, latents=16),
)

# The same architecture for trials of speed and memory gates on a CPU: every published clause still decides as at full
# size if 1024 is read as 320.
TINY_SIZE = FluxSize(
    transformer=MappingProxyType(
        {
            "in_channels": 32,
            "num_layers": 2,
            "num_single_layers": 2,
            "attention_head_dim": 64,
            "num_attention_heads": 5,
            "joint_attention_dim": 320,
            "pooled_projection_dim": 320,
            "axes_dims_rope": (16, 24, 24),
            "guidance_embeds": True,
        }
    ),
    vae=_vae(channels=(4, 4, 8, 8), groups=4, layers=1, latents=8),
)

_SCHEDULER = MappingProxyType(
    {
        "shift": 3.0,
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    }
)


def build_flux(size: FluxSize = FULL_SIZE) -> Any:
    """Build a FLUX pipeline from its configuration: the ``Recipe.random`` of FLUX.1-dev.

    Args:
        size: configuration of the transformer and the VAE.

    Returns:
        A FluxPipeline without text encoders and tokenizers: two tables of embeddings stand in their places, and every
        prompt gets the same ones. Weights are the constructors' own, in float32 on torch's default device.
    """
    parts = _parts(size)
    transformer = parts["transformer"].config
    return _random_class()(
        **parts,
        text_encoder=embedding_table(1, transformer.pooled_projection_dim),
        text_encoder_2=embedding_table(_MAX_SEQUENCE_LENGTH, transformer.joint_attention_dim),
        tokenizer=None,
        tokenizer_2=None,
    )


def _parts(size: FluxSize) -> dict[str, Any]:
    """Return the components of a pipeline beside its text encoders."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    return {
        "transformer": FluxTransformer2DModel(**size.transformer),
        "vae": AutoencoderKL(**size.vae),
        "scheduler": FlowMatchEulerDiscreteScheduler(**_SCHEDULER),
    }


def _random_class() -> Any:
    from diffusers import FluxPipeline

    class RandomFluxPipeline(FluxPipeline):  # type: ignore[misc]  # diffusers is untyped
        """Takes a prompt as FluxPipeline does, and looks at nothing but how many there are."""

        def encode_prompt(
            self,
            prompt: str | list[str],
            *,
            num_images_per_prompt: int = 1,
            max_sequence_length: int = _MAX_SEQUENCE_LENGTH,
            **given: Any,
        ) -> Any:
            """Return prompt embeddings (N, tokens, features), pooled ones (N, features), and text ids."""
            if given.get("prompt_embeds") is None:
                count = num_images_per_prompt * (1 if isinstance(prompt, str) else len(prompt))
                given["prompt_embeds"] = self.text_encoder_2.rows[:max_sequence_length].repeat(count, 1, 1)
                given["pooled_prompt_embeds"] = self.text_encoder.rows.repeat(count, 1)
            return super().encode_prompt(prompt, **given)

    return RandomFluxPipeline


def save_tiny_flux(folder: Path) -> None:
    """Save a pipeline of `TINY_SIZE` with text encoders of one layer each: the ``Recipe.save_tiny`` of FLUX.1-dev.

    Args:
        folder: a new folder; 52 MB are written to it.
    """
    from diffusers import FluxPipeline
    from transformers import CLIPTextModel, T5EncoderModel

    tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer()
    with seeded():
        parts = _parts(TINY_SIZE)
        encoder = CLIPTextModel(_tiny_text_encoder(tokenizer))
        encoder_2 = T5EncoderModel(_tiny_t5(len(tokenizer_2)))
    strengthen_blocks(parts["transformer"])
    pipe = FluxPipeline(
        **parts, text_encoder=encoder, tokenizer=tokenizer, text_encoder_2=encoder_2, tokenizer_2=tokenizer_2
    )
    save_pipeline(pipe, folder)


def _tiny_text_encoder(tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig

    width = TINY_SIZE.transformer["pooled_projection_dim"]
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tiny_t5(vocabulary: int) -> Any:
    from transformers import T5Config

    width = TINY_SIZE.transformer["joint_attention_dim"]
    return T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=64,
        d_ff=2 * width,
        num_layers=1,
        num_heads=5,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )


# Every published clause matches a layer. Two of them decide nothing alone: the size clause (what it skips, others
# skip) and proj_out (64 outputs, so the size clause skips it).
_PUBLISHED_RULE = SelectionRule(
    min_features=1024,
    skip=(
        SkipPattern(pattern="embed", reason="time, guidance, text and patch embeddings: few rows, large effect"),
        SkipPattern(pattern="norm_out.linear", exact=True, reason="last modulation: one row, acts on every pixel"),
        SkipPattern(
            pattern="proj_out",
            exact=True,  # every single block ends in a proj_out of its own: 15 % of the weights
            reason="last projection to latents: acts on every pixel",
        ),
    ),
)

# The published rule has no clause for the blocks' modulation, as Qwen-Image's has: 27 % of the weights are quantized
# though they multiply one row an image. To leave them in BF16 costs memory and no time (float8 on an H100, 14 steps at
# batch 1: 1.552 s, against 1.555 s).
_INTENDED_RULE = replace(
    _PUBLISHED_RULE,
    skip=(
        *_PUBLISHED_RULE.skip,
        SkipPattern(pattern="norm1.linear", reason="modulation of a double block's image stream: one row an image"),
        SkipPattern(
            pattern="norm1_context.linear", reason="modulation of a double block's text stream: one row an image"
        ),
        SkipPattern(pattern=".norm.linear", reason="modulation of a single block: one row an image"),
    ),
)


PUBLISHED_RUNS = (
    PublishedRun(format="bf16", batch_size=1, seconds=2.10, peak_gb=38.34, speedup=1.0),
    PublishedRun(format="mxfp8", batch_size=1, seconds=1.75, peak_gb=26.90, speedup=1.21),
    PublishedRun(format="nvfp4", batch_size=1, seconds=1.41, peak_gb=21.33, speedup=1.50),
    PublishedRun(format="bf16", batch_size=4, seconds=7.87, peak_gb=44.39, speedup=1.0),
    PublishedRun(format="mxfp8", batch_size=4, seconds=6.36, peak_gb=32.95, speedup=1.24),
    PublishedRun(format="nvfp4", batch_size=4, seconds=5.09, peak_gb=27.39, speedup=1.55),
    PublishedRun(format="bf16", batch_size=8, seconds=15.57, peak_gb=53.00, speedup=1.0),
    PublishedRun(format="mxfp8", batch_size=8, seconds=12.40, peak_gb=41.56, speedup=1.26),
    PublishedRun(format="nvfp4", batch_size=8, seconds=9.81, peak_gb=36.00, speedup=1.59),
)

FLUX_1_DEV = Recipe(
    # Weights from the configurations; a call and an image from the published peaks at batch 1, 4 and 8 (38.34, 44.39
    # and 53.00 GB in BF16).
    memory=MemoryNeed(weights=31.4, encoders=9.1, denoiser=22.2, call=2.3, image=2.0),
    name="flux.1-dev",
    pipeline_class="FluxPipeline",
    source="black-forest-labs/FLUX.1-dev",
    # The main branch as public logs of 2025 and 2026 name it, of many users alike; not looked up on the Hub itself.
    revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
    call=MappingProxyType(
        {
            "height": 1024,
            "width": 1024,
            "num_inference_steps": 28,
            "guidance_scale": 3.5,
            "max_sequence_length": _MAX_SEQUENCE_LENGTH,
        }
    ),
    rule=_PUBLISHED_RULE,
    alternatives=MappingProxyType({"intended": _INTENDED_RULE}),
    steps="num_inference_steps",
    random=build_flux,
    save_tiny=save_tiny_flux,
    published=PUBLISHED_RUNS,
)

# Caution: BF16 was generated at batch 32 and NVFP4 at batch 16 under one re-seeded generator, so half of NVFP4's
# prompts start from other noise.
PUBLISHED_LPIPS = (
    PublishedLpips(format="mxfp8", selective=0.1076, all_layers=0.1381),
    PublishedLpips(format="nvfp4", selective=0.4383, all_layers=0.4797),
)
