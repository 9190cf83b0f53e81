"""Copies that browsers play: videos as VP9 and Opus in WebM, audio as WAV. Nothing is measured on them."""

from __future__ import annotations

import os
import wave
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mxq.baselines.video import load_av

if TYPE_CHECKING:
    from pytest_mxq.baselines.video import Video

# Near what the eye tells apart, at a speed of some ten frames of 1280 x 704 a second on one core.
_VP9 = {"crf": "18", "b:v": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}
_OPUS_RATE = 48_000


def write_webm(path: Path, video: Video) -> None:
    """Write a video with its audio as WebM; missing folders are made, and the file appears whole or not at all.

    Raises:
        MxqError: PyAV is not installed.
        OSError: it cannot be written or encoded (PyAV's errors are such).
    """
    av = load_av()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with av.open(str(draft), "w", format="webm") as container:
            _encode(av, container, video)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_wav(path: Path, video: Video) -> None:
    """Write a video's audio as WAV, 16 bits a sample; missing folders are made.

    Raises:
        OSError: it cannot be written.
    """
    import numpy as np

    waves: Any = video.audio
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.clip(np.rint(np.nan_to_num(waves.T) * 32767), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(waves.shape[0])
        file.setsampwidth(2)
        file.setframerate(video.sample_rate or 0)
        file.writeframes(samples.tobytes())


def _encode(av: Any, container: Any, video: Video) -> None:
    images = container.add_stream("libvpx-vp9", rate=Fraction(video.frame_rate).limit_denominator(1001), options=_VP9)
    images.width, images.height = video.size
    images.pix_fmt = "yuv420p"
    audio = None if video.audio is None else container.add_stream("libopus", rate=_OPUS_RATE)
    for frame in video.frames:
        container.mux(images.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(images.encode(None))
    if audio is not None:
        for frame in _audio_frames(av, video):
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def _audio_frames(av: Any, video: Video) -> Any:
    """Yield the audio as the encoder takes it: stereo, at the rate of Opus."""
    import numpy as np

    waves: Any = video.audio
    layout = "mono" if waves.shape[0] == 1 else "stereo"
    whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(waves, dtype=np.float32), format="fltp", layout=layout)
    whole.sample_rate = video.sample_rate
    resampler = av.AudioResampler(format="flt", layout="stereo", rate=_OPUS_RATE)
    yield from resampler.resample(whole)
    yield from resampler.resample(None)
