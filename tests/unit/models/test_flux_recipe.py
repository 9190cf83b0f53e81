"""FLUX.1-dev's recipe against the model's own shapes, on the meta device, and against the published numbers."""

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from recipe_facts import Forward, check_memory, check_speedup, kept, linears, run_forward

from pytest_mxq.models import built_in_models
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
MODULATION = r"transformer_blocks\.\d+\.norm1(_context)?\.linear|single_transformer_blocks\.\d+\.norm\.linear"
INTENDED = FLUX_1_DEV.selection("intended")


def built(size: FluxSize) -> Any:
    with torch.device("meta"):
        return build_flux(size)


@pytest.fixture(scope="module")
def flux() -> Any:
    return built(FULL_SIZE)


@pytest.fixture(scope="module")
def forward(flux: Any) -> Forward:
    """One forward at the published size: 4096 tokens of the image and 512 of the text."""
    with torch.device("meta"):
        return run_forward(
            flux.transformer,
            hidden_states=torch.empty(1, 4096, 64),
            encoder_hidden_states=torch.empty(1, 512, 4096),
            pooled_projections=torch.empty(1, 768),
            timestep=torch.empty(1),
            guidance=torch.empty(1),
            img_ids=torch.empty(4096, 3),
            txt_ids=torch.empty(512, 3),
        )


def test_the_full_size_is_flux_1_dev(flux: Any) -> None:
    assert sum(parameter.numel() for parameter in flux.transformer.parameters()) == 11_901_408_320
    assert sum(parameter.numel() for parameter in flux.vae.parameters()) == 83_819_683
    assert flux.transformer._repeated_blocks == ["FluxTransformerBlock", "FluxSingleTransformerBlock"]
    assert (len(flux.transformer.transformer_blocks), len(flux.transformer.single_transformer_blocks)) == (19, 38)


def test_the_tables_in_the_text_encoders_places_have_their_output_shapes(flux: Any) -> None:
    assert flux.text_encoder.rows.shape == (1, 768)
    assert flux.text_encoder_2.rows.shape == (512, 4096)
    assert flux.tokenizer is flux.tokenizer_2 is None


def test_the_rule_quantizes_494_of_504_layers(forward: Forward) -> None:
    assert forward.kept(FLUX_1_DEV.rule) == KEPT
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


def test_the_intended_rule_keeps_exactly_these_besides(forward: Forward) -> None:
    assert forward.kept(INTENDED) - KEPT == {name for name in forward.linears if re.fullmatch(MODULATION, name)}
    quantized = forward.quantized(INTENDED)
    assert forward.rows_of(quantized) == {512, 4096, 4608}
    assert forward.weights(quantized) / forward.weights() == pytest.approx(0.7234, abs=5e-5)
    assert forward.work(quantized) / forward.flops == pytest.approx(0.7998, abs=1e-4)


@pytest.mark.parametrize("selection", ["published", "intended"])
def test_no_pattern_of_a_rule_is_dead(flux: Any, selection: str) -> None:
    for clause in FLUX_1_DEV.selection(selection).keep:
        assert any(clause.matches(name) for name in linears(flux.transformer)), clause
        assert clause.reason


def test_every_single_block_s_own_proj_out_is_quantized(flux: Any) -> None:
    ends = [
        name for name in linears(flux.transformer) if re.fullmatch(r"single_transformer_blocks\.\d+\.proj_out", name)
    ]
    assert len(ends) == 38
    assert not KEPT & set(ends)
    loose = dataclasses.replace(
        FLUX_1_DEV.rule, keep=tuple(dataclasses.replace(clause, exact=False) for clause in FLUX_1_DEV.rule.keep)
    )
    assert set(ends) < kept(linears(flux.transformer), loose)


@pytest.mark.parametrize("selection", ["published", "intended"])
def test_at_the_tiny_size_each_layer_s_decision_is_that_of_the_full_size(flux: Any, selection: str) -> None:
    def decisions(pipe: Any, threshold: int) -> dict[str, bool]:
        rule = dataclasses.replace(FLUX_1_DEV.selection(selection), min_features=threshold)
        held = kept(linears(pipe.transformer), rule)
        return {re.sub(r"\d+\.", "N.", name, count=1): name in held for name in linears(pipe.transformer)}

    assert decisions(built(TINY_SIZE), 320) == decisions(flux, 1024)


@pytest.mark.parametrize("run", PUBLISHED_RUNS, ids=lambda run: f"{run.format}-{run.batch_size}")
def test_the_published_memory_is_what_the_rule_saves(forward: Forward, run: PublishedRun) -> None:
    check_memory(run, PUBLISHED_RUNS, forward.weights(forward.quantized(FLUX_1_DEV.rule)))


@pytest.mark.parametrize("run", PUBLISHED_RUNS, ids=lambda run: f"{run.format}-{run.batch_size}")
def test_the_published_speedups_follow_from_the_published_latencies(run: PublishedRun) -> None:
    check_speedup(run, PUBLISHED_RUNS, rounding=0.005)


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


def test_the_recipe_comes_with_the_package_and_names_one_commit_of_its_weights() -> None:
    assert FLUX_1_DEV in built_in_models()
    assert re.fullmatch("[0-9a-f]{40}", FLUX_1_DEV.revision or "")


def test_reading_the_recipe_imports_no_torch() -> None:
    code = "import sys; import pytest_mxq.models.flux; assert not {'torch', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
