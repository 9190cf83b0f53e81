"""FFV1 (RFC 9043) and 32-bit float PCM in one Matroska file, by PyAV: lossless."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pytest_mxq.baselines.manifest import VideoFacts
from pytest_mxq.baselines.png import MAX_PIXELS
from pytest_mxq.baselines.strict_json import cut, invalid
from pytest_mxq.errors import MxqError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Matroska's own frame rate is a duration in whole nanoseconds; this tag holds the number itself.
_RATE = "MXQ_FRAME_RATE"

# A decoder of FFV1 hides damage, and PCM cannot show it; this tag holds the SHA-256 of what was encoded.
_CONTENT = "MXQ_SHA256"

# Each of these is part of the bytes, so none is left to a default. The range coder (coder=1) saves 1 % in twice the
# time; a CRC of each slice would repeat what the content's tag does.
_FFV1 = {"level": "3", "slices": "4", "slicecrc": "0", "g": "1", "coder": "0", "context": "0", "flags": "+bitexact"}

# Without the delta, a video of more than ten seconds would be written frames first and audio last.
_WRITING = {"fflags": "+bitexact", "max_interleave_delta": "0"}

# FFmpeg decodes a frame to see what it is, and calls a larger one 0 x 0.
_READING = {"codec_whitelist": "ffv1,pcm_f32le", "max_pixels": str(MAX_PIXELS)}

_TRACKS = (["video ffv1"], ["video ffv1", "audio pcm_f32le"])
_LAYOUTS = {1: "mono", 2: "stereo"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Video:
    """A video as a video model generates it from one prompt.

    Attributes:
        frames: RGB, a uint8 array (frames, height, width, 3), at least 2 x 2 pixels.
        frame_rate: Frames a second, 1 to 1000.
        audio: A float32 array (channels, samples) of one or two channels, full scale -1 to 1; None without audio.
        sample_rate: Samples of the audio a second; None without audio.
    """

    frames: Any
    frame_rate: float
    audio: Any | None = None
    sample_rate: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames in pixels."""
        return int(self.frames.shape[2]), int(self.frames.shape[1])

    @property
    def facts(self) -> VideoFacts:
        """The video's facts for a manifest, beside its size."""
        count, rate = len(self.frames), float(self.frame_rate)
        if self.audio is None:
            return VideoFacts(frames=count, frame_rate=rate)
        channels, samples = self.audio.shape
        return VideoFacts(
            frames=count, frame_rate=rate, sample_rate=self.sample_rate, channels=channels, samples=samples
        )


def load_av() -> Any:  # a module
    """Import PyAV, which reads and writes videos.

    Raises:
        MxqError: It cannot be imported; says how to install it.
    """
    try:
        import av
    except ImportError as error:
        raise MxqError(f"videos of video models need PyAV ({error}): pip install pytest-mxq[video]") from error
    return av


def encode(video: Video) -> bytes:
    """Return the video as a Matroska file; equal videos give equal bytes under one version of PyAV.

    Raises:
        MxqError: PyAV is not installed.
    """
    buffer = BytesIO()
    with load_av().open(buffer, "w", format="matroska", options=_WRITING) as container:
        digest = _digest(video.facts, video.frames, video.audio)
        container.metadata.update({_RATE: repr(float(video.frame_rate)), _CONTENT: digest})
        tracks = [(_video_stream(container, video), _video_frames(video))]
        if video.audio is not None:
            tracks.append((_audio_stream(container, video), _audio_frames(video)))
        for stream, frames in tracks:
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return buffer.getvalue()


def inspect(data: bytes, *, where: str) -> tuple[tuple[int, int], VideoFacts]:
    """Return width and height, and a video's facts for a manifest; its packets are counted, not decoded.

    Raises:
        BaselineInvalidError: Not a file that `encode` made, damaged, or its frames are larger than `MAX_PIXELS`.
        MxqError: PyAV is not installed.
    """
    with _opened(data, where) as container:
        video, *audio = (stream.codec_context for stream in container.streams)
        frames, audio_bytes = 0, 0
        for packet in container.demux():
            if packet.stream.type == "video":
                frames += packet.size > 0  # the last one is empty: it flushes the decoder
            else:
                audio_bytes += packet.size
        size, rate = (video.width, video.height), float(container.metadata[_RATE])
        if 0 in size:
            raise invalid(where, f"the frames have no pixels, or more than {MAX_PIXELS} each: they are not decoded")
        if not audio:
            return size, VideoFacts(frames=frames, frame_rate=rate)
        sample_rate, channels = audio[0].sample_rate, audio[0].channels
        samples = audio_bytes // (4 * max(channels, 1))  # an altered file may say 0
        return size, VideoFacts(
            frames=frames, frame_rate=rate, sample_rate=sample_rate, channels=channels, samples=samples
        )


def decode(data: bytes, *, size: tuple[int, int], facts: VideoFacts, where: str) -> tuple[Any, Any | None]:
    """Return the frames (frames, height, width, 3) and the audio (channels, samples) of a file described by `inspect`.

    Raises:
        BaselineInvalidError: Damaged.
        MxqError: PyAV is not installed.
    """
    import numpy as np

    frames, count = np.zeros((facts.frames, size[1], size[0], 3), np.uint8), 0
    audio_bytes = bytearray()
    with _opened(data, where) as container:
        for packet in container.demux():
            if packet.stream.type == "audio":
                audio_bytes += bytes(packet)  # as they stand: a decoder would only copy them
                continue
            for frame in packet.decode():
                frames[count] = frame.to_ndarray(format="rgb24")
                count += 1
        audio = _audio_of(audio_bytes, facts.channels)
        if _digest(facts, frames, audio) != container.metadata[_CONTENT]:
            raise invalid(where, "the video is damaged: its frames, audio or rates are not those that were written")
    return frames, audio


@contextmanager
def _opened(data: bytes, where: str) -> Iterator[Any]:
    """Open the container in `data`; no other format, codec or larger frame is tried."""
    av = load_av()
    try:
        with av.open(BytesIO(data), format="matroska", options=_READING) as container:
            _check_ours(container, where)
            yield container
    except MxqError:
        raise
    except Exception as error:
        # Which exceptions a damaged file raises depends on FFmpeg's release: errors of its own, or of a wrong shape.
        raise invalid(where, f"the video is damaged ({cut(str(error) or type(error).__name__, 120)})") from error


def _check_ours(container: Any, where: str) -> None:
    tracks = [f"{stream.type} {getattr(stream, 'name', 'unknown')}" for stream in container.streams]
    if tracks not in _TRACKS:
        raise invalid(where, f"not a video that pytest-mxq wrote: it holds {', '.join(tracks) or 'nothing'}")
    for tag in {_RATE, _CONTENT} - container.metadata.keys():
        raise invalid(where, f"not a video that pytest-mxq wrote: it has no tag {tag}")


def _video_stream(container: Any, video: Video) -> Any:
    # A fraction of this size holds 24000/1001 as well as 23.976; players want one, the tag is what is read.
    rate = Fraction(float(video.frame_rate)).limit_denominator(1001)
    stream = container.add_stream("ffv1", rate=rate, options=_FFV1)
    stream.width, stream.height = video.size
    stream.pix_fmt = "bgr0"  # FFV1's name for 8-bit RGB, coded by its lossless colour transform
    return stream


def _video_frames(video: Video) -> Iterator[Any]:
    av = load_av()
    for index, pixels in enumerate(video.frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = index
        yield frame


def _audio_stream(container: Any, video: Video) -> Any:
    layout = _LAYOUTS[video.facts.channels or 0]
    stream = container.add_stream("pcm_f32le", rate=video.sample_rate, layout=layout, options={"flags": "+bitexact"})
    stream.format = "flt"
    return stream


def _audio_frames(video: Video) -> Iterator[Any]:
    """Yield the audio in pieces of a second, its channels interleaved."""
    import numpy as np

    av, audio, rate = load_av(), np.asarray(video.audio), video.sample_rate or 0
    for start in range(0, audio.shape[1], rate):
        piece = np.ascontiguousarray(audio[:, start : start + rate].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=_LAYOUTS[len(audio)])
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield frame


def _audio_of(data: bytearray, channels: int | None) -> Any | None:
    import numpy as np

    if channels is None:
        return None
    return np.ascontiguousarray(np.frombuffer(data, "<f4").reshape(-1, channels).T)


def _digest(facts: VideoFacts, frames: Any, audio: Any | None) -> str:
    """Return the SHA-256 of the rates as text, then the frames' bytes and the audio's in the order of their axes."""
    import numpy as np

    content = hashlib.sha256(f"{facts.frame_rate!r} {facts.sample_rate}".encode())
    content.update(np.ascontiguousarray(frames).data)
    if audio is not None:
        content.update(np.ascontiguousarray(audio).data)
    return content.hexdigest()
