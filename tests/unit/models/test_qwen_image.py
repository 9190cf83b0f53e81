"""Qwen-Image's own rules, rows of activations and published call: what no other recipe shares."""

import dataclasses
from typing import Any

import pytest
from recipe_facts import (
    Forward,
    forward_of,
    full_size,
    weights,
)

from pytest_mxq.models.qwen_image import (
    NEGATIVE_TOKENS,
    PROMPT_TOKENS,
    PUBLISHED_LPIPS,
    QWEN_IMAGE,
)

RULE = QWEN_IMAGE.rule
SKIPPED_ONCE = {
    "time_text_embed.timestep_embedder.linear_1",
    "time_text_embed.timestep_embedder.linear_2",
    "img_in",
    "txt_in",
    "norm_out.linear",
    "proj_out",
}
MODULATION = {"img_mod.1", "txt_mod.1"}
TEXT_STREAM = {
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
    "txt_mlp.net.0.proj",
    "txt_mlp.net.2",
}
IMAGE_STREAM = {"attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "img_mlp.net.0.proj", "img_mlp.net.2"}


@pytest.fixture(scope="module")
def qwen() -> Any:
    return full_size("qwen-image")


@pytest.fixture(scope="module")
def forward() -> Forward:
    return forward_of("qwen-image")


def in_each_block(names: set[str]) -> set[str]:
    return {f"transformer_blocks.{block}.{name}" for block in range(60) for name in names}


def test_the_full_size_is_qwen_image(qwen: Any) -> None:
    assert weights(qwen.transformer) == 20_430_401_088
    assert weights(qwen.vae) == 126_892_531
    assert qwen.transformer._repeated_blocks == ["QwenImageTransformerBlock"]
    assert len(qwen.transformer.transformer_blocks) == 60


def test_the_table_in_the_text_encoder_s_place_holds_a_prompt_and_a_negative_prompt(qwen: Any) -> None:
    assert qwen.text_encoder.rows.shape == (PROMPT_TOKENS + NEGATIVE_TOKENS, 3584)
    assert qwen.tokenizer is None


def test_the_rule_quantizes_the_image_stream_alone(forward: Forward) -> None:
    assert forward.quantized(RULE) == in_each_block(IMAGE_STREAM)
    assert forward.skipped(RULE) == SKIPPED_ONCE | in_each_block(MODULATION | TEXT_STREAM)
    assert (len(forward.quantized(RULE)), len(forward.linears)) == (360, 846)


def test_a_third_of_the_weights_does_nearly_all_of_the_work(forward: Forward) -> None:
    quantized = forward.quantized(RULE)
    assert forward.weights(quantized) / forward.weights() == pytest.approx(0.3327, abs=5e-5)
    assert forward.work(quantized) / forward.work() == pytest.approx(0.9963, abs=5e-5)
    assert forward.work(quantized) / forward.flops == pytest.approx(0.8147, abs=5e-5)
    for left in (MODULATION, TEXT_STREAM):
        assert forward.weights(in_each_block(left)) / forward.weights() == pytest.approx(0.333, abs=5e-4)


def test_the_smallest_share_allows_the_rule_and_no_less(forward: Forward) -> None:
    share = forward.weights(forward.quantized(RULE)) / forward.weights()
    without_mlp = {name for name in forward.quantized(RULE) if "img_mlp" not in name}
    assert forward.weights(without_mlp) / forward.weights() < QWEN_IMAGE.min_share < share


def test_the_rule_meets_its_authors_intent(forward: Forward) -> None:
    """Many rows where it quantizes; few rows, or a narrow side, where it does not."""
    assert QWEN_IMAGE.selection("intended") is RULE
    assert forward.rows_of(forward.quantized(RULE)) == {4096}
    many = {name for name in forward.skipped(RULE) if forward.rows[name] > PROMPT_TOKENS}
    assert many == {"img_in", "proj_out"}
    for name in many:
        assert min(forward.linears[name].in_features, forward.linears[name].out_features) == 64


def test_img_in_is_the_one_pattern_that_decides_nothing_alone(forward: Forward) -> None:
    def without(pattern: str) -> set[str]:
        skip = tuple(clause for clause in RULE.skip if clause.pattern != pattern)
        return forward.skipped(dataclasses.replace(RULE, skip=skip))

    idle = {clause.pattern for clause in RULE.skip if without(clause.pattern) == forward.skipped(RULE)}
    assert idle == {"img_in"}


def test_the_published_lpips_grows_with_fewer_bits() -> None:
    eight, four = PUBLISHED_LPIPS
    assert (eight.format, four.format) == ("mxfp8", "nvfp4")
    assert eight.selective < four.selective
    assert eight.all_layers is four.all_layers is None


def test_the_call_is_the_published_one() -> None:
    assert dict(QWEN_IMAGE.call) == {
        "height": 1024,
        "width": 1024,
        "num_inference_steps": 50,
        "true_cfg_scale": 4.0,
        "negative_prompt": " ",
    }
    assert QWEN_IMAGE.graphs_up_to == 1
