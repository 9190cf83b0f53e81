"""Log-spectral distance of each video's audio to BF16's, dB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_mxq.errors import MxqError
from pytest_mxq.gates.base import AccuracyGate, Scale, frame_preview
from pytest_mxq.gates.bounds import Bound


def _score(reference: Any, other: Any) -> Sequence[float]:
    from pytest_mxq.metrics.audio import log_spectral_distance

    return log_spectral_distance(_waves(reference), _waves(other))


def _waves(outputs: Any) -> Any:
    if outputs.audio is None:
        way = "remove the marker"
        if outputs.video is not None:
            way = f"return the pipeline's whole output, or {way}"
        raise MxqError(f"mxq_audio needs audio, and the test returned none from {outputs.identity.model}: {way}")
    return outputs.audio.waves


def _default_worst(mean: float) -> float:
    """Return m + 6 dB: twice the amplitude."""
    return mean + 6.0


def _drift_limit(bound: Bound) -> float:
    """Return a quarter of the bound."""
    return bound.mean / 4


def _preview(outputs: Any, index: int, frame: int | None) -> Any:
    """Return the audio's spectrogram, or the frame of a video that has none."""
    from pytest_mxq.metrics.audio import spectrogram
    from pytest_mxq.metrics.images import to_image

    if outputs.audio is None:
        return frame_preview(outputs, index, frame)
    return to_image(spectrogram(_waves(outputs)[index]))


AUDIO = AccuracyGate(
    name="audio",
    summary="bound of the mean log-spectral distance of the audio to BF16's, dB, of the worst video",
    largest=60.0,
    scale=Scale(higher_is_better=False, unit=" dB", digits=2, noun="video"),
    score=_score,
    default_worst=_default_worst,
    drift_limit=_drift_limit,
    preview=_preview,
)
