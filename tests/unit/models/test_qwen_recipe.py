"""Qwen-Image's recipe against the model's own shapes, on the meta device, and against the published numbers."""

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from recipe_facts import Forward, check_memory, check_speedup, kept, linears, run_forward

from pytest_mxq.models import built_in_models
from pytest_mxq.models.published import PublishedRun
from pytest_mxq.models.qwen_image import (
    FULL_SIZE,
    NEGATIVE_TOKENS,
    PROMPT_TOKENS,
    PUBLISHED_LPIPS,
    PUBLISHED_RUNS,
    QWEN_IMAGE,
    TINY_SIZE,
    QwenImageSize,
    build_qwen_image,
)

RULE = QWEN_IMAGE.rule
KEPT_ONCE = {
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


def built(size: QwenImageSize) -> Any:
    with torch.device("meta"):
        return build_qwen_image(size)


@pytest.fixture(scope="module")
def qwen() -> Any:
    return built(FULL_SIZE)


@pytest.fixture(scope="module")
def forward(qwen: Any) -> Forward:
    """One of the two forwards of a step at the published size: 4096 tokens of the image, 14 of the prompt."""
    with torch.device("meta"):
        return run_forward(
            qwen.transformer,
            hidden_states=torch.empty(1, 4096, 64),
            encoder_hidden_states=torch.empty(1, PROMPT_TOKENS, 3584),
            timestep=torch.empty(1),
            img_shapes=[[(1, 64, 64)]],
        )


def in_each_block(names: set[str]) -> set[str]:
    return {f"transformer_blocks.{block}.{name}" for block in range(60) for name in names}


def test_the_full_size_is_qwen_image(qwen: Any) -> None:
    assert sum(parameter.numel() for parameter in qwen.transformer.parameters()) == 20_430_401_088
    assert sum(parameter.numel() for parameter in qwen.vae.parameters()) == 126_892_531
    assert qwen.transformer._repeated_blocks == ["QwenImageTransformerBlock"]
    assert len(qwen.transformer.transformer_blocks) == 60


def test_the_table_in_the_text_encoder_s_place_holds_a_prompt_and_a_negative_prompt(qwen: Any) -> None:
    assert qwen.text_encoder.rows.shape == (PROMPT_TOKENS + NEGATIVE_TOKENS, 3584)
    assert qwen.tokenizer is None


def test_the_rule_quantizes_the_image_stream_alone(forward: Forward) -> None:
    assert forward.quantized(RULE) == in_each_block(IMAGE_STREAM)
    assert forward.kept(RULE) == KEPT_ONCE | in_each_block(MODULATION | TEXT_STREAM)
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
    many = {name for name in forward.kept(RULE) if forward.rows[name] > PROMPT_TOKENS}
    assert many == {"img_in", "proj_out"}
    for name in many:
        assert min(forward.linears[name].in_features, forward.linears[name].out_features) == 64


def test_no_pattern_of_the_rule_is_dead(qwen: Any) -> None:
    for clause in RULE.keep:
        assert any(clause.matches(name) for name in linears(qwen.transformer)), clause
        assert clause.reason


def test_img_in_is_the_one_pattern_that_decides_nothing_alone(forward: Forward) -> None:
    def without(pattern: str) -> set[str]:
        keep = tuple(clause for clause in RULE.keep if clause.pattern != pattern)
        return forward.kept(dataclasses.replace(RULE, keep=keep))

    idle = {clause.pattern for clause in RULE.keep if without(clause.pattern) == forward.kept(RULE)}
    assert idle == {"img_in"}


def test_at_the_tiny_size_each_layer_s_decision_is_that_of_the_full_size(qwen: Any) -> None:
    def decisions(pipe: Any, threshold: int) -> dict[str, bool]:
        held = kept(linears(pipe.transformer), dataclasses.replace(RULE, min_features=threshold))
        return {re.sub(r"\d+\.", "N.", name, count=1): name in held for name in linears(pipe.transformer)}

    assert decisions(built(TINY_SIZE), 320) == decisions(qwen, 1024)


@pytest.mark.parametrize("run", PUBLISHED_RUNS, ids=lambda run: f"{run.format}-{run.batch_size}")
def test_the_published_memory_is_what_the_rule_saves(forward: Forward, run: PublishedRun) -> None:
    check_memory(run, PUBLISHED_RUNS, forward.weights(forward.quantized(RULE)))


@pytest.mark.parametrize("run", [run for run in PUBLISHED_RUNS if run.format == "bf16"], ids=lambda r: r.batch_size)
def test_the_need_of_memory_is_the_published_peak(run: PublishedRun) -> None:
    need = QWEN_IMAGE.memory
    assert need is not None
    alone = need.weights + need.call + run.batch_size * need.image
    assert alone == pytest.approx(run.peak_gb * 1e9 / 2**30, rel=0.01)


@pytest.mark.parametrize("run", PUBLISHED_RUNS, ids=lambda run: f"{run.format}-{run.batch_size}")
def test_the_published_speedups_follow_from_the_published_latencies(run: PublishedRun) -> None:
    check_speedup(run, PUBLISHED_RUNS, rounding=0.0005)


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


def test_the_recipe_comes_with_the_package_and_names_one_commit_of_its_weights() -> None:
    assert QWEN_IMAGE in built_in_models()
    assert re.fullmatch("[0-9a-f]{40}", QWEN_IMAGE.revision or "")


def test_reading_the_recipe_imports_no_torch() -> None:
    code = "import sys; import pytest_mxq.models.qwen_image; assert not {'torch', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
