"""FLUX.1-dev's recipe against the model's own shapes, on the meta device, and against the published numbers."""

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from pytest_mxq.models import SelectionRule, built_in_models
from pytest_mxq.models.flux import (
    FLUX_1_DEV,
    FULL_SIZE,
    PUBLISHED_LPIPS,
    PUBLISHED_RUNS,
    TINY_SIZE,
    FluxSize,
    build_flux,
)
from pytest_mxq.models.published import PublishedRun

KEPT = {
    *(f"time_text_embed.{part}_embedder.linear_{half}" for part in ("timestep", "guidance", "text") for half in (1, 2)),
    "context_embedder",
    "x_embedder",
    "norm_out.linear",
    "proj_out",
}
RATIO = {"mxfp8": 0.515625, "nvfp4": 0.28125}  # bytes of a weight with its scales, against BF16


def built(size: FluxSize) -> Any:
    with torch.device("meta"):
        return build_flux(size)


@pytest.fixture(scope="module")
def flux() -> Any:
    return built(FULL_SIZE)


def linears(pipe: Any) -> dict[str, nn.Linear]:
    return {name: layer for name, layer in pipe.transformer.named_modules() if isinstance(layer, nn.Linear)}


def kept(layers: dict[str, nn.Linear], rule: SelectionRule) -> set[str]:
    return {name for name, layer in layers.items() if rule.keeps(name, layer.in_features, layer.out_features)}


def quantized_weights(layers: dict[str, nn.Linear]) -> int:
    return sum(layers[name].weight.numel() for name in layers.keys() - KEPT)


def test_the_full_size_is_flux_1_dev(flux: Any) -> None:
    assert sum(parameter.numel() for parameter in flux.transformer.parameters()) == 11_901_408_320
    assert sum(parameter.numel() for parameter in flux.vae.parameters()) == 83_819_683
    assert flux.transformer._repeated_blocks == ["FluxTransformerBlock", "FluxSingleTransformerBlock"]
    assert (len(flux.transformer.transformer_blocks), len(flux.transformer.single_transformer_blocks)) == (19, 38)


def test_the_tables_in_the_text_encoders_places_have_their_output_shapes(flux: Any) -> None:
    assert flux.text_encoder.rows.shape == (1, 768)
    assert flux.text_encoder_2.rows.shape == (512, 4096)
    assert flux.tokenizer is flux.tokenizer_2 is None


def test_the_rule_quantizes_494_of_504_layers(flux: Any) -> None:
    layers = linears(flux)
    assert kept(layers, FLUX_1_DEV.rule) == KEPT
    assert (len(layers) - len(KEPT), len(layers)) == (494, 504)
    weights = sum(layer.weight.numel() for layer in layers.values())
    assert quantized_weights(layers) / weights == pytest.approx(0.9946, abs=5e-5)


def test_no_pattern_of_the_rule_is_dead(flux: Any) -> None:
    for clause in FLUX_1_DEV.rule.keep:
        assert any(clause.matches(name) for name in linears(flux)), clause
        assert clause.reason


def test_every_single_block_s_own_proj_out_is_quantized(flux: Any) -> None:
    ends = [name for name in linears(flux) if re.fullmatch(r"single_transformer_blocks\.\d+\.proj_out", name)]
    assert len(ends) == 38
    assert not KEPT & set(ends)
    loose = dataclasses.replace(
        FLUX_1_DEV.rule, keep=tuple(dataclasses.replace(clause, exact=False) for clause in FLUX_1_DEV.rule.keep)
    )
    assert set(ends) < kept(linears(flux), loose)


def test_at_the_tiny_size_each_layer_s_decision_is_that_of_the_full_size(flux: Any) -> None:
    def decisions(pipe: Any, threshold: int) -> dict[str, bool]:
        rule = dataclasses.replace(FLUX_1_DEV.rule, min_features=threshold)
        held = kept(linears(pipe), rule)
        return {re.sub(r"\d+\.", "N.", name, count=1): name in held for name in linears(pipe)}

    assert decisions(built(TINY_SIZE), 320) == decisions(flux, 1024)


def test_the_published_memory_is_what_the_rule_saves(flux: Any) -> None:
    weights = quantized_weights(linears(flux))
    baseline = {run.batch_size: run for run in PUBLISHED_RUNS if run.format == "bf16"}
    for run in PUBLISHED_RUNS:
        if run.format != "bf16":
            saved = 2 * weights * (1 - RATIO[run.format]) / 1e9
            published = baseline[run.batch_size].peak_gb - run.peak_gb
            assert published == pytest.approx(saved, rel=0.005), run


@pytest.mark.parametrize("run", PUBLISHED_RUNS, ids=lambda run: f"{run.format}-{run.batch_size}")
def test_the_published_speedups_follow_from_the_published_latencies(run: PublishedRun) -> None:
    (bf16,) = (other for other in PUBLISHED_RUNS if (other.format, other.batch_size) == ("bf16", run.batch_size))
    rounding = 0.005
    lowest = (bf16.seconds - rounding) / (run.seconds + rounding)
    highest = (bf16.seconds + rounding) / (run.seconds - rounding)
    assert lowest - rounding <= run.speedup <= highest + rounding


def test_the_published_lpips_grows_with_fewer_bits_and_with_more_layers() -> None:
    eight, four = PUBLISHED_LPIPS
    assert (eight.format, four.format) == ("mxfp8", "nvfp4")
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


def test_the_recipe_comes_with_the_package() -> None:
    assert FLUX_1_DEV in built_in_models()


def test_reading_the_recipe_imports_no_torch() -> None:
    code = "import sys; import pytest_mxq.models.flux; assert not {'torch', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
