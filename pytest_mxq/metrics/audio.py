"""Audio: log-spectral distance to a reference, silence and non-finite values, and spectrograms.

A batch of audio is a float32 tensor (videos, channels, samples) on the CPU, full scale 1.
"""

import torch
from torch import Tensor

from pytest_mxq.errors import MxqError
from pytest_mxq.metrics.degenerate import Degenerate, DegenerateKind

WINDOW = 1024
"""Samples of one spectrum, a Hann window; 43 ms at 24 kHz. The next spectrum starts a quarter of it later."""

FLOOR_DB = 60.0
"""Power further below the reference's loudest bin than this counts as this: silence stays at a finite distance."""

SILENT_PEAK = 2 / 32768
"""Audio that nowhere exceeds this, two steps of 16 bits, is silent."""

SHOWN_DB = 100.0
"""A spectrogram's range: white is a sine of full scale, black is this far below it or further."""


class AudioError(MxqError):
    """Audio that cannot be compared with its reference."""


def log_spectral_distance(reference: Tensor, other: Tensor) -> list[float]:
    """Measure the log-spectral distance of each video's audio to its reference, dB; 0 for equal audio.

    ``LSD = mean_t sqrt(mean_f (10 log10(P_r(t, f) / P_q(t, f)))^2)`` (Gray and Markel 1976; Rabiner and Juang 1993,
    section 4.5) over the power spectra P of Hann windows of 1024 samples, averaged over the channels. Power is at least
    60 dB below the reference video's loudest bin. Unlike there, bins where both are at that floor are left out of the
    mean, and so are spectra of nothing else: a change of level of x dB is then about x dB of any audio, be it a tone or
    noise, and no less of one with pauses.

    Two noise signals of the same spectrum are about 8 dB apart; silence instead of audio is tens of dB. A silent
    reference gives a value that is not finite, which no gate passes.

    Args:
        reference: Audio (videos, channels, samples).
        other: Audio of the same shape; finite.

    Returns:
        One value a video.

    Raises:
        AudioError: The shapes differ.
    """
    if reference.shape != other.shape:
        raise AudioError(
            f"the reference's audio has shape {tuple(reference.shape)} and the other {tuple(other.shape)} (videos, "
            "channels, samples); they must agree. Refresh the baseline if the case has changed on purpose."
        )
    return [_distance(one, another) for one, another in zip(reference, other, strict=True)]


def find_silent(audio: Tensor) -> list[Degenerate]:
    """Find every video whose audio is NaN, infinite or silent.

    Args:
        audio: (videos, channels, samples).

    Returns:
        At most one fault a video, in their order.
    """
    found = (_fault(index, audio) for index, audio in enumerate(audio))
    return [fault for fault in found if fault is not None]


def spectrogram(audio: Tensor) -> Tensor:
    """Return the power of audio over time as a grey image: black 100 dB below full scale, high notes on top.

    Args:
        audio: (channels, samples); the channels stand one below the other.

    Returns:
        uint8 image (3, channels x 256, spectra); of short audio the spectra stand closer, so that the image is as wide.
    """
    hop = max(1, min(WINDOW // 4, audio.shape[1] // 256))
    power = _power(audio.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), hop=hop)[:, :-1]
    full_scale = (WINDOW / 4) ** 2  # a sine of amplitude 1 under a Hann window
    shown = 1 + _decibels(power, floor=full_scale * 10 ** (-SHOWN_DB / 10), unit=full_scale) / SHOWN_DB
    halved = shown.reshape(len(shown), WINDOW // 4, 2, -1).amax(2)  # 512 bins in 256 rows
    grey = halved.clamp(0, 1).mul(255).round().to(torch.uint8).flip(1)
    return grey.flatten(0, 1).expand(3, -1, -1)


def _distance(reference: Tensor, other: Tensor) -> float:
    ours, theirs = _power(reference), _power(other)
    floor = float(ours.max()) * 10 ** (-FLOOR_DB / 10)
    heard = (ours > floor) | (theirs > floor)
    difference = _decibels(ours, floor=floor, unit=1.0) - _decibels(theirs, floor=floor, unit=1.0)
    counts = heard.sum(1)
    spectra = (difference.square().sum(1) / counts.clamp(min=1)).sqrt()
    return float(spectra[counts > 0].mean())


def _power(audio: Tensor, *, hop: int = WINDOW // 4) -> Tensor:
    """Return power spectra (channels, bins, spectra) in double precision; the audio is padded with zeros."""
    window = torch.hann_window(WINDOW, dtype=torch.float64)
    spectrum = torch.stft(
        audio.double(), WINDOW, hop_length=hop, window=window, pad_mode="constant", return_complex=True
    )
    return torch.square(spectrum.abs())


def _decibels(power: Tensor, *, floor: float, unit: float) -> Tensor:
    return power.clamp(min=floor).div(unit).log10().mul(10)


def _fault(index: int, audio: Tensor) -> Degenerate | None:
    bad = int((~audio.isfinite()).sum())
    if bad:
        detail = f"{bad} of {audio.numel()} values of the audio are NaN or infinite"
        return Degenerate(index=index, kind=DegenerateKind.NOT_FINITE, detail=detail)
    peak = float(audio.abs().max())
    if peak > SILENT_PEAK:
        return None
    detail = f"the audio's peak is {peak:.2g}, at most {SILENT_PEAK:.2g} of full scale"
    return Degenerate(index=index, kind=DegenerateKind.SILENT, detail=detail)
