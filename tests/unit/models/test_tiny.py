"""The tokenizers of the tiny pipelines: what they make of a text, and the same after saving and loading."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_mxq.models.qwen_image import TEMPLATE_WORDS
from pytest_mxq.models.tiny import (
    BLOCK_GAIN,
    clip_tokenizer,
    gemma_tokenizer,
    qwen2_tokenizer,
    seeded,
    strengthen_blocks,
    t5_tokenizer,
)


def qwen_tokenizer() -> Any:
    return qwen2_tokenizer(TEMPLATE_WORDS)


BUILDERS = [clip_tokenizer, t5_tokenizer, qwen_tokenizer, gemma_tokenizer]
TEXT = "Five goldfish, 7 + 5 = 12!"


@pytest.mark.parametrize("build", BUILDERS)
def test_a_text_has_the_same_tokens_after_saving_and_loading(build: Callable[[], Any], tmp_path: Path) -> None:
    tokenizer = build()
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert len(again) == len(tokenizer)
    assert again(TEXT).input_ids == tokenizer(TEXT).input_ids


@pytest.mark.parametrize("build", BUILDERS)
def test_texts_that_differ_in_a_letter_have_different_tokens_none_of_them_unknown(build: Callable[[], Any]) -> None:
    tokenizer = build()
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    assert len(ids) > 15
    assert ids != tokenizer(TEXT.replace("F", "L"), add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids


def test_the_tokenizer_of_qwen_makes_34_tokens_of_the_template_s_prefix() -> None:
    from diffusers import QwenImagePipeline

    pipe = QwenImagePipeline(scheduler=None, vae=None, text_encoder=None, tokenizer=None, transformer=None)
    prefix, suffix = pipe.prompt_template_encode.split("{}")
    tokenizer = qwen_tokenizer()
    assert len(tokenizer(prefix).input_ids) == pipe.prompt_template_encode_start_idx == 34
    assert tokenizer.convert_ids_to_tokens(tokenizer(prefix).input_ids)[-6:] == [
        ":",
        "<|im_end|>",
        "Ċ",
        "<|im_start|>",
        "user",
        "Ċ",
    ]
    assert len(tokenizer(suffix).input_ids) == 5


def test_gemma_s_tokens_begin_with_bos() -> None:
    tokenizer = gemma_tokenizer()
    assert tokenizer(TEXT).input_ids[0] == tokenizer.bos_token_id
    assert tokenizer.convert_tokens_to_ids("<bos>") == tokenizer.bos_token_id


def test_building_at_a_seed_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded():
        first = torch.rand(3)
    with seeded():
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.rand(3), expected)


def test_only_linear_weights_of_blocks_grow() -> None:
    from diffusers import FluxTransformer2DModel

    from pytest_mxq.models.flux import TINY_SIZE

    denoiser = FluxTransformer2DModel(**TINY_SIZE.transformer)
    before = {name: value.clone() for name, value in denoiser.named_parameters()}
    strengthen_blocks(denoiser)
    grown = {name for name, value in denoiser.named_parameters() if not torch.equal(value, before[name])}
    layers = [name for name, module in denoiser.named_modules() if isinstance(module, torch.nn.Linear)]
    assert grown == {f"{name}.weight" for name in layers if "transformer_blocks." in name}
    assert torch.equal(dict(denoiser.named_parameters())[min(grown)], BLOCK_GAIN * before[min(grown)])
