import math

import pytest

from pytest_mxq.errors import CaseFaultError
from pytest_mxq.gates import built_in_gates
from pytest_mxq.gates.base import AccuracyGate
from pytest_mxq.gates.bounds import Bound, MarkerArguments

GATES = {gate.name: gate for gate in built_in_gates() if isinstance(gate, AccuracyGate)}


def read(emulated: bool = False, kind: str = "lpips", format_name: str = "nvfp4", **arguments: object) -> Bound:
    gate = GATES[kind]
    return gate.read_bound(
        MarkerArguments(marker=gate.marker, positional=(), named=arguments, format_name=format_name, emulated=emulated)
    )


def test_a_number_serves_every_format_and_the_worst_bound_has_its_default() -> None:
    assert read(max=0.1) == Bound(mean=0.1, worst=0.25)
    assert read(kind="ssim", min=0.9) == Bound(mean=0.9, worst=None)


@pytest.mark.parametrize(("mean", "worst"), [(0.01, 0.16), (0.15, 0.30), (0.3, 0.6), (0.47, 0.80), (0.8, 0.8)])
def test_the_default_of_the_worst_image(mean: float, worst: float) -> None:
    assert read(max=mean).worst == pytest.approx(worst)


def test_an_emulated_arm_takes_its_own_key_before_the_native_one() -> None:
    bounds = {"nvfp4": 0.4, "nvfp4-emulated": 0.5}
    assert read(max=bounds).mean == 0.4
    assert read(emulated=True, max=bounds).mean == 0.5
    assert read(emulated=True, max={"nvfp4": 0.4}).mean == 0.4
    with pytest.raises(CaseFaultError, match="states no bound for format 'nvfp4'"):
        read(max={"nvfp4-emulated": 0.5})


@pytest.mark.parametrize("bad", [0, -0.1, math.nan, math.inf, True, "0.1", None, [0.1]])
def test_a_bound_that_decides_nothing_is_refused(bad: object) -> None:
    with pytest.raises(CaseFaultError, match="must be"):
        read(max=bad)
    with pytest.raises(CaseFaultError, match="must be"):
        read(max={"nvfp4": bad})


def test_the_worst_image_cannot_be_bounded_more_strictly_than_the_mean() -> None:
    with pytest.raises(CaseFaultError, match="stricter"):
        read(max=0.2, worst=0.1)
    with pytest.raises(CaseFaultError, match="stricter"):
        read(kind="ssim", min=0.8, worst=0.9)
    assert read(kind="ssim", min=0.8, worst=0.7) == Bound(mean=0.8, worst=0.7)


def test_bounds_of_videos_and_audio_that_could_not_fail_are_refused() -> None:
    assert read(kind="flicker", max=1.0) == Bound(mean=1.0, worst=1.0)
    with pytest.raises(CaseFaultError, match=r"mxq_flicker\(max=\) must be above 0 and at most 1, got 1.01"):
        read(kind="flicker", max=1.01)  # a video that stands still has 1
    assert read(kind="audio", max=12.0, worst={"nvfp4": 20.0}) == Bound(mean=12.0, worst=20.0)
    with pytest.raises(CaseFaultError, match=r"mxq_audio\(max=\) must be above 0 and at most 60, got 61"):
        read(kind="audio", max=61)
    with pytest.raises(CaseFaultError, match="mxq_audio has no argument 'min'"):
        read(kind="audio", min=3)


@pytest.mark.parametrize(
    ("gate", "mean", "worst"), [("audio", 8.0, 14.0), ("audio", 58.0, 60.0), ("flicker", 0.2, 0.4)]
)
def test_the_worst_video_is_bounded_where_the_marker_does_not_say(gate: str, mean: float, worst: float) -> None:
    bound = read(kind=gate, format_name="mxfp8", max=mean)
    assert bound == Bound(mean=mean, worst=worst)
