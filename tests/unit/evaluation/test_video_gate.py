"""The whole path with videos and audio on the CPU. The packaged model's images are made videos by the workload."""

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
from gate_bench import QUICK, Bench, generate, one_thread, without_compiler
from PIL import Image
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.baselines.video import Video
from pytest_mxq.errors import BaselineInvalidError
from pytest_mxq.evaluation.drift import bit_identical
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import Verdict
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.settings import Reference
from pytest_mxq.reports.failure import failure_text

FRAMES, RATE, PROMPTS = 5, 8000, DEMO.prompts[:2]
SIZE = QUICK.call["width"]
SAMPLES = SIZE * SIZE // 2
Workload = Callable[[Any, Any], Any]


def video(pipeline: Any, prompt: Any) -> Any:
    """A video of the image that walks to the right, with a noise as loud as its pixels are bright."""
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
        output = video(pipeline, prompt)
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


def half_the_audio(output: Any) -> None:
    output.audio = output.audio[..., : output.audio.shape[2] // 2]


def mono(output: Any) -> None:
    output.audio = output.audio[:, :1]


def one_bad_frame(output: Any) -> None:
    output.frames[:, 3] = output.frames[:, 3].flip(-1, -2)


@pytest.fixture(scope="module")
def backend() -> Iterator[TorchBackend]:
    with one_thread() as backend:
        yield backend


class VideoBench(Bench):
    """Two prompts, generated as videos."""

    def refresh_videos(self, workload: Workload = video) -> Verdict:
        return self.refresh(self.case(prompts=2), workload)

    def judge_videos(self, gate: str, bound: float, name: str = "mxfp8", **options: Any) -> Verdict:
        options = {"case": self.case(prompts=2), "workload": video, **options}
        return self.judge(name, gate, bound, **options)


@pytest.fixture
def bench(backend: TorchBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoBench:
    without_compiler(monkeypatch)
    return VideoBench(backend, tmp_path)


@pytest.fixture(scope="module")
def stored(backend: TorchBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a baseline of videos, measured once for all tests."""
    bench = VideoBench(backend, tmp_path_factory.mktemp("stored"))
    with pytest.MonkeyPatch.context() as patch:
        without_compiler(patch)
        verdict = bench.refresh_videos()
    assert verdict.outcome is Outcome.REFRESHED, verdict.sentence
    return bench.root


@pytest.fixture
def refreshed(bench: VideoBench, stored: Path) -> VideoBench:
    shutil.copytree(stored, bench.root, dirs_exist_ok=True)
    return bench


def test_a_refresh_stores_videos_and_a_second_one_writes_nothing(refreshed: VideoBench) -> None:
    document = json.loads(refreshed.manifest.read_text())
    facts = {"frames": 5, "frame_rate": 24.0, "sample_rate": RATE, "channels": 2, "samples": SAMPLES}
    assert [image["video"] for image in document["outputs"]] == [facts, facts]
    assert len(list(refreshed.manifest.parent.rglob("*.mkv"))) == 2
    assert "unchanged, nothing was written" in refreshed.refresh_videos().sentence


def test_a_refresh_counts_changed_frames_as_frames(refreshed: VideoBench) -> None:
    sentence = refreshed.refresh_videos(changed(one_bad_frame, quantized=False)).sentence
    assert "demo/case: 2 videos -> " in sentence
    assert "videos: 2 of 10 frames changed, LPIPS old -> new: mean " in sentence


def test_live_and_stored_references_give_the_same_audio(refreshed: VideoBench) -> None:
    stored, live = (refreshed.judge_videos("audio", 30.0, reference=one) for one in (Reference.STORED, Reference.LIVE))
    assert stored.observed == live.observed
    assert stored.observed is not None
    assert stored.observed > 0


def test_a_regression_shows_the_worst_frame_of_each_video(refreshed: VideoBench) -> None:
    verdict = refreshed.judge_videos("lpips", 1e-5, workload=changed(one_bad_frame))
    assert verdict.outcome is Outcome.REGRESSION
    assert verdict.scores is not None
    assert verdict.scores.worst_index % FRAMES == 3
    assert [compared.size for compared in refreshed.compared] == [(SIZE, SIZE), (SIZE, SIZE)]
    assert all("frame 4 of 5" in compared.caption for compared in refreshed.compared)
    assert "\n  frames    10: mean " in failure_text(verdict, root=refreshed.root, report=refreshed.root)


@pytest.mark.parametrize(
    ("gate", "change", "size"),
    [
        ("lpips", one_bad_frame, (SIZE, SIZE)),
        ("flicker", one_bad_frame, (SIZE, FRAMES)),
        ("audio", play_louder, (257, 2 * 256)),
    ],
)
def test_the_worst_prompt_is_the_one_that_is_worst_and_is_shown_as_the_gate_sees_it(
    refreshed: VideoBench, gate: str, change: Callable[[Any], None], size: tuple[int, int]
) -> None:
    verdict = refreshed.judge_videos(gate, 1e-4, workload=changed(change, prompts=PROMPTS[1:]))
    assert (verdict.outcome, verdict.worst_prompt) == (Outcome.REGRESSION, PROMPTS[1])
    assert [compared.caption.split("   ")[0] for compared in refreshed.compared] == [PROMPTS[1], PROMPTS[0]]
    assert refreshed.compared[0].size == size
    with Image.open(refreshed.compared[0].path) as sheet:
        assert sheet.width > 3 * size[0]


def test_a_louder_audio_is_no_regression_of_the_images(refreshed: VideoBench) -> None:
    louder, evaluator = changed(play_louder), refreshed.evaluator()
    assert refreshed.judge_videos("lpips", 0.1, workload=louder, evaluator=evaluator).outcome is Outcome.PASS
    verdict = refreshed.judge_videos("audio", 5.5, workload=louder, evaluator=evaluator)
    assert verdict.outcome is Outcome.REGRESSION
    assert "\n  videos    2: mean " in failure_text(verdict, root=refreshed.root, report=refreshed.root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (stand_still, "frozen: none of 5 frames differs"),
        (play_nothing, "silent: the audio's peak is 0"),
        (play_nan, "not-finite: 1 of 4096 values of the audio"),
        (one_frame_more, "mxfp8 against BF16: frame count 5 -> 6"),
        (half_the_audio, "samples of audio 2048 -> 1024"),
        (mono, "channels of audio 2 -> 1"),
    ],
)
def test_videos_that_are_none_are_degenerate(refreshed: VideoBench, change: Callable[[Any], None], said: str) -> None:
    verdict = refreshed.judge_videos("audio", 60.0, workload=changed(change))
    assert verdict.outcome is Outcome.DEGENERATE, verdict.sentence
    assert said in verdict.sentence


def test_a_frozen_video_is_named_once_with_its_prompt(refreshed: VideoBench) -> None:
    verdict = refreshed.judge_videos("lpips", 0.8, workload=changed(stand_still, prompts=PROMPTS[1:]))
    assert verdict.sentence.count("frozen") == 1
    assert f"(video 1: {PROMPTS[1]!r})" in verdict.sentence
    assert len(verdict.comparisons) == 1


def test_bf16_that_stands_still_is_not_stored(bench: VideoBench) -> None:
    verdict = bench.refresh_videos(changed(stand_still, quantized=False))
    assert verdict.outcome is Outcome.DEGENERATE
    assert "nothing was stored: BF16 generates degenerate videos: frozen" in verdict.sentence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one_frame_more, "frame count 5 -> 6"),
        (half_the_audio, "samples of audio 2048 -> 1024"),
        (lambda output: delattr(output, "audio"), "sample rate 8000 -> none"),
    ],
)
def test_other_videos_than_the_stored_ones_are_stale_and_a_refresh_names_the_change(
    refreshed: VideoBench, change: Callable[[Any], None], said: str
) -> None:
    other = changed(change, quantized=False)
    verdict = refreshed.judge_videos("lpips", 0.1, workload=other)
    assert verdict.outcome is Outcome.STALE
    assert said in verdict.sentence
    assert f"case: {said}" in refreshed.refresh_videos(other).sentence
    again = refreshed.judge_videos("lpips", 0.1, workload=other)
    assert again.outcome is Outcome.PASS, again.sentence


def test_bf16_whose_audio_moved_is_no_reference_for_audio(refreshed: VideoBench) -> None:
    louder = changed(play_louder, quantized=False)
    evaluator = refreshed.evaluator()
    images = refreshed.judge_videos("lpips", 0.1, workload=louder, evaluator=evaluator)
    assert images.reference is not None
    assert [(drift.gate, drift.value) for drift in images.reference.drift] == [("lpips", 0.0)]
    audio = refreshed.judge_videos("audio", 20.0, workload=louder, evaluator=evaluator)
    assert audio.reference is not None
    assert audio.reference.mode == "live"
    assert audio.reference.reason.endswith("by audio 6.02 dB > 5.00 dB")
    assert [(drift.gate, drift.limit) for drift in audio.reference.drift] == [("lpips", 0.02), ("audio", 5.0)]
    strict = refreshed.judge_videos("audio", 20.0, workload=louder, reference=Reference.STORED)
    assert strict.outcome is Outcome.STALE


def test_videos_equal_to_the_bit_are_not_quantized_unless_their_audio_differs(backend: TorchBackend) -> None:
    case = VideoBench(backend, Path()).case(prompts=2)
    outputs = backend.generate(case, video, ArmSpec.bf16(case), label="x")
    assert outputs.video is not None
    assert outputs.audio is not None
    assert bit_identical(outputs, outputs.subset((0, 1)))
    louder = replace(outputs.video, audio=replace(outputs.audio, waves=outputs.audio.waves * 2))
    assert not bit_identical(outputs, replace(outputs, video=louder))


def test_outputs_survive_the_store_bit_identical(backend: TorchBackend) -> None:
    case = VideoBench(backend, Path()).case(prompts=2)
    outputs = backend.generate(case, video, ArmSpec.bf16(case), label="x")
    media = outputs.to_media()
    assert isinstance(media[0], Video)
    again = backend.load(media, outputs.identity)
    assert bit_identical(outputs, again)
    assert outputs.differences(again) == ()
    with pytest.raises(BaselineInvalidError, match="differ in length or rate"):
        backend.load([media[0], replace(media[1], frame_rate=12.0)], outputs.identity)


def test_gates_of_videos_and_audio_on_a_model_without_are_errors_that_say_so(bench: VideoBench) -> None:
    flicker = bench.judge_videos("flicker", 0.5, workload=generate)
    assert (flicker.outcome, flicker.sentence) == (
        Outcome.ERROR,
        "mxq_flicker needs videos, and demo generates images: remove the marker",
    )
    silent = bench.judge_videos("audio", 20.0, workload=lambda pipeline, prompt: video(pipeline, prompt).frames)
    assert silent.outcome is Outcome.ERROR
    assert silent.sentence.startswith("mxq_audio needs audio, and the test returned none from demo")
