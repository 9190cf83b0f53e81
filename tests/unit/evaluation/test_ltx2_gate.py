"""Gates of LTX-2 at its tiny size, whole, on the CPU: videos and audio, stored and judged, and every guard firing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gate_bench import Bench, generate, one_thread, without_compiler
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.gates.audio import AUDIO
from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import Verdict
from pytest_mxq.models import Recipe, SelectionRule
from pytest_mxq.models.ltx2 import LTX_2, save_tiny_ltx2
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.settings import CaseSettings, Reference

SMALL = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 4, "max_sequence_length": 64}


def is_quantized(pipeline: Any) -> bool:
    return any(isinstance(one, TorchAOBaseTensor) for one in pipeline.pipe.transformer.parameters())


def in_quantized(change: Any) -> Any:
    """The workload whose output is changed in the quantized arm."""

    def workload(pipeline: Any, prompt: Any) -> Any:
        output = pipeline(prompt)
        if is_quantized(pipeline):
            change(output)
        return output

    return workload


def stand_still(output: Any) -> None:
    output.frames[:] = output.frames[:, :1].clone()


def lose_frames(output: Any) -> None:
    output.frames = output.frames[:, :5]


def shorten(pipeline: Any, prompt: Any) -> Any:
    return pipeline(prompt, num_frames=5)


@pytest.fixture(scope="module")
def backend() -> Iterator[TorchBackend]:
    with one_thread() as backend, pytest.MonkeyPatch.context() as patch:
        without_compiler(patch)
        yield backend


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("tiny") / "ltx-2"
    save_tiny_ltx2(folder)
    rule = replace(LTX_2.rule, min_features=320)  # the width of its transformer, as 1024 is a quarter of LTX-2's
    return replace(LTX_2, source=str(folder), rule=rule, call={**LTX_2.call, **SMALL})


class Ltx2Bench(Bench):
    """Two videos of the tiny LTX-2."""

    def __init__(self, backend: TorchBackend, root: Path, recipe: Recipe) -> None:
        super().__init__(backend, root)
        self.ltx2 = Case(
            recipe=recipe,
            name="case",
            settings=CaseSettings(model=recipe.name),
            prompts=("a red cat walks over a bridge", "waves break on a beach at night"),
        )

    def judge_ltx2(self, gate: str, bound: float, name: str = "mxfp8", **options: Any) -> Verdict:
        return self.judge(name, gate, bound, **{"case": self.ltx2, **options})


@pytest.fixture(scope="module")
def stored(backend: TorchBackend, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bench = Ltx2Bench(backend, tmp_path_factory.mktemp("stored"), recipe)
    verdict = bench.refresh(bench.ltx2)
    assert verdict.outcome is Outcome.REFRESHED, verdict.sentence
    return bench.root


@pytest.fixture
def bench(backend: TorchBackend, recipe: Recipe, stored: Path, tmp_path: Path) -> Ltx2Bench:
    shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
    return Ltx2Bench(backend, tmp_path, recipe)


def test_the_videos_are_stored_with_their_audio(bench: Ltx2Bench) -> None:
    document = json.loads(bench.store.manifest_path("ltx-2", "case").read_text())
    facts = {"frames": 9, "frame_rate": 24.0, "sample_rate": 24000, "channels": 2, "samples": 7920}
    assert [image["video"] for image in document["outputs"]] == [facts, facts]
    assert document["selections"]["nvfp4"]["quantized"] == document["selections"]["mxfp8"]["quantized"] == 40


@pytest.mark.parametrize("name", ["mxfp8", "nvfp4"])
def test_every_gate_judges_emulated_formats_against_stored_videos(bench: Ltx2Bench, name: str) -> None:
    evaluator = bench.evaluator(Reference.STORED)
    for gate, bound in (("lpips", 0.05), ("ssim", 0.9), ("psnr", 20.0), ("flicker", 0.05), ("audio", 6.0)):
        verdict = bench.judge_ltx2(gate, bound, name, evaluator=evaluator)
        assert verdict.outcome is Outcome.PASS, verdict.sentence
        assert verdict.reference is not None
        assert [drift.value for drift in verdict.reference.drift] == [None, *([None] if gate == "audio" else [])]


def test_audio_that_is_not_bf16s_is_a_regression_of_the_audio_gate_alone(bench: Ltx2Bench) -> None:
    def workload(pipeline: Any, prompt: Any) -> Any:
        def another(_module: Any, _args: Any, waves: torch.Tensor) -> torch.Tensor:
            noise = 0.1 * torch.randn(waves.shape, generator=torch.Generator().manual_seed(0))
            return noise.to(waves) if is_quantized(pipeline) else waves

        pipeline.pipe.vocoder.register_forward_hook(another)
        return pipeline(prompt)

    evaluator = bench.evaluator(Reference.LIVE)
    assert bench.judge_ltx2("lpips", 0.05, workload=workload, evaluator=evaluator).outcome is Outcome.PASS
    verdict = bench.judge_ltx2("audio", 6.0, workload=workload, evaluator=evaluator)
    assert verdict.outcome is Outcome.REGRESSION
    assert verdict.observed is not None
    assert verdict.observed > 10
    assert bench.compared[-1].size[1] == 2 * 256  # spectrograms of both channels


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (stand_still, "frozen: none of 9 frames differs from the first"),
        (lambda output: output.audio.zero_(), "silent: the audio's peak is 0"),
        (lambda output: output.frames.mul_(torch.nan), "not-finite: 110592 of 110592 values"),
        (lose_frames, "mxfp8 against BF16: frame count 9 -> 5"),
    ],
)
def test_videos_that_are_none_are_degenerate(bench: Ltx2Bench, change: Any, said: str) -> None:
    verdict = bench.judge_ltx2("flicker", 1.0, workload=in_quantized(change))
    assert verdict.outcome is Outcome.DEGENERATE, verdict.sentence
    assert said in verdict.sentence


def test_a_shorter_call_is_stale(bench: Ltx2Bench) -> None:
    verdict = bench.judge_ltx2("lpips", 0.05, workload=shorten)
    assert verdict.outcome is Outcome.STALE
    assert "num_frames 9 -> 5" in verdict.sentence


def test_a_rule_that_matches_nothing_is_not_quantized(bench: Ltx2Bench, recipe: Recipe) -> None:
    case = replace(bench.ltx2, recipe=replace(recipe, rule=SelectionRule(min_features=4096)))
    verdict = bench.judge_ltx2("audio", 6.0, case=case)
    assert verdict.outcome is Outcome.NOT_QUANTIZED
    assert "none of" in verdict.sentence


def test_a_batch_generates_the_videos_of_its_prompts(bench: Ltx2Bench) -> None:
    one = bench.backend.generate(bench.ltx2, generate, ArmSpec.bf16(bench.ltx2), label="x")
    case = replace(bench.ltx2, settings=replace(bench.ltx2.settings, batch_size=2))
    batch = bench.backend.generate(case, generate, ArmSpec.bf16(case), label="x")
    assert one.differences(batch) == ()
    assert max(bench.scorer.score(LPIPS, one, batch)) < 0.01
    assert max(bench.scorer.score(AUDIO, one, batch)) < 1.0
