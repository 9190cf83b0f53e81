"""Videos there and back, and files that are not videos."""

import dataclasses
import os
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from baseline_examples import assert_same_video, make_video

from pytest_mxq.baselines import media
from pytest_mxq.baselines.media import decode_video, encode_video
from pytest_mxq.baselines.video import Video, inspect
from pytest_mxq.errors import BaselineInvalidError, MxqError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "video.mkv"


def write_video(path: Path, video: Video) -> None:
    path.write_bytes(encode_video(video, where=str(path)))


def read_video(path: Path) -> Video:
    """Of the size and length that the file itself tells."""
    data, where = path.read_bytes(), str(path)
    size, facts = inspect(data, where=where)
    return decode_video(data, size=size, facts=facts, where=where)


def refusal_of(path: Path) -> str:
    with pytest.raises(BaselineInvalidError) as caught:
        read_video(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "pytest --mxq-refresh" in str(caught.value)
    return str(caught.value)


def noise(*shape: int) -> Any:
    return np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 2, 2), (5, 3, 353), (4, 353, 3), (3, 37, 53), (2, 300, 400)], ids=str)
def test_frames_of_noise_are_read_back_bit_identical(path: Path, shape: tuple[int, ...]) -> None:
    video = Video(frames=noise(*shape), frame_rate=24)
    write_video(path, video)
    assert_same_video(read_video(path), video)


@pytest.mark.parametrize("frame_rate", [1, 8, 23.976, 24000 / 1001, 24.0, 29.97, 59.94, 1000])
@pytest.mark.parametrize(("channels", "sample_rate"), [(1, 24_000), (2, 48_000), (2, 44_100), (1, 1)])
def test_rates_and_audio_come_back_exactly(path: Path, frame_rate: float, channels: int, sample_rate: int) -> None:
    audio = np.random.default_rng(2).normal(0, 1, (channels, 777)).astype(np.float32)
    video = Video(frames=noise(4, 6, 8), frame_rate=frame_rate, audio=audio, sample_rate=sample_rate)
    write_video(path, video)
    read = read_video(path)
    assert_same_video(read, video)
    assert (read.frame_rate, read.sample_rate) == (frame_rate, sample_rate)


def test_audio_beyond_full_scale_and_not_finite_is_read_back_bit_identical(path: Path) -> None:
    values = [1.5, -7e30, -0.0, np.inf, -np.inf, np.nan, 1e-42]
    video = Video(frames=noise(1, 6, 8), frame_rate=24, audio=np.array([values], np.float32), sample_rate=8_000)
    write_video(path, video)
    assert_same_video(read_video(path), video)


def test_a_video_of_more_than_ten_seconds_alternates_frames_and_audio(path: Path) -> None:
    audio = np.random.default_rng(3).normal(0, 1, (2, 12 * 8_000)).astype(np.float32)
    video = Video(frames=noise(12 * 24, 6, 8), frame_rate=24, audio=audio, sample_rate=8_000)
    write_video(path, video)
    assert_same_video(read_video(path), video)
    with av.open(path) as container:
        packets = [(packet.pts, packet.stream.type) for packet in container.demux() if packet.pts is not None]
    assert packets == sorted(packets, key=lambda packet: packet[0])


def test_views_of_other_arrays_are_stored_as_they_look(path: Path) -> None:
    video = make_video()
    assert video.audio is not None
    view = dataclasses.replace(video, frames=video.frames[::-1, ::-1, ::2, ::-1], audio=video.audio[::-1, ::3])
    write_video(path, view)
    assert_same_video(read_video(path), view)


def test_equal_videos_give_equal_bytes_on_any_number_of_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    video = Video(frames=noise(3, 120, 160), frame_rate=24)
    allowed = os.sched_getaffinity(0)
    data = encode_video(video, where="test")
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert encode_video(dataclasses.replace(video, frames=video.frames.copy()), where="test") == data
    finally:
        os.sched_setaffinity(0, allowed)


def test_the_file_is_read_by_what_reads_matroska(path: Path) -> None:
    video = make_video()
    assert video.audio is not None
    write_video(path, video)
    with av.open(path) as container:
        assert container.streams.video[0].average_rate == Fraction("23.976")
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(path) as container:
        audio = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert np.array_equal(np.stack(frames), video.frames)
    assert np.array_equal(audio.reshape(-1, 2).T, video.audio)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"frames": noise(2, 6, 8).astype(np.float32)}, "the frames are float32 (2, 6, 8, 3): they must be uint8"),
        ({"frames": noise(6, 8)}, "the frames are uint8 (6, 8, 3): they must be uint8 (frames, height, width, 3)"),
        ({"frames": noise(2, 6, 8)[..., :1]}, "the frames are uint8 (2, 6, 8, 1)"),
        ({"frames": [1, 2]}, "the frames are list"),
        ({"frames": noise(0, 6, 8)}, "the video has 0 frames of 8 x 6: at least 1 of 2 x 2"),
        ({"frames": noise(3, 1, 8)}, "the video has 3 frames of 8 x 1: at least 1 of 2 x 2"),
        (
            {"frames": np.broadcast_to(np.uint8(0), (1, 8192, 8193, 3))},
            "the video has 1 frames of 8193 x 8192: at least",
        ),
        ({"frame_rate": 0.5}, "the frame_rate is 0.5: it must be from 1 to 1000"),
        ({"frame_rate": 1001}, "the frame_rate is 1001.0"),
        ({"frame_rate": float("nan")}, "the frame_rate is nan"),
        ({"audio": None}, "audio is NoneType, sample_rate 24000: give both or neither"),
        ({"sample_rate": None}, "audio is float32 (2, 50), sample_rate None: give both or neither"),
        ({"sample_rate": 24000.5}, "sample_rate is 24000.5: it must be an int"),
        ({"sample_rate": 0}, "the sample_rate is 0: it must be from 1 to 768000"),
        ({"audio": np.zeros((2, 50))}, "the audio is float64 (2, 50): it must be float32 (channels, samples)"),
        ({"audio": np.zeros(50, np.float32)}, "the audio is float32 (50,)"),
        ({"audio": np.zeros((3, 50), np.float32)}, "the audio has 3 channels of 50 samples: 1 or 2 channels"),
        ({"audio": np.zeros((2, 0), np.float32)}, "the audio has 2 channels of 0 samples"),
    ],
)
def test_what_could_not_be_stored_exactly_is_refused(path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(BaselineInvalidError) as caught:
        write_video(path, dataclasses.replace(make_video(), **changes))
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert not path.exists()


@pytest.mark.parametrize(
    ("limit", "allowed", "problem"),
    [
        (
            "MAX_VIDEO_PIXELS",
            3 * 6 * 8,
            "the video has 3 frames of 8 x 6: at least 1 of 2 x 2, at most 67108864 pixels in one and 143 in",
        ),
        (
            "MAX_AUDIO_VALUES",
            2 * 50,
            "the audio has 2 channels of 50 samples: 1 or 2 channels, at least 1 sample and at most 99 in all",
        ),
    ],
)
def test_what_is_too_large_is_neither_written_nor_decoded(
    path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, allowed: int, problem: str
) -> None:
    monkeypatch.setattr(media, limit, allowed)
    write_video(path, make_video())
    monkeypatch.setattr(media, limit, allowed - 1)
    monkeypatch.setattr(media, "decode", lambda *_, **__: pytest.fail("decoded"))
    assert problem in refusal_of(path)
    with pytest.raises(BaselineInvalidError, match=problem):
        write_video(path, make_video())


def test_a_video_at_the_limits_of_its_arrays_fits_the_limit_of_its_file() -> None:
    # Noise is the worst case; the container adds some bytes to a frame.
    video = Video(frames=noise(2, 256, 256), frame_rate=24)
    growth = len(encode_video(video, where="test")) / video.frames.nbytes
    assert 1 < growth < 1.2
    assert growth * 3 * media.MAX_VIDEO_PIXELS + 4 * media.MAX_AUDIO_VALUES < 1.05 * media.MAX_VIDEO_BYTES


def element(name: str, value: int, length: int) -> bytes:
    return bytes.fromhex(name) + bytes([0x80 | length]) + value.to_bytes(length, "big")


def test_a_decompression_bomb_is_not_decoded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_video(Video(frames=noise(1, 256, 300), frame_rate=24), where="test")
    for name, size in (("b0", 300), ("ba", 256)):  # PixelWidth, PixelHeight
        assert data.count(element(name, size, 2)) == 1
        data = data.replace(element(name, size, 2), element(name, 8_200, 2))
    path.write_bytes(data)
    monkeypatch.setattr(media, "decode", lambda *_, **__: pytest.fail("decoded"))
    assert "the frames have no pixels, or more than 67108864 each: they are not decoded" in refusal_of(path)


def test_audio_of_no_channels_is_refused(path: Path) -> None:
    data = encode_video(make_video(), where="test")
    assert data.count(element("9f", 2, 1)) == 1  # Channels
    path.write_bytes(data.replace(element("9f", 2, 1), element("9f", 0, 1)))
    assert "the audio has 0 channels of 100 samples: 1 or 2 channels" in refusal_of(path)


def test_every_altered_byte_is_noticed_or_changes_nothing(path: Path) -> None:
    video = make_video(frames=2)
    data = encode_video(video, where="test")
    refused = 0
    for position in range(0, len(data), 5):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        try:
            assert_same_video(read_video(path), video)
        except BaselineInvalidError:
            refused += 1
    assert refused > len(data) / 5 / 2


@pytest.mark.parametrize("keep", [0, 10, 200, 700, 1200, 1600])
def test_a_truncated_video_is_refused(path: Path, keep: int) -> None:
    data = encode_video(make_video(), where="test")
    assert keep < len(data) - 500
    path.write_bytes(data[:keep])
    refusal_of(path)


def write_mpeg4(path: Path) -> None:
    with av.open(path, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height = 16, 16
        container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(16, 16), format="rgb24")))
        container.mux(stream.encode(None))


def write_untagged(path: Path) -> None:
    data = encode_video(make_video(), where="test")
    path.write_bytes(data.replace(b"MXQ_SHA256", b"MXQ_SHA999"))


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (write_mpeg4, "not a video that pytest-mxq wrote: it holds video "),
        (write_untagged, "not a video that pytest-mxq wrote: it has no tag MXQ_SHA256"),
        (lambda path: path.write_bytes(b"RIFF" + bytes(2000)), "the video is damaged"),
    ],
)
def test_a_file_that_pytest_mxq_did_not_write_is_refused(
    path: Path, write: Callable[[Path], object], problem: str
) -> None:
    write(path)
    assert problem in refusal_of(path)


def test_without_pyav_the_error_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(path, make_video())
    monkeypatch.setitem(sys.modules, "av", None)
    for action in (lambda: write_video(path, make_video()), lambda: read_video(path)):
        with pytest.raises(MxqError, match=r"need PyAV .*pip install pytest-mxq\[video\]") as caught:
            action()
        assert not isinstance(caught.value, BaselineInvalidError)
