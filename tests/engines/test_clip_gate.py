"""The whole path with clips and sound on the CPU. The packaged model's pictures are made clips by the workload."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gate_bench import Bench, draw, no_compiler, one_thread
from PIL import Image
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.backend.generation import TorchEngines
from pytest_mxq.baselines.video import Clip
from pytest_mxq.errors import BaselineInvalidError
from pytest_mxq.gates.verdict import Outcome, Verdict
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.settings import Reference
from pytest_mxq.reports.summary import failure_text

FRAMES, RATE, SAMPLES, PROMPTS = 5, 8000, 128 * 64, DEMO.prompts[:2]
Workload = Callable[[Any, Any], Any]


def film(pipeline: Any, prompt: Any) -> Any:
    """A clip of the picture that walks to the right, with a noise as loud as its pixels are bright."""
    pipeline.pipe.vocoder = SimpleNamespace(config=SimpleNamespace(output_sampling_rate=RATE))
    images = pipeline(prompt).images
    frames = torch.stack([images.roll(6 * t, 3) for t in range(FRAMES)], 1)
    loudness = images.mean(1).reshape(len(images), 2, -1)
    return SimpleNamespace(frames=frames, audio=loudness * (torch.rand(2, SAMPLES, generator=seeded(0)) - 0.5))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(change: Callable[[Any], None], *, quantized: bool = True, prompts: tuple[str, ...] = PROMPTS) -> Workload:
    """The workload whose output is changed afterwards, in the quantized arm alone or in all."""

    def workload(pipeline: Any, prompt: Any) -> Any:
        output = film(pipeline, prompt)
        weights = pipeline.pipe.transformer.parameters()
        if prompt in prompts and (not quantized or any(isinstance(one, TorchAOBaseTensor) for one in weights)):
            change(output)
        return output

    return workload


def stand_still(output: Any) -> None:
    output.frames[:] = output.frames[:, :1].clone()


def play_nothing(output: Any) -> None:
    output.audio.zero_()


def play_nan(output: Any) -> None:
    output.audio[0, 1, 3] = math.nan


def play_louder(output: Any) -> None:
    output.audio *= 2


def one_frame_more(output: Any) -> None:
    output.frames = torch.cat([output.frames, output.frames[:, :1]], 1)


def half_the_sound(output: Any) -> None:
    output.audio = output.audio[..., : output.audio.shape[2] // 2]


def mono(output: Any) -> None:
    output.audio = output.audio[:, :1]


def one_bad_frame(output: Any) -> None:
    output.frames[:, 3] = output.frames[:, 3].flip(-1, -2)


@pytest.fixture(scope="module")
def engines() -> Iterator[TorchEngines]:
    with one_thread() as engines:
        yield engines


class ClipBench(Bench):
    """Two prompts, drawn as clips."""

    def refresh_clips(self, workload: Workload = film) -> Verdict:
        return self.refresh(self.case(prompts=2), workload)

    def judge_clips(self, gate: str, bound: float, name: str = "mxfp8", **options: Any) -> Verdict:
        options = {"case": self.case(prompts=2), "workload": film, **options}
        return self.judge(name, gate, bound, **options)


@pytest.fixture
def bench(engines: TorchEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipBench:
    monkeypatch.setattr(engines, "draw_other_execution", no_compiler)
    return ClipBench(engines, tmp_path)


@pytest.fixture(scope="module")
def stored(engines: TorchEngines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a baseline of clips, measured once for all tests."""
    bench = ClipBench(engines, tmp_path_factory.mktemp("stored"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "draw_other_execution", no_compiler)
        verdict = bench.refresh_clips()
    assert verdict.outcome is Outcome.REFRESHED, verdict.sentence
    return bench.root


@pytest.fixture
def refreshed(bench: ClipBench, stored: Path) -> ClipBench:
    shutil.copytree(stored, bench.root, dirs_exist_ok=True)
    return bench


def test_a_refresh_stores_clips_and_says_so(refreshed: ClipBench) -> None:
    document = json.loads(refreshed.manifest.read_text())
    facts = {"frames": 5, "frame_rate": 24.0, "sample_rate": RATE, "channels": 2, "samples": SAMPLES}
    assert [picture["clip"] for picture in document["pictures"]] == [facts, facts]
    assert len(list(refreshed.manifest.parent.rglob("*.mkv"))) == 2
    assert "clips: equal to the old ones to the bit" in refreshed.refresh_clips().sentence


def test_a_refresh_counts_changed_frames_as_frames(refreshed: ClipBench) -> None:
    sentence = refreshed.refresh_clips(changed(one_bad_frame, quantized=False)).sentence
    assert "demo/case: 2 clips -> " in sentence
    assert "clips: 2 of 10 frames changed, LPIPS old -> new: mean " in sentence


def test_live_and_stored_references_give_the_same_sound(refreshed: ClipBench) -> None:
    stored, live = (refreshed.judge_clips("audio", 30.0, reference=one) for one in (Reference.STORED, Reference.LIVE))
    assert stored.observed == live.observed
    assert stored.observed is not None
    assert stored.observed > 0


def test_a_regression_shows_the_worst_frame_of_each_clip(refreshed: ClipBench) -> None:
    verdict = refreshed.judge_clips("lpips", 1e-5, workload=changed(one_bad_frame))
    assert verdict.outcome is Outcome.REGRESSION
    assert verdict.scores is not None
    assert verdict.scores.worst_index % FRAMES == 3
    assert [compared.size for compared in refreshed.compared] == [(128, 128), (128, 128)]
    assert all("frame 4 of 5" in compared.caption for compared in refreshed.compared)
    assert "\n  frames    10: mean " in failure_text(verdict)


@pytest.mark.parametrize(
    ("gate", "change", "size"),
    [
        ("lpips", one_bad_frame, (128, 128)),
        ("flicker", one_bad_frame, (128, FRAMES)),
        ("audio", play_louder, (257, 2 * 256)),
    ],
)
def test_the_worst_prompt_is_the_one_that_is_worst_and_is_shown_as_the_gate_sees_it(
    refreshed: ClipBench, gate: str, change: Callable[[Any], None], size: tuple[int, int]
) -> None:
    verdict = refreshed.judge_clips(gate, 1e-4, workload=changed(change, prompts=PROMPTS[1:]))
    assert (verdict.outcome, verdict.worst_prompt) == (Outcome.REGRESSION, PROMPTS[1])
    assert [compared.caption.split("   ")[0] for compared in refreshed.compared] == [PROMPTS[1], PROMPTS[0]]
    assert refreshed.compared[0].size == size
    with Image.open(refreshed.compared[0].path) as sheet:
        assert sheet.width > 3 * size[0]


def test_a_louder_sound_is_no_regression_of_the_pictures(refreshed: ClipBench) -> None:
    louder, workflow = changed(play_louder), refreshed.workflow()
    assert refreshed.judge_clips("lpips", 0.1, workload=louder, workflow=workflow).outcome is Outcome.PASS
    verdict = refreshed.judge_clips("audio", 5.5, workload=louder, workflow=workflow)
    assert verdict.outcome is Outcome.REGRESSION
    assert "\n  clips     2: mean " in failure_text(verdict)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (stand_still, "frozen: none of 5 frames differs"),
        (play_nothing, "silent: the sound's peak is 0"),
        (play_nan, "not-finite: 1 of 16384 values of the sound"),
        (one_frame_more, "mxfp8 against BF16: frame count 5 -> 6"),
        (half_the_sound, "samples of sound 8192 -> 4096"),
        (mono, "channels of sound 2 -> 1"),
    ],
)
def test_clips_that_are_none_are_degenerate(refreshed: ClipBench, change: Callable[[Any], None], said: str) -> None:
    verdict = refreshed.judge_clips("audio", 60.0, workload=changed(change))
    assert verdict.outcome is Outcome.DEGENERATE, verdict.sentence
    assert said in verdict.sentence


def test_a_frozen_clip_is_named_once_with_its_prompt(refreshed: ClipBench) -> None:
    verdict = refreshed.judge_clips("lpips", 0.8, workload=changed(stand_still, prompts=PROMPTS[1:]))
    assert verdict.sentence.count("frozen") == 1
    assert f"(clip 1: {PROMPTS[1]!r})" in verdict.sentence
    assert len(verdict.pictures) == 1


def test_bf16_that_stands_still_is_not_stored(bench: ClipBench) -> None:
    verdict = bench.refresh_clips(changed(stand_still, quantized=False))
    assert verdict.outcome is Outcome.DEGENERATE
    assert "nothing was stored: BF16 draws degenerate clips: frozen" in verdict.sentence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one_frame_more, "frame count 5 -> 6"),
        (half_the_sound, "samples of sound 8192 -> 4096"),
        (lambda output: delattr(output, "audio"), "sample rate 8000 -> none"),
    ],
)
def test_other_clips_than_the_stored_ones_are_stale_and_a_refresh_names_the_change(
    refreshed: ClipBench, change: Callable[[Any], None], said: str
) -> None:
    other = changed(change, quantized=False)
    verdict = refreshed.judge_clips("lpips", 0.1, workload=other)
    assert verdict.outcome is Outcome.STALE
    assert said in verdict.sentence
    assert f"case: {said}" in refreshed.refresh_clips(other).sentence or said in verdict.sentence
    assert refreshed.judge_clips("lpips", 0.1, workload=other).outcome is Outcome.PASS


def test_bf16_whose_sound_moved_is_no_reference_for_sound(refreshed: ClipBench) -> None:
    louder = changed(play_louder, quantized=False)
    workflow = refreshed.workflow()
    pictures = refreshed.judge_clips("lpips", 0.1, workload=louder, workflow=workflow)
    assert pictures.reference is not None
    assert pictures.reference.reason.endswith("differs by LPIPS 0.0000")
    sound = refreshed.judge_clips("audio", 20.0, workload=louder, workflow=workflow)
    assert sound.reference is not None
    assert sound.reference.mode == "live"
    assert sound.reference.reason.endswith("6.02 dB, 6.02 dB > 5.00 dB")
    strict = refreshed.judge_clips("audio", 20.0, workload=louder, reference=Reference.STORED)
    assert strict.outcome is Outcome.STALE


def test_clips_equal_to_the_bit_are_not_quantized_unless_their_sound_differs(engines: TorchEngines) -> None:
    shot = engines.draw(ClipBench(engines, Path()).case(prompts=2), film, label="x")
    assert shot.film is not None
    assert shot.sound is not None
    assert engines.are_identical(shot, engines.subset(shot, (0, 1)))
    louder = replace(shot.film, sound=replace(shot.sound, waves=shot.sound.waves * 2))
    assert not engines.are_identical(shot, replace(shot, film=louder))


def test_a_shot_survives_the_store_to_the_bit(engines: TorchEngines) -> None:
    shot = engines.draw(ClipBench(engines, Path()).case(prompts=2), film, label="x")
    media = engines.media(shot)
    assert isinstance(media[0], Clip)
    again = engines.stored(SimpleNamespace(identity=shot.identity), media)  # type: ignore[arg-type]
    assert engines.are_identical(shot, again)
    assert engines.differences(shot, again) == ()
    with pytest.raises(BaselineInvalidError, match="differ in length or rate"):
        engines.stored(SimpleNamespace(identity=shot.identity), [media[0], replace(media[1], frame_rate=12.0)])  # type: ignore[arg-type]


def test_gates_of_clips_and_sound_on_a_model_without_are_errors_that_say_so(bench: ClipBench) -> None:
    flicker = bench.judge_clips("flicker", 0.5, workload=draw)
    assert (flicker.outcome, flicker.sentence) == (
        Outcome.ERROR,
        "mxq_flicker needs clips, and demo draws pictures: take the marker off",
    )
    silent = bench.judge_clips("audio", 20.0, workload=lambda pipeline, prompt: film(pipeline, prompt).frames)
    assert silent.outcome is Outcome.ERROR
    assert silent.sentence.startswith("mxq_audio needs sound, and the test returned none from demo")
