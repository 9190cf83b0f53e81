"""The bounds of the gates that the repository ships: what they let pass, and that they are the published numbers'."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from shipped_gates import marks_by_batch_size, marks_of_images, read_marker
from torch import Tensor

from pytest_mxq.gates import built_in_gates
from pytest_mxq.gates.bounds import Bound, MarkerArguments
from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.memory import MemoryBound
from pytest_mxq.gates.speedup import SpeedBound
from pytest_mxq.metrics.audio import log_spectral_distance
from pytest_mxq.models import flux, ltx2, qwen_image
from pytest_mxq.models.published import PublishedLpips, PublishedRun

GATES = {gate.name: gate for gate in built_in_gates()}
FORMATS = ("mxfp8", "nvfp4", "float8")
RATE = 24000
RUNS = {"flux": flux.PUBLISHED_RUNS, "qwen_image": qwen_image.PUBLISHED_RUNS, "ltx2": ltx2.PUBLISHED_RUNS}
BITS = {"mxfp8": 8 + 8 / 32, "nvfp4": 4 + 8 / 16, "float8": 8.0}  # of a value with its scale


def bound_of(gate: str, marks: list[Any], name: str) -> Any:
    marker = f"mxq_{gate}"
    named = read_marker(marks, marker)
    return GATES[gate].read_bound(MarkerArguments(marker=marker, positional=(), named=named, format_name=name))


def cases() -> Iterator[Any]:
    """Every published run of a quantized format, with BF16's and the markers of its gates."""
    for model, runs in RUNS.items():
        by_size = dict(marks_by_batch_size(f"test_{model}.py", f"test_{model}_speed"))
        plain = {run.batch_size: run for run in runs if run.format == "bf16"}
        assert by_size.keys() == plain.keys()
        for run in runs:
            if run.format != "bf16":
                case = (by_size[run.batch_size], plain[run.batch_size], run)
                yield pytest.param(*case, id=f"{model}-{run.batch_size}-{run.format}")


def voice() -> Tensor:
    """Two seconds of syllables: the harmonics of a moving pitch, with pauses and a little breath."""
    time = torch.arange(2 * RATE, dtype=torch.float64) / RATE
    pitch = 120 + 15 * torch.sin(2 * math.pi * 0.7 * time) + 10 * torch.sin(2 * math.pi * 2.3 * time)
    phase = 2 * math.pi * pitch.cumsum(0) / RATE
    harmonics = torch.stack([torch.sin(number * phase) / number for number in range(1, 40)]).sum(0)
    syllables = torch.sin(2 * math.pi * 2 * time).clamp(min=0).sqrt()
    breath = torch.randn(len(time), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (0.1 * syllables * harmonics + 0.0005 * breath).float().expand(1, 2, -1)


def noise(seed: int) -> Tensor:
    return 0.1 * torch.randn((1, 2, 2 * RATE), generator=torch.Generator().manual_seed(seed))


def bound_of_audio(name: str) -> Bound:
    bound = bound_of("audio", marks_of_images("test_ltx2.py", "test_ltx2"), name)
    assert isinstance(bound, Bound)
    return bound


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("reference", "other"),
    [(voice(), voice().roll(RATE // 20, -1)), (noise(0), noise(1))],
    ids=["50 ms later", "noise"],
)
def test_healthy_audio_of_other_moments_passes(name: str, reference: Tensor, other: Tensor) -> None:
    (distance,) = log_spectral_distance(reference, other)
    assert distance > 7
    assert distance < bound_of_audio(name).mean


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("other", [torch.zeros(1, 2, 2 * RATE), noise(0)], ids=["silence", "white noise"])
def test_silence_and_white_noise_in_place_of_a_voice_fail_as_a_mean_and_as_the_worst(name: str, other: Tensor) -> None:
    (distance,) = log_spectral_distance(voice(), other)
    bound = bound_of_audio(name)
    assert bound.worst is not None
    assert distance > bound.worst > bound.mean


@pytest.mark.parametrize(("marks", "plain", "run"), list(cases()))
def test_speed_and_memory_may_be_5_percent_worse_than_published(
    marks: list[Any], plain: PublishedRun, run: PublishedRun
) -> None:
    speed, memory = (bound_of(gate, marks, run.format) for gate in ("speedup", "memory"))
    assert isinstance(speed, SpeedBound)
    assert speed.speedup == round(0.95 * run.speedup, 2)
    assert run.speedup == pytest.approx(plain.seconds / run.seconds, abs=0.015)  # the publisher's own rounding
    assert isinstance(memory, MemoryBound)
    assert memory.max_ratio == round(1.05 * run.peak_gb / plain.peak_gb, 2)


@pytest.mark.parametrize("model", sorted(RUNS))
@pytest.mark.parametrize("name", FORMATS)
def test_a_quantized_weight_has_the_bits_of_its_format_and_little_more(model: str, name: str) -> None:
    for _, marks in marks_by_batch_size(f"test_{model}.py", f"test_{model}_speed"):
        memory = bound_of("memory", marks, name)
        assert isinstance(memory, MemoryBound)
        assert memory.max_weight_ratio is not None
        assert 0 < memory.max_weight_ratio - BITS[name] / 16 <= 0.011
        assert memory.max_ratio is not None
        assert memory.max_weight_ratio < memory.max_ratio  # the rest of the model takes memory too


@pytest.mark.parametrize("model", sorted(RUNS))
def test_float8_has_the_memory_of_mxfp8_and_may_be_slower_than_an_h100_measured(model: str) -> None:
    measured = {"flux": {1: 1.24, 4: 1.32}, "qwen_image": {1: 1.25}, "ltx2": {1: 1.30}}[model]
    for size, marks in marks_by_batch_size(f"test_{model}.py", f"test_{model}_speed"):
        memory = {name: bound_of("memory", marks, name) for name in ("mxfp8", "float8")}
        assert memory["float8"].max_ratio == memory["mxfp8"].max_ratio
        speed = bound_of("speedup", marks, "float8")
        assert isinstance(speed, SpeedBound)
        assert 0.85 <= speed.speedup / measured.get(size, measured[1]) <= 0.98


@pytest.mark.parametrize(
    ("model", "published"),
    [
        pytest.param(model, published, id=f"{model}-{published.format}")
        for model, means in (("flux", flux.PUBLISHED_LPIPS), ("qwen_image", qwen_image.PUBLISHED_LPIPS))
        for published in means
    ],
)
def test_lpips_may_be_30_percent_above_the_published_mean_and_the_worst_3_and_a_half_times_it(
    model: str, published: PublishedLpips
) -> None:
    def rounded_up(value: float) -> float:
        return math.ceil(round(100 * value, 6)) / 100

    bound = bound_of("lpips", marks_of_images(f"test_{model}.py", f"test_{model}"), published.format)
    expected = rounded_up(1.3 * published.selective), min(rounded_up(3.5 * published.selective), LPIPS.largest)
    assert isinstance(bound, Bound)
    assert (bound.mean, bound.worst) == expected
