"""The whole path with the packaged model on the CPU: refresh, gates, and every guard of an accuracy gate firing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gate_bench import QUICK, Bench, generate, one_thread, without_compiler
from own_formats import own_format

from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import Drift
from pytest_mxq.models import SelectionRule
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.settings import Reference


@pytest.fixture(scope="module")
def backend() -> Iterator[TorchBackend]:
    with one_thread() as backend:
        yield backend


@pytest.fixture
def bench(backend: TorchBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    without_compiler(monkeypatch)
    return Bench(backend, tmp_path)


@pytest.fixture(scope="module")
def stored(backend: TorchBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a baseline, measured once for all tests."""
    bench = Bench(backend, tmp_path_factory.mktemp("stored"))
    with pytest.MonkeyPatch.context() as patch:
        without_compiler(patch)
        assert bench.refresh().outcome is Outcome.REFRESHED
    return bench.root


@pytest.fixture
def refreshed(bench: Bench, stored: Path) -> Bench:
    shutil.copytree(stored, bench.root, dirs_exist_ok=True)
    return bench


def test_refresh_then_gate_against_the_stored_images(refreshed: Bench) -> None:
    document = json.loads(refreshed.manifest.read_text())
    assert document["noise_floor"] == {
        "repeat": 0.0,
        "eager_vs_compiled": None,
        "note": "not compiled: RuntimeError: no compiler",
    }
    assert document["selections"]["nvfp4"]["layers"]["transformer_blocks.*.attn.to_q"] == 2
    verdict = refreshed.judge("mxfp8")
    assert verdict.outcome is Outcome.PASS, verdict.sentence
    assert verdict.reference is not None
    assert (verdict.reference.mode, verdict.reference.drift) == (
        "stored",
        (Drift(gate="lpips", value=None, limit=0.0125),),
    )
    assert verdict.scores is not None
    assert 0 < verdict.scores.mean < 0.05
    assert verdict.evidence is not None
    assert verdict.evidence.weight_share > 0.5
    assert [compared.size for compared in refreshed.compared] == [(64, 64)]


def test_formats_of_four_bits_damage_more_than_mxfp8(refreshed: Bench) -> None:
    mxfp8, nvfp4, mxfp4 = (refreshed.judge(name, bound=0.8).observed or 0.0 for name in ("mxfp8", "nvfp4", "mxfp4"))
    assert 0 < 4 * mxfp8 < min(nvfp4, mxfp4)


def test_a_tight_bound_is_a_regression_with_comparisons_of_the_worst_images(refreshed: Bench) -> None:
    verdict = refreshed.judge("nvfp4", bound=1e-5, case=refreshed.case())
    assert verdict.outcome is Outcome.REGRESSION
    assert len(verdict.comparisons) == 3
    assert verdict.worst_prompt in DEMO.prompts[:3]


@pytest.mark.parametrize(("gate", "bound"), [("ssim", 0.9), ("psnr", 25.0)])
def test_the_other_metrics_judge_the_same_images(refreshed: Bench, gate: str, bound: float) -> None:
    assert refreshed.judge("mxfp8", gate, bound).outcome is Outcome.PASS
    assert refreshed.judge("mxfp8", gate, {"ssim": 0.99999, "psnr": 119.0}[gate]).outcome is Outcome.REGRESSION


def test_live_and_stored_references_give_the_same_number_on_the_same_machine(refreshed: Bench) -> None:
    stored = refreshed.judge("mxfp8")
    live = refreshed.judge("mxfp8", reference=Reference.LIVE)
    assert live.reference is not None
    assert live.reference.mode == "live"
    assert live.observed == stored.observed


def test_fewer_steps_are_stale_never_a_regression(refreshed: Bench) -> None:
    verdict = refreshed.judge(workload=lambda pipeline, prompt: pipeline(prompt, num_inference_steps=2))
    assert verdict.outcome is Outcome.STALE
    assert "num_inference_steps 3 -> 2" in verdict.sentence


def test_another_seed_is_stale(refreshed: Bench) -> None:
    verdict = refreshed.judge(case=refreshed.case(seed=1))
    assert verdict.outcome is Outcome.STALE
    assert "seed 0 -> 1" in verdict.sentence


def test_a_rule_that_matches_nothing_is_not_quantized(bench: Bench) -> None:
    recipe = replace(QUICK, rule=SelectionRule(min_features=4096))
    verdict = bench.judge(case=bench.case(recipe))
    assert verdict.outcome is Outcome.NOT_QUANTIZED
    assert "none of" in verdict.sentence


def test_a_quantization_without_effect_is_not_quantized(bench: Bench) -> None:
    verdict = bench.judge("same", formats={"same": own_format("same", lambda weight: weight)})
    assert verdict.outcome is Outcome.NOT_QUANTIZED
    assert "3 of 3 images of same are bit-identical to BF16's" in verdict.sentence


def test_a_broken_format_is_a_large_regression(bench: Bench) -> None:
    verdict = bench.judge("broken", bound=0.1, formats={"broken": own_format("broken", torch.zeros_like)})
    assert verdict.outcome in {Outcome.REGRESSION, Outcome.DEGENERATE}


def test_nan_from_an_arm_is_degenerate(bench: Bench) -> None:
    verdict = bench.judge("nan", formats={"nan": own_format("nan", lambda weight: weight * torch.nan)})
    assert verdict.outcome is Outcome.DEGENERATE
    assert "not-finite" in verdict.sentence


def test_a_batch_is_generated_with_each_images_own_noise(bench: Bench) -> None:
    case, batched = bench.case(), bench.case(batch_size=3)
    one = bench.backend.generate(case, generate, ArmSpec.bf16(case), label="x")
    batch = bench.backend.generate(batched, generate, ArmSpec.bf16(batched), label="x")
    difference = (one.images.int() - batch.images.int()).abs().float().mean()
    assert difference < 1.0  # the same noise; not always the same rounding


def test_arms_are_built_once_for_all_gates_of_a_format(backend: TorchBackend, tmp_path: Path) -> None:
    bench = Bench(backend, tmp_path)
    backend.arms.release()
    backend.arms.builds.clear()
    for gate, bound in (("lpips", 0.8), ("ssim", 0.1), ("psnr", 1.0)):
        bench.judge("mxfp8", gate, bound)
    assert dict(backend.arms.builds) == {("demo", "bf16"): 1, ("demo", "mxfp8"): 1}
