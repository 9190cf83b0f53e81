"""Audio against audio whose distance is known."""

import math

import pytest
import torch
from torch import Tensor

from pytest_mxq.metrics.audio import SILENT_PEAK, AudioError, find_silent, log_spectral_distance, spectrogram
from pytest_mxq.metrics.degenerate import DegenerateKind

RATE = 24000
SIX_DB = 10 ** (6 / 20)


def tone(hertz: float, amplitude: float = 0.3) -> Tensor:
    time = torch.arange(RATE) / RATE
    return (amplitude * torch.sin(2 * math.pi * hertz * time)).expand(1, 2, -1)


def noise(seed: int = 0) -> Tensor:
    return 0.1 * torch.randn((1, 2, RATE), generator=torch.Generator().manual_seed(seed))


def distance(reference: Tensor, other: Tensor) -> float:
    (value,) = log_spectral_distance(reference, other)
    return value


@pytest.mark.parametrize("audio", [tone(440), noise()])
def test_equal_audio_is_0_db_away(audio: Tensor) -> None:
    assert distance(audio, audio.clone()) == 0.0


def test_a_change_of_level_is_that_many_db_of_noise_and_of_a_tone() -> None:
    assert distance(noise(), noise() * SIX_DB) == pytest.approx(6.0, abs=0.01)
    assert distance(noise(), noise() / SIX_DB) == pytest.approx(6.0, abs=0.01)
    assert distance(tone(440), tone(440) * SIX_DB) == pytest.approx(6.0, abs=0.5)


def test_pauses_do_not_make_a_distance_smaller() -> None:
    paused = noise()
    paused[..., RATE // 4 :] = 0
    assert distance(paused, paused * SIX_DB) == pytest.approx(6.0, abs=0.1)


def test_the_formula_on_one_spectrum() -> None:
    audio, other = noise()[:, :1, :1024], noise(1)[:, :1, :1024]
    window = torch.hann_window(1024, dtype=torch.float64)
    padded = [torch.nn.functional.pad(one[0, 0].double(), (512, 512)) for one in (audio, other)]
    spectra = [
        [torch.fft.rfft(one[at : at + 1024] * window).abs() ** 2 for at in range(0, 1025, 256)] for one in padded
    ]
    floor = max(float(one.max()) for one in spectra[0]) * 1e-6
    means = []
    for ours, theirs in zip(*spectra, strict=True):
        ratio = 10 * (ours.clamp(min=floor) / theirs.clamp(min=floor)).log10()
        means.append(float(ratio[(ours > floor) | (theirs > floor)].square().mean().sqrt()))
    assert distance(audio, other) == pytest.approx(sum(means) / len(means))


def test_another_tone_and_silence_are_far_and_two_noises_about_8_db() -> None:
    assert distance(tone(440), tone(880)) > 25
    assert 30 < distance(tone(440), torch.zeros(1, 2, RATE)) <= 60
    assert distance(noise(), noise(1)) == pytest.approx(7.9, abs=0.2)  # sqrt(2) x 5.57 dB of an exponential's logarithm


def test_noise_below_the_floor_does_not_count() -> None:
    assert distance(tone(440), tone(440) + noise() * 1e-4) < 0.1


def test_videos_are_measured_one_by_one() -> None:
    reference = torch.cat([noise(), noise(1)])
    assert log_spectral_distance(reference, torch.cat([noise(), noise(1) * SIX_DB])) == [
        0.0,
        pytest.approx(6, abs=0.01),
    ]


def test_audio_shorter_than_the_window_is_measured() -> None:
    assert distance(noise()[..., :10], noise()[..., :10] * SIX_DB) == pytest.approx(6, abs=0.1)


def test_a_silent_reference_gives_no_finite_distance() -> None:
    silence = torch.zeros(1, 2, RATE)
    assert not math.isfinite(distance(silence, noise()))
    assert not math.isfinite(distance(silence, silence))


@pytest.mark.parametrize("other", [torch.zeros(1, 2, RATE - 1), torch.zeros(1, 1, RATE), torch.zeros(2, 2, RATE)])
def test_audio_of_another_length_or_other_channels_is_refused(other: Tensor) -> None:
    with pytest.raises(AudioError, match=r"has shape \(1, 2, 24000\) and the other"):
        log_spectral_distance(noise(), other)


def test_silence_and_nan_are_faults_and_quiet_audio_is_not() -> None:
    audio = torch.cat([noise(), torch.zeros(1, 2, RATE), noise(), tone(440, 2 * SILENT_PEAK)])
    audio[2, 1, 7] = math.nan
    faults = find_silent(audio)
    assert [(fault.index, fault.kind) for fault in faults] == [
        (1, DegenerateKind.SILENT),
        (2, DegenerateKind.NOT_FINITE),
    ]
    assert faults[1].detail == "1 of 48000 values of the audio are NaN or infinite"


def test_a_spectrogram_shows_a_tone_as_a_bright_line_in_its_place() -> None:
    image = spectrogram(tone(3000, 1.0)[0])
    assert image.dtype is torch.uint8
    assert image.shape == (3, 2 * 256, RATE // (RATE // 256) + 1)
    assert spectrogram(torch.zeros(1, 120240)).shape == (3, 256, 120240 // 256 + 1)
    middle = image[0, :256, 100]
    assert int(middle.max()) > 245
    assert int(middle.argmax()) == pytest.approx(256 - 3000 / 12000 * 256, abs=1)  # low notes at the bottom
    assert int(middle[:50].max()) < 60  # 77 dB below: the tone itself is of 32 bits
    assert int(spectrogram(torch.full((1, RATE), math.nan)).max()) == 0
