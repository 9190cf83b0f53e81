"""Clips there and back, and files that are not clips."""

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
from baseline_examples import assert_same_clip, make_clip

from pytest_mxq.baselines import media as clips
from pytest_mxq.baselines.media import decode_clip, encode_clip
from pytest_mxq.baselines.video import Clip, inspect
from pytest_mxq.errors import BaselineInvalidError, MxqError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clip.mkv"


def write_clip(path: Path, clip: Clip) -> None:
    path.write_bytes(encode_clip(clip, where=str(path)))


def read_clip(path: Path) -> Clip:
    """Of the size and length that the file itself tells."""
    data, where = path.read_bytes(), str(path)
    size, facts = inspect(data, where=where)
    return decode_clip(data, size=size, facts=facts, where=where)


def refusal_of(path: Path) -> str:
    with pytest.raises(BaselineInvalidError) as caught:
        read_clip(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "pytest --mxq-refresh" in str(caught.value)
    return str(caught.value)


def noise(*shape: int) -> Any:
    return np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 2, 2), (5, 3, 353), (4, 353, 3), (3, 37, 53), (2, 300, 400)], ids=str)
def test_frames_of_noise_come_back_to_the_bit(path: Path, shape: tuple[int, ...]) -> None:
    clip = Clip(frames=noise(*shape), frame_rate=24)
    write_clip(path, clip)
    assert_same_clip(read_clip(path), clip)


@pytest.mark.parametrize("frame_rate", [1, 8, 23.976, 24000 / 1001, 24.0, 29.97, 59.94, 1000])
@pytest.mark.parametrize(("channels", "sample_rate"), [(1, 24_000), (2, 48_000), (2, 44_100), (1, 1)])
def test_rates_and_sound_come_back_exactly(path: Path, frame_rate: float, channels: int, sample_rate: int) -> None:
    sound = np.random.default_rng(2).normal(0, 1, (channels, 777)).astype(np.float32)
    clip = Clip(frames=noise(4, 6, 8), frame_rate=frame_rate, sound=sound, sample_rate=sample_rate)
    write_clip(path, clip)
    read = read_clip(path)
    assert_same_clip(read, clip)
    assert (read.frame_rate, read.sample_rate) == (frame_rate, sample_rate)


def test_sound_beyond_full_scale_and_without_a_value_comes_back_to_the_bit(path: Path) -> None:
    values = [1.5, -7e30, -0.0, np.inf, -np.inf, np.nan, 1e-42]
    clip = Clip(frames=noise(1, 6, 8), frame_rate=24, sound=np.array([values], np.float32), sample_rate=8_000)
    write_clip(path, clip)
    assert_same_clip(read_clip(path), clip)


def test_a_clip_of_more_than_ten_seconds_alternates_frames_and_sound(path: Path) -> None:
    sound = np.random.default_rng(3).normal(0, 1, (2, 12 * 8_000)).astype(np.float32)
    clip = Clip(frames=noise(12 * 24, 6, 8), frame_rate=24, sound=sound, sample_rate=8_000)
    write_clip(path, clip)
    assert_same_clip(read_clip(path), clip)
    with av.open(path) as container:
        packets = [(packet.pts, packet.stream.type) for packet in container.demux() if packet.pts is not None]
    assert packets == sorted(packets, key=lambda packet: packet[0])


def test_views_of_other_arrays_are_stored_as_they_look(path: Path) -> None:
    clip = make_clip()
    assert clip.sound is not None
    view = dataclasses.replace(clip, frames=clip.frames[::-1, ::-1, ::2, ::-1], sound=clip.sound[::-1, ::3])
    write_clip(path, view)
    assert_same_clip(read_clip(path), view)


def test_equal_clips_give_equal_bytes_on_any_number_of_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip(frames=noise(3, 120, 160), frame_rate=24)
    allowed = os.sched_getaffinity(0)
    data = encode_clip(clip, where="test")
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert encode_clip(dataclasses.replace(clip, frames=clip.frames.copy()), where="test") == data
    finally:
        os.sched_setaffinity(0, allowed)


def test_the_file_is_read_by_what_reads_matroska(path: Path) -> None:
    clip = make_clip()
    assert clip.sound is not None
    write_clip(path, clip)
    with av.open(path) as container:
        assert container.streams.video[0].average_rate == Fraction("23.976")
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(path) as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert np.array_equal(np.stack(frames), clip.frames)
    assert np.array_equal(sound.reshape(-1, 2).T, clip.sound)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"frames": noise(2, 6, 8).astype(np.float32)}, "the frames are float32 (2, 6, 8, 3): they must be uint8"),
        ({"frames": noise(6, 8)}, "the frames are uint8 (6, 8, 3): they must be uint8 (frames, height, width, 3)"),
        ({"frames": noise(2, 6, 8)[..., :1]}, "the frames are uint8 (2, 6, 8, 1)"),
        ({"frames": [1, 2]}, "the frames are list"),
        ({"frames": noise(0, 6, 8)}, "the clip has 0 frames of 8 x 6: at least 1 of 2 x 2"),
        ({"frames": noise(3, 1, 8)}, "the clip has 3 frames of 8 x 1: at least 1 of 2 x 2"),
        (
            {"frames": np.broadcast_to(np.uint8(0), (1, 8192, 8193, 3))},
            "the clip has 1 frames of 8193 x 8192: at least",
        ),
        ({"frame_rate": 0.5}, "the frame_rate is 0.5: it must be from 1 to 1000"),
        ({"frame_rate": 1001}, "the frame_rate is 1001.0"),
        ({"frame_rate": float("nan")}, "the frame_rate is nan"),
        ({"sound": None}, "sound is NoneType, sample_rate 24000: give both or neither"),
        ({"sample_rate": None}, "sound is float32 (2, 50), sample_rate None: give both or neither"),
        ({"sample_rate": 24000.5}, "sample_rate is 24000.5: it must be an int"),
        ({"sample_rate": 0}, "the sample_rate is 0: it must be from 1 to 768000"),
        ({"sound": np.zeros((2, 50))}, "the sound is float64 (2, 50): it must be float32 (channels, samples)"),
        ({"sound": np.zeros(50, np.float32)}, "the sound is float32 (50,)"),
        ({"sound": np.zeros((3, 50), np.float32)}, "the sound has 3 channels of 50 samples: 1 or 2 channels"),
        ({"sound": np.zeros((2, 0), np.float32)}, "the sound has 2 channels of 0 samples"),
    ],
)
def test_what_could_not_be_stored_exactly_is_refused(path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(BaselineInvalidError) as caught:
        write_clip(path, dataclasses.replace(make_clip(), **changes))
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert not path.exists()


@pytest.mark.parametrize(
    ("limit", "allowed", "problem"),
    [
        (
            "MAX_CLIP_PIXELS",
            3 * 6 * 8,
            "the clip has 3 frames of 8 x 6: at least 1 of 2 x 2, at most 67108864 pixels in one and 143 in",
        ),
        (
            "MAX_SOUND_VALUES",
            2 * 50,
            "the sound has 2 channels of 50 samples: 1 or 2 channels, at least 1 sample and at most 99 in all",
        ),
    ],
)
def test_what_is_too_large_is_neither_written_nor_decoded(
    path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, allowed: int, problem: str
) -> None:
    monkeypatch.setattr(clips, limit, allowed)
    write_clip(path, make_clip())
    monkeypatch.setattr(clips, limit, allowed - 1)
    monkeypatch.setattr(clips, "decode", lambda *_, **__: pytest.fail("decoded"))
    assert problem in refusal_of(path)
    with pytest.raises(BaselineInvalidError, match=problem):
        write_clip(path, make_clip())


def test_a_clip_at_the_limits_of_its_arrays_fits_the_limit_of_its_file() -> None:
    # Noise is the worst case; the container adds some bytes to a frame.
    clip = Clip(frames=noise(2, 256, 256), frame_rate=24)
    growth = len(encode_clip(clip, where="test")) / clip.frames.nbytes
    assert 1 < growth < 1.2
    assert growth * 3 * clips.MAX_CLIP_PIXELS + 4 * clips.MAX_SOUND_VALUES < 1.05 * clips.MAX_CLIP_BYTES


def element(name: str, value: int, length: int) -> bytes:
    return bytes.fromhex(name) + bytes([0x80 | length]) + value.to_bytes(length, "big")


def test_a_decompression_bomb_is_not_decoded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_clip(Clip(frames=noise(1, 256, 300), frame_rate=24), where="test")
    for name, size in (("b0", 300), ("ba", 256)):  # PixelWidth, PixelHeight
        assert data.count(element(name, size, 2)) == 1
        data = data.replace(element(name, size, 2), element(name, 8_200, 2))
    path.write_bytes(data)
    monkeypatch.setattr(clips, "decode", lambda *_, **__: pytest.fail("decoded"))
    assert "the frames have no pixels, or more than 67108864 each: they are not decoded" in refusal_of(path)


def test_sound_of_no_channels_is_refused(path: Path) -> None:
    data = encode_clip(make_clip(), where="test")
    assert data.count(element("9f", 2, 1)) == 1  # Channels
    path.write_bytes(data.replace(element("9f", 2, 1), element("9f", 0, 1)))
    assert "the sound has 0 channels of 100 samples: 1 or 2 channels" in refusal_of(path)


def test_every_altered_byte_is_noticed_or_changes_nothing(path: Path) -> None:
    clip = make_clip(frames=2)
    data = encode_clip(clip, where="test")
    refused = 0
    for position in range(0, len(data), 5):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        try:
            assert_same_clip(read_clip(path), clip)
        except BaselineInvalidError:
            refused += 1
    assert refused > len(data) / 5 / 2


@pytest.mark.parametrize("keep", [0, 10, 200, 700, 1200, 1600])
def test_a_truncated_clip_is_refused(path: Path, keep: int) -> None:
    data = encode_clip(make_clip(), where="test")
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
    data = encode_clip(make_clip(), where="test")
    path.write_bytes(data.replace(b"MXQ_SHA256", b"MXQ_SHA999"))


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (write_mpeg4, "not a clip that pytest-mxq wrote: it holds video "),
        (write_untagged, "not a clip that pytest-mxq wrote: it has no tag MXQ_SHA256"),
        (lambda path: path.write_bytes(b"RIFF" + bytes(2000)), "the clip is damaged"),
    ],
)
def test_what_is_no_clip_of_ours_is_refused(path: Path, write: Callable[[Path], object], problem: str) -> None:
    write(path)
    assert problem in refusal_of(path)


def test_without_pyav_the_error_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(path, make_clip())
    monkeypatch.setitem(sys.modules, "av", None)
    for action in (lambda: write_clip(path, make_clip()), lambda: read_clip(path)):
        with pytest.raises(MxqError, match=r"need PyAV .*pip install pytest-mxq\[video\]") as caught:
            action()
        assert not isinstance(caught.value, BaselineInvalidError)
