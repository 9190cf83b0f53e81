"""Qwen-Image: the published call, rule and results, its pipeline with random weights, and a tiny one for tests.

Source: PyTorch blog, 8 April 2026, "Faster Diffusion on Blackwell: MXFP8 and NVFP4 with Diffusers and TorchAO", and its
code, sayakpaul/diffusers-blackwell-quants at 9fefb07.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pytest_mxq.models.base import MemoryNeed, Recipe, SelectionRule, SkipPattern
from pytest_mxq.models.embeddings import embedding_table
from pytest_mxq.models.published import PublishedLpips, PublishedRun
from pytest_mxq.models.tiny import qwen2_tokenizer, save_pipeline, seeded, strengthen_blocks

PROMPT_TOKENS = 14
"""Rows of the published prompt's embeddings: its 9 tokens, and 5 of the template behind them."""

NEGATIVE_TOKENS = 6
"""Those of the published negative prompt, one blank."""

TEMPLATE_WORDS = (
    "system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of "
    "the objects and background:",
    "\nuser\n",
    "\nassistant\n",
)
"""The pipeline's prompt template between its special tokens.

Its first 34 tokens are dropped from the embeddings, so a tiny vocabulary must make as many of it as the real one.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QwenImageSize:
    """The configuration of a Qwen-Image pipeline of some size.

    Attributes:
        transformer: arguments of ``QwenImageTransformer2DModel``.
        vae: arguments of ``AutoencoderKLQwenImage``; its latent channels are a quarter of the transformer's input
            channels.
    """

    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]


FULL_SIZE = QwenImageSize(transformer=MappingProxyType({}), vae=MappingProxyType({}))  # diffusers' defaults

# The same architecture for trials on a CPU: every published clause still decides as at full size if 1024 is read as
# 320.
TINY_SIZE = QwenImageSize(
    transformer=MappingProxyType(
        {
            "num_layers": 2,
            "attention_head_dim": 64,
            "num_attention_heads": 5,
            "joint_attention_dim": 320,
            "axes_dims_rope": (16, 24, 24),
        }
    ),
    vae=MappingProxyType({"base_dim": 4, "dim_mult": [1, 1, 2, 2], "num_res_blocks": 1}),
)

_SCHEDULER = MappingProxyType(
    {
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 0.9,
        "base_image_seq_len": 256,
        "max_image_seq_len": 8192,
        "shift_terminal": 0.02,
        "time_shift_type": "exponential",
    }
)


def build_qwen_image(size: QwenImageSize = FULL_SIZE) -> Any:
    """Build a Qwen-Image pipeline from its configuration: the ``Recipe.random`` of Qwen-Image.

    Args:
        size: configuration of the transformer and the VAE.

    Returns:
        A QwenImagePipeline without text encoder and tokenizer: a table of embeddings stands in its place. Every prompt
        gets the same ones, of the published prompt's length; a blank one, as the published negative prompt, gets
        others, of that one's length. Weights are the constructors' own, in float32 on torch's default device.
    """
    parts = _parts(size)
    features = parts["transformer"].config.joint_attention_dim
    table = embedding_table(PROMPT_TOKENS + NEGATIVE_TOKENS, features)
    return _random_class()(**parts, text_encoder=table, tokenizer=None)


def _parts(size: QwenImageSize) -> dict[str, Any]:
    """Return the components of a pipeline beside its text encoder."""
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel

    return {
        "transformer": QwenImageTransformer2DModel(**size.transformer),
        "vae": AutoencoderKLQwenImage(**size.vae),
        "scheduler": FlowMatchEulerDiscreteScheduler(**_SCHEDULER),
    }


def _random_class() -> Any:
    from diffusers import QwenImagePipeline

    class RandomQwenImagePipeline(QwenImagePipeline):  # type: ignore[misc]  # diffusers is untyped
        """Takes a prompt as QwenImagePipeline does, and looks at nothing but how many there are, and whether blank."""

        def encode_prompt(self, prompt: str | list[str], **given: Any) -> Any:
            """Return prompt embeddings (N, tokens, features), and no mask: all tokens count."""
            if given.get("prompt_embeds") is None:
                texts = [prompt] if isinstance(prompt, str) else prompt
                positive, negative = self.text_encoder.rows.split((PROMPT_TOKENS, NEGATIVE_TOKENS))
                rows = positive if any(text.strip() for text in texts) else negative
                given["prompt_embeds"] = rows.repeat(len(texts), 1, 1)
            return super().encode_prompt(prompt, **given)

    return RandomQwenImagePipeline


def save_tiny_qwen_image(folder: Path) -> None:
    """Save a pipeline of `TINY_SIZE` with a text encoder of one layer: the ``Recipe.save_tiny`` of Qwen-Image.

    Args:
        folder: a new folder; 36 MB are written to it.
    """
    from diffusers import QwenImagePipeline
    from transformers import Qwen2_5_VLForConditionalGeneration

    tokenizer = qwen2_tokenizer(TEMPLATE_WORDS)
    with seeded():
        parts = _parts(TINY_SIZE)
        encoder = Qwen2_5_VLForConditionalGeneration(_tiny_encoder(len(tokenizer), tokenizer.pad_token_id))
    strengthen_blocks(parts["transformer"])
    save_pipeline(QwenImagePipeline(**parts, text_encoder=encoder, tokenizer=tokenizer), folder)


def _tiny_encoder(vocabulary: int, pad: int) -> Any:
    from transformers import Qwen2_5_VLConfig

    width = TINY_SIZE.transformer["joint_attention_dim"]
    heads = 5
    rotary = {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6}  # sum: half of a head
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 1,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "rope_parameters": rotary,
            "bos_token_id": None,
            "eos_token_id": pad,
            "pad_token_id": pad,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": width,
        },
    )


_ONE_ROW = "one row an image"
_TEXT_ROWS = "text stream: as many rows as the prompt has tokens, 14 for the published one"

# No clause is dead. img_in decides nothing alone (64 inputs, so the size clause skips it); proj_out, skipped by that
# one too (64 outputs), has no clause of its own.
_RULE = SelectionRule(
    min_features=1024,
    skip=(
        SkipPattern(pattern="embed", reason=f"time embedding: {_ONE_ROW}, large effect"),
        SkipPattern(pattern="img_in", reason="patch embedding: acts on every pixel"),
        SkipPattern(pattern="txt_in", reason="text embedding: few rows, large effect"),
        SkipPattern(pattern="img_mod", reason=f"modulation of the image stream: {_ONE_ROW}"),
        SkipPattern(pattern="txt_mod", reason=f"modulation of the text stream: {_ONE_ROW}"),
        SkipPattern(pattern="add_q_proj", reason=_TEXT_ROWS),
        SkipPattern(pattern="add_k_proj", reason=_TEXT_ROWS),
        SkipPattern(pattern="add_v_proj", reason=_TEXT_ROWS),
        SkipPattern(pattern="to_add_out", reason=_TEXT_ROWS),
        SkipPattern(pattern="txt_mlp", reason=_TEXT_ROWS),
        SkipPattern(pattern="norm_out.linear", reason=f"last modulation: {_ONE_ROW}, acts on every pixel"),
    ),
)

PUBLISHED_RUNS = (
    PublishedRun(format="bf16", batch_size=1, seconds=7.454, peak_gb=62.21, speedup=1.0),
    PublishedRun(format="mxfp8", batch_size=1, seconds=6.430, peak_gb=55.65, speedup=1.16),
    PublishedRun(format="nvfp4", batch_size=1, seconds=5.369, peak_gb=52.45, speedup=1.39),
    PublishedRun(format="bf16", batch_size=4, seconds=26.779, peak_gb=75.52, speedup=1.0),
    PublishedRun(format="mxfp8", batch_size=4, seconds=21.835, peak_gb=68.97, speedup=1.23),
    PublishedRun(format="nvfp4", batch_size=4, seconds=18.279, peak_gb=65.76, speedup=1.47),
    PublishedRun(format="bf16", batch_size=8, seconds=52.095, peak_gb=92.47, speedup=1.0),
    PublishedRun(format="mxfp8", batch_size=8, seconds=41.569, peak_gb=85.91, speedup=1.25),
    PublishedRun(format="nvfp4", batch_size=8, seconds=34.969, peak_gb=82.7, speedup=1.49),
)

QWEN_IMAGE = Recipe(
    name="qwen-image",
    pipeline_class="QwenImagePipeline",
    source="Qwen/Qwen-Image",
    # The main branch as public locks and logs of 2025 and 2026 name it, of many users alike; not looked up on the Hub
    # itself.
    revision="75e0b4be04f60ec59a75f475837eced720f823b6",
    call=MappingProxyType(
        {
            "height": 1024,
            "width": 1024,
            "num_inference_steps": 50,
            "true_cfg_scale": 4.0,
            "negative_prompt": " ",
        }
    ),
    rule=_RULE,
    # The published rule does what its authors describe: each quantized layer has 4096 rows, and each skipped one at
    # most 14, or 64 features on one side. It costs memory: two thirds of the weights stay in BF16. The text stream's
    # half of these has few rows only as long as prompts are short (up to 1024 tokens are allowed).
    alternatives=MappingProxyType({"intended": _RULE}),
    min_share=0.3,  # the rule quantizes 33.3 % of the weights, which do 99.6 % of the Linear layers' work
    # Weights from the configurations; a call and an image from the published peaks at batch 1, 4 and 8 (62.21, 75.52
    # and 92.47 GB in BF16).
    memory=MemoryNeed(weights=53.7, encoders=15.45, denoiser=38.05, call=0.2, image=4.0, selected=0.34),
    graphs_up_to=1,  # as published
    steps="num_inference_steps",
    random=build_qwen_image,
    save_tiny=save_tiny_qwen_image,
    published=PUBLISHED_RUNS,
)

# Caution: all prompts were generated under one re-seeded generator, and at which batch sizes is not said; if at others
# than BF16's, as FLUX.1-dev's were, then some prompts start from other noise.
PUBLISHED_LPIPS = (
    PublishedLpips(format="mxfp8", selective=0.34),
    PublishedLpips(format="nvfp4", selective=0.41),
)
