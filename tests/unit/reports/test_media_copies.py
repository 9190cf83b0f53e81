"""The copies of videos and audio that the page plays."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from pytest_mxq.baselines.video import Video
from pytest_mxq.reports.media_copies import write_wav, write_webm

av = pytest.importorskip("av", reason="PyAV is not installed")


def moving(
    frames: int = 9, width: int = 48, height: int = 34, channels: int | None = None, rate: int = 16_000
) -> Video:
    """A bright bar that moves to the right over a dark image."""
    images = np.zeros((frames, height, width, 3), dtype=np.uint8)
    for index in range(frames):
        images[index, :, 4 * index : 4 * index + 8] = (250, 200, 40)
    if channels is None:
        return Video(frames=images, frame_rate=8.0)
    tone = np.sin(np.linspace(0, 400, rate * frames // 8)).astype(np.float32)
    return Video(frames=images, frame_rate=8.0, audio=np.stack([tone] * channels), sample_rate=rate)


@pytest.mark.parametrize("size", [(48, 34), (47, 33)])
def test_the_copy_has_every_frame_near_what_it_was(tmp_path: Path, size: tuple[int, int]) -> None:
    video = moving(width=size[0], height=size[1])
    write_webm(tmp_path / "sub" / "a.webm", video)
    with av.open(str(tmp_path / "sub" / "a.webm")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 9
    assert frames[0].shape == video.frames[0].shape
    assert np.abs(frames[4].astype(int) - video.frames[4]).mean() < 12


@pytest.mark.parametrize(("channels", "rate"), [(1, 16_000), (2, 44_100)])
def test_the_copy_has_the_audio_as_long_as_it_was(tmp_path: Path, channels: int, rate: int) -> None:
    write_webm(tmp_path / "a.webm", moving(channels=channels, rate=rate))
    with av.open(str(tmp_path / "a.webm")) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 48_000 == pytest.approx(9 / 8, abs=0.05)


def test_a_video_that_cannot_be_encoded_leaves_no_file(tmp_path: Path) -> None:
    broken = Video(frames=np.zeros((2, 8, 8, 4), dtype=np.uint8), frame_rate=8.0)
    with pytest.raises((OSError, ValueError)):
        write_webm(tmp_path / "a.webm", broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("channels", [1, 2])
def test_audio_is_written_with_16_bits_within_full_scale(tmp_path: Path, channels: int) -> None:
    whole = moving(channels=channels)
    whole.audio[0, :3] = (2.0, -2.0, np.nan)  # type: ignore[index]
    write_wav(tmp_path / "sub" / "a.wav", whole)
    with wave.open(str(tmp_path / "sub" / "a.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (channels, 16_000, 18_000)
        samples = np.frombuffer(file.readframes(18_000), dtype="<i2").reshape(-1, channels)
    assert list(samples[:3, 0]) == [32767, -32768, 0]
    assert np.abs(samples[3:] / 32767 - whole.audio.T[3:]).max() < 1e-4  # type: ignore[union-attr]
