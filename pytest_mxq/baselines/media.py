"""Videos of video models: frames with audio, stored without loss, and checked before they are decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_mxq.baselines.manifest import VideoFacts
from pytest_mxq.baselines.png import MAX_PIXELS
from pytest_mxq.baselines.strict_json import invalid
from pytest_mxq.baselines.video import Video, decode, encode, inspect

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_VIDEO_PIXELS = 2**29  # of all frames together: 10 seconds of 1920 x 1080, 1.5 GiB decoded
MAX_AUDIO_VALUES = 2**26  # of all channels together: 11 minutes of stereo at 48 kHz, 256 MiB
MAX_SAMPLE_RATE = 768_000
MAX_VIDEO_BYTES = 2**31  # noise grows by a tenth in FFV1: what keeps the two limits above fits


def encode_video(video: Video, *, where: str) -> bytes:
    """Return the video as a Matroska file: equal videos give equal bytes under one version of PyAV.

    Raises:
        BaselineInvalidError: The video is not what `Video` says, or is larger than is read again.
        MxqError: PyAV is not installed.
    """
    _check_arrays(video, where)
    _check_limits(video.size, video.facts, where)
    return encode(video)


def decode_video(data: bytes, *, size: tuple[int, int], facts: VideoFacts, where: str) -> Video:
    """Return the video of `size` (width, height) and `facts` in a Matroska file; nothing else is decoded.

    Raises:
        BaselineInvalidError: Larger than is decoded, not such a file, of another size, length or rate, or damaged.
        MxqError: PyAV is not installed.
    """
    found_size, found = inspect(data, where=where)
    if found_size != size:
        raise invalid(where, "the frames are {} x {}, the manifest says {} x {}".format(*found_size, *size))
    for name, stored, wanted in _differences(found, facts):
        raise invalid(where, f"the video has {name} {stored}, the manifest says {wanted}")
    _check_limits(size, facts, where)
    return _decoded(data, size, facts, where)


def _decoded(data: bytes, size: tuple[int, int], facts: VideoFacts, where: str) -> Video:
    frames, audio = decode(data, size=size, facts=facts, where=where)
    return Video(frames=frames, frame_rate=facts.frame_rate, audio=audio, sample_rate=facts.sample_rate)


def _differences(found: VideoFacts, wanted: VideoFacts) -> Iterator[tuple[str, object, object]]:
    for name in VideoFacts.__struct_fields__:
        pair = getattr(found, name), getattr(wanted, name)
        if pair[0] != pair[1]:
            yield name, *pair


def _check_arrays(video: Video, where: str) -> None:
    """Raise if an array would be converted instead of being stored as it is."""
    if _dtype(video.frames) != "uint8" or video.frames.ndim != 4 or video.frames.shape[3] != 3:
        raise invalid(where, f"the frames are {_shown(video.frames)}: they must be uint8 (frames, height, width, 3)")
    if (video.audio is None) != (video.sample_rate is None):
        raise invalid(where, f"audio is {_shown(video.audio)}, sample_rate {video.sample_rate}: give both or neither")
    if video.audio is None:
        return
    if _dtype(video.audio) != "float32" or video.audio.ndim != 2:
        raise invalid(where, f"the audio is {_shown(video.audio)}: it must be float32 (channels, samples)")
    if not isinstance(video.sample_rate, int):
        raise invalid(where, f"sample_rate is {video.sample_rate!r}: it must be an int")


def _check_limits(size: tuple[int, int], facts: VideoFacts, where: str) -> None:
    """Raise if FFV1 in Matroska cannot hold the video, or memory should not."""
    pixels = size[0] * size[1]
    if min(size) < 2 or pixels > MAX_PIXELS or not 0 < facts.frames * pixels <= MAX_VIDEO_PIXELS:
        allowed = f"at least 1 of 2 x 2, at most {MAX_PIXELS} pixels in one and {MAX_VIDEO_PIXELS} in all are allowed"
        raise invalid(where, f"the video has {facts.frames} frames of {size[0]} x {size[1]}: {allowed}")
    if not 1 <= facts.frame_rate <= 1000:
        raise invalid(where, f"the frame_rate is {facts.frame_rate}: it must be from 1 to 1000 frames a second")
    if facts.channels is None or facts.samples is None:
        return
    if facts.sample_rate not in range(1, MAX_SAMPLE_RATE + 1):
        raise invalid(
            where, f"the sample_rate is {facts.sample_rate!r}: it must be from 1 to {MAX_SAMPLE_RATE} a second"
        )
    if facts.channels not in {1, 2} or not 0 < facts.channels * facts.samples <= MAX_AUDIO_VALUES:
        allowed = f"1 or 2 channels, at least 1 sample and at most {MAX_AUDIO_VALUES} in all are allowed"
        raise invalid(where, f"the audio has {facts.channels} channels of {facts.samples} samples: {allowed}")


def _dtype(array: object) -> str:
    return str(getattr(array, "dtype", ""))


def _shown(array: object) -> str:
    return f"{_dtype(array) or type(array).__name__} {getattr(array, 'shape', '')}".rstrip()
