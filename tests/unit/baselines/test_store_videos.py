"""What the store guarantees of images, of videos."""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from baseline_examples import (
    CASE,
    DEVICE,
    OLD,
    assert_same_video,
    make_draft,
    make_images,
    make_video,
    make_videos,
    names_in,
    shades_of,
)

from pytest_mxq.baselines import media, store
from pytest_mxq.baselines.manifest import Manifest, VideoFacts
from pytest_mxq.baselines.media import encode_video
from pytest_mxq.baselines.paths import case_file_name
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.baselines.video import Video
from pytest_mxq.errors import BaselineInvalidError, MxqError

SEEDS, NEW_SEEDS = (1, 2), (3, 4)


@pytest.fixture
def baselines(tmp_path: Path) -> BaselineStore:
    return BaselineStore(tmp_path / "baselines", media=None, device=DEVICE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "baselines" / DEVICE / "demo" / case_file_name(CASE)


def assert_stored(baselines: BaselineStore, seeds: tuple[int, ...]) -> None:
    read = baselines.read_outputs(baselines.load("demo", CASE))
    for video, seed in zip(read, seeds, strict=True):
        assert_same_video(video, make_video(seed))


def with_first(manifest: Manifest, **changes: object) -> Manifest:
    first, *others = manifest.outputs
    return msgspec.structs.replace(manifest, outputs=(msgspec.structs.replace(first, **changes), *others))


def first_replaced(baselines: BaselineStore, folder: Path, data: bytes) -> Manifest:
    """A manifest whose first video is `data`, with a hash that agrees."""
    saved = baselines.save(make_draft(), make_videos(SEEDS))
    (folder / saved.outputs[0].file).write_bytes(data)
    return with_first(saved, sha256=hashlib.sha256(data).hexdigest())


def assert_refused(baselines: BaselineStore, manifest: Manifest, folder: Path, problem: str) -> None:
    with pytest.raises(BaselineInvalidError) as caught:
        baselines.read_outputs(manifest)
    assert str(caught.value).startswith(f"{folder / manifest.outputs[0].file}: ")
    assert problem in str(caught.value)
    assert "pytest --mxq-refresh" in str(caught.value)


def test_what_is_loaded_is_bit_identical_to_what_was_saved(baselines: BaselineStore, folder: Path) -> None:
    saved = baselines.save(make_draft(), make_videos(SEEDS))
    assert baselines.load("demo", CASE) == saved
    assert_stored(baselines, SEEDS)
    first, second = saved.outputs
    assert first.file == "00-a-large-striped-red-circle.mkv"
    assert (first.width, first.height) == (8, 6)
    assert first.video == VideoFacts(frames=3, frame_rate=23.976, sample_rate=24_000, channels=2, samples=50)
    assert names_in(folder) == {first.file, second.file}
    assert hashlib.sha256((folder / first.file).read_bytes()).hexdigest() == first.sha256


def test_videos_without_audio_are_stored_too(baselines: BaselineStore) -> None:
    generated = [make_video(seed, audio=False) for seed in SEEDS]
    saved = baselines.save(make_draft(), generated)
    assert saved.outputs[0].video == VideoFacts(frames=3, frame_rate=23.976)
    for read, video in zip(baselines.read_outputs(saved), generated, strict=True):
        assert_same_video(read, video)


def test_what_is_read_can_be_saved_again(baselines: BaselineStore) -> None:
    saved = baselines.save(make_draft(), make_videos(SEEDS))
    assert baselines.save(saved, baselines.read_outputs(saved)) == saved


def test_a_manifest_of_images_has_no_facts_of_videos(baselines: BaselineStore) -> None:
    saved = baselines.save(make_draft(), make_images(OLD))
    document = json.loads(baselines.manifest_path("demo", CASE).read_bytes())
    assert "video" not in document["outputs"][0]
    assert saved.outputs[0].video is None


def test_a_refresh_removes_what_it_replaced_of_either_kind(baselines: BaselineStore, folder: Path) -> None:
    for generated in (make_images(OLD), make_videos(SEEDS), make_videos(NEW_SEEDS), make_images(OLD)):
        saved = baselines.save(make_draft(), generated)
        (folder / "notes.txt").write_text("kept")
        assert names_in(folder) == {image.file for image in saved.outputs} | {"notes.txt"}
    assert shades_of(baselines.read_outputs(saved)) == OLD


def test_images_and_videos_in_one_case_are_refused(baselines: BaselineStore, tmp_path: Path) -> None:
    with pytest.raises(BaselineInvalidError, match="holds images as well as videos"):
        baselines.save(make_draft(), [make_images(OLD)[0], make_video()])
    assert names_in(tmp_path) == set()


def test_an_impossible_video_is_refused_before_anything_is_written(baselines: BaselineStore, tmp_path: Path) -> None:
    video = make_video()
    wrong = Video(frames=video.frames.astype("float32"), frame_rate=24)
    with pytest.raises(BaselineInvalidError, match=r"^video 1 of .*: the frames are float32"):
        baselines.save(make_draft(), [video, wrong])
    assert names_in(tmp_path) == set()


def test_a_flipped_bit_is_noticed_before_anything_is_decoded(
    baselines: BaselineStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = baselines.save(make_draft(), make_videos(SEEDS))
    path = folder / saved.outputs[0].file
    data = path.read_bytes()
    monkeypatch.setattr(store, "decode_video", lambda *_, **__: pytest.fail("decoded"))
    for position in range(0, len(data), 7):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert_refused(baselines, saved, folder, "altered: its sha256 is")


def test_a_missing_video_is_refused(baselines: BaselineStore, folder: Path) -> None:
    saved = baselines.save(make_draft(), make_videos(SEEDS))
    (folder / saved.outputs[0].file).unlink()
    assert_refused(baselines, saved, folder, "cannot be read (No such file or directory)")


@pytest.mark.parametrize(
    ("keep", "problem"), [(0, "the video is damaged"), (200, "the video is damaged"), (-900, "the manifest says ")]
)
def test_a_truncated_video_is_refused_even_if_its_hash_agrees(
    baselines: BaselineStore, folder: Path, keep: int, problem: str
) -> None:
    data = encode_video(make_video(1), where="test")[:keep]
    assert_refused(baselines, first_replaced(baselines, folder, data), folder, problem)


def test_an_image_under_a_videos_name_is_refused(baselines: BaselineStore, folder: Path) -> None:
    data = b"\x89PNG\r\n\x1a\n" + bytes(2000)
    assert_refused(baselines, first_replaced(baselines, folder, data), folder, "the video is damaged")


def test_an_enormous_video_is_not_read(baselines: BaselineStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = baselines.save(make_draft(), make_videos(SEEDS))
    os.truncate(folder / saved.outputs[0].file, media.MAX_VIDEO_BYTES + 1)
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("opened"))
    assert_refused(baselines, saved, folder, "2147483649 bytes, at most 2147483648 are read")


def test_more_pixels_than_allowed_are_not_decoded(
    baselines: BaselineStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = baselines.save(make_draft(), make_videos(SEEDS))
    monkeypatch.setattr(media, "decode", lambda *_, **__: pytest.fail("decoded"))
    monkeypatch.setattr(media, "MAX_VIDEO_PIXELS", 143)
    assert_refused(baselines, saved, folder, "the video has 3 frames of 8 x 6: at least 1 of 2 x 2, at most")


def facts(**changes: object) -> dict[str, Any]:
    return {"video": msgspec.structs.replace(make_video().facts, **changes)}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"width": 6, "height": 8}, "the frames are 8 x 6, the manifest says 6 x 8"),
        (facts(frames=2), "the video has frames 3, the manifest says 2"),
        (facts(frames=4), "the video has frames 3, the manifest says 4"),
        (facts(frame_rate=24.0), "the video has frame_rate 23.976, the manifest says 24.0"),
        (facts(sample_rate=48_000), "the video has sample_rate 24000, the manifest says 48000"),
        (facts(channels=1), "the video has channels 2, the manifest says 1"),
        (facts(samples=49), "the video has samples 50, the manifest says 49"),
        (
            facts(sample_rate=None, channels=None, samples=None),
            "the video has sample_rate 24000, the manifest says None",
        ),
    ],
)
def test_another_size_length_or_rate_than_the_manifests_is_named_and_not_decoded(
    baselines: BaselineStore, folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], problem: str
) -> None:
    saved = baselines.save(make_draft(), make_videos(SEEDS))
    monkeypatch.setattr(media, "decode", lambda *_, **__: pytest.fail("decoded"))
    assert_refused(baselines, with_first(saved, **changes), folder, problem)


def test_without_pyav_nothing_is_written_and_the_error_says_what_to_install(
    baselines: BaselineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MxqError, match=r"pip install pytest-mxq\[video\]"):
        baselines.save(make_draft(), make_videos(SEEDS))
    assert names_in(tmp_path) == set()


def test_without_pyav_a_stored_video_is_not_called_invalid(
    baselines: BaselineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = baselines.save(make_draft(), make_videos(SEEDS))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MxqError, match=r"pip install pytest-mxq\[video\]") as caught:
        baselines.read_outputs(saved)
    assert not isinstance(caught.value, BaselineInvalidError)


def test_images_need_no_pyav(baselines: BaselineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert shades_of(baselines.read_outputs(baselines.save(make_draft(), make_images(OLD)))) == OLD


class PowerCutError(BaseException):
    """Not an Exception: nothing may catch it by the way."""


def cut_at(step: int, real: Callable[..., None]) -> Callable[..., None]:
    """The rename of files, of which the one at `step` does not happen."""
    left = [step]

    def replace(source: Path, target: Path) -> None:
        if not left[0]:
            raise PowerCutError
        left[0] -= 1
        real(source, target)

    return replace


@pytest.mark.parametrize("step", range(3), ids=["first video", "second video", "manifest"])
def test_an_interrupted_refresh_leaves_the_old_videos(
    baselines: BaselineStore, folder: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    baselines.save(make_draft(), make_videos(SEEDS))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut_at(step, os.replace))
        with pytest.raises(PowerCutError):
            baselines.save(make_draft(), make_videos(NEW_SEEDS))
    assert_stored(baselines, SEEDS)
    saved = baselines.save(make_draft(), make_videos(NEW_SEEDS))
    assert_stored(baselines, NEW_SEEDS)
    assert names_in(folder) == {image.file for image in saved.outputs}


def test_a_full_disk_leaves_the_old_videos(baselines: BaselineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    baselines.save(make_draft(), make_videos(SEEDS))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MxqError, match=r"could not be written.*No space left"):
            baselines.save(make_draft(), make_videos(NEW_SEEDS))
    assert_stored(baselines, SEEDS)
