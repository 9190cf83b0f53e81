"""FLUX.1-dev's own rules, rows of activations and published call: what no other recipe shares."""

import dataclasses
import re
from typing import Any

import pytest
from recipe_facts import (
    Forward,
    forward_of,
    full_size,
    linears,
    skipped,
    weights,
)

from pytest_mxq.models.flux import (
    FLUX_1_DEV,
    PUBLISHED_LPIPS,
)

SKIPPED = {
    *(f"time_text_embed.{part}_embedder.linear_{half}" for part in ("timestep", "guidance", "text") for half in (1, 2)),
    "context_embedder",
    "x_embedder",
    "norm_out.linear",
    "proj_out",
}
MODULATION = r"transformer_blocks\.\d+\.norm1(_context)?\.linear|single_transformer_blocks\.\d+\.norm\.linear"
INTENDED = FLUX_1_DEV.selection("intended")


@pytest.fixture(scope="module")
def flux() -> Any:
    return full_size("flux.1-dev")


@pytest.fixture(scope="module")
def forward() -> Forward:
    return forward_of("flux.1-dev")


def test_the_full_size_is_flux_1_dev(flux: Any) -> None:
    assert weights(flux.transformer) == 11_901_408_320
    assert weights(flux.vae) == 83_819_683
    assert flux.transformer._repeated_blocks == ["FluxTransformerBlock", "FluxSingleTransformerBlock"]
    assert (len(flux.transformer.transformer_blocks), len(flux.transformer.single_transformer_blocks)) == (19, 38)


def test_the_tables_in_the_text_encoders_places_have_their_output_shapes(flux: Any) -> None:
    assert flux.text_encoder.rows.shape == (1, 768)
    assert flux.text_encoder_2.rows.shape == (512, 4096)
    assert flux.tokenizer is flux.tokenizer_2 is None


def test_the_rule_quantizes_494_of_504_layers(forward: Forward) -> None:
    assert forward.skipped(FLUX_1_DEV.rule) == SKIPPED
    quantized = forward.quantized(FLUX_1_DEV.rule)
    assert (len(quantized), len(forward.linears)) == (494, 504)
    assert forward.weights(quantized) / forward.weights() == pytest.approx(0.9946, abs=5e-5)
    assert forward.work(quantized) / forward.work() == pytest.approx(0.9997, abs=5e-5)
    assert forward.work(quantized) / forward.flops == pytest.approx(0.7998, abs=5e-5)


def test_the_rule_quantizes_layers_of_one_row_that_hold_27_percent_of_the_weights(forward: Forward) -> None:
    quantized = forward.quantized(FLUX_1_DEV.rule)
    single = {name for name in quantized if forward.rows[name] == 1}
    assert forward.rows_of(quantized - single) == {512, 4096, 4608}
    assert len(single) == 76
    assert all(re.fullmatch(MODULATION, name) for name in single)
    assert forward.weights(single) / forward.weights() == pytest.approx(0.2713, abs=5e-5)
    assert forward.work(single) / forward.work() < 1.1e-4


def test_the_intended_rule_skips_exactly_these_besides(forward: Forward) -> None:
    assert forward.skipped(INTENDED) - SKIPPED == {name for name in forward.linears if re.fullmatch(MODULATION, name)}
    quantized = forward.quantized(INTENDED)
    assert forward.rows_of(quantized) == {512, 4096, 4608}
    assert forward.weights(quantized) / forward.weights() == pytest.approx(0.7234, abs=5e-5)
    assert forward.work(quantized) / forward.flops == pytest.approx(0.7998, abs=1e-4)


def test_every_single_block_s_own_proj_out_is_quantized(flux: Any) -> None:
    ends = [
        name for name in linears(flux.transformer) if re.fullmatch(r"single_transformer_blocks\.\d+\.proj_out", name)
    ]
    assert len(ends) == 38
    assert not SKIPPED & set(ends)
    loose = dataclasses.replace(
        FLUX_1_DEV.rule, skip=tuple(dataclasses.replace(clause, exact=False) for clause in FLUX_1_DEV.rule.skip)
    )
    assert set(ends) < skipped(linears(flux.transformer), loose)


def test_the_published_lpips_grows_with_fewer_bits_and_with_more_layers() -> None:
    eight, four = PUBLISHED_LPIPS
    assert (eight.format, four.format) == ("mxfp8", "nvfp4")
    assert eight.all_layers is not None
    assert four.all_layers is not None
    assert eight.selective < eight.all_layers < four.selective < four.all_layers


def test_the_call_and_the_first_prompt_are_the_published_ones() -> None:
    assert dict(FLUX_1_DEV.call) == {
        "height": 1024,
        "width": 1024,
        "num_inference_steps": 28,
        "guidance_scale": 3.5,
        "max_sequence_length": 512,
    }
    assert FLUX_1_DEV.prompts[0] == "A cat holding a sign that says hello world"
