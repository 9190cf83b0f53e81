import math

import pytest

from pytest_mxq.gates.base import AccuracyGate
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.psnr import PSNR
from pytest_mxq.gates.scores import decide, summarize
from pytest_mxq.gates.ssim import SSIM


def test_summary_of_a_distance() -> None:
    scores = summarize([0.1, 0.4, 0.2, 0.3], higher_is_better=False)
    assert scores.mean == pytest.approx(0.25)
    assert (scores.worst, scores.worst_index, scores.p90) == (0.4, 1, 0.4)
    # mean 0.25, sd 0.12910, t(0.95; 3) = 2.3534: 0.25 + 2.3534 * 0.12910 / 2
    assert scores.mean_bound_95 == pytest.approx(0.40191, abs=1e-5)


def test_summary_of_a_similarity_looks_the_other_way() -> None:
    scores = summarize([0.9, 0.5, 0.8], higher_is_better=True)
    assert (scores.worst, scores.worst_index) == (0.5, 1)
    assert scores.mean_bound_95 < scores.mean


def test_p90_is_the_nearest_rank() -> None:
    assert summarize([i / 10 for i in range(1, 11)], higher_is_better=False).p90 == 0.9
    assert summarize([i / 10 for i in range(1, 11)], higher_is_better=True).p90 == 0.2


@pytest.mark.parametrize("gate", [LPIPS, SSIM, PSNR], ids=lambda gate: gate.name)
def test_nan_never_passes(gate: AccuracyGate) -> None:
    upwards = gate.scale.higher_is_better
    scores = summarize([0.5, math.nan], higher_is_better=upwards)
    assert decide(gate.scale, scores, Bound(mean=0.1 if upwards else 0.8, worst=None))[0] is Outcome.REGRESSION
    assert scores.worst_index == 1


def test_an_infinite_distance_never_passes() -> None:
    scores = summarize([0.1, math.inf], higher_is_better=False)
    assert decide(LPIPS.scale, scores, Bound(mean=0.8, worst=0.8))[0] is Outcome.REGRESSION


def test_images_equal_to_the_reference_do_not_lift_the_mean_psnr_of_the_others() -> None:
    scores = summarize([math.inf, 5.0, 5.0, 5.0], higher_is_better=True)
    assert scores.mean == 5.0
    assert decide(PSNR.scale, scores, Bound(mean=30, worst=None))[0] is Outcome.REGRESSION


def test_nothing_but_a_finite_number_passes() -> None:
    assert (
        decide(PSNR.scale, summarize([math.inf], higher_is_better=True), Bound(mean=30, worst=None))[0]
        is Outcome.REGRESSION
    )


@pytest.mark.parametrize(
    ("values", "outcome", "sentence"),
    [
        ([0.1, 0.19], Outcome.PASS, "mean 0.1450 <= 0.1500, worst 0.1900 <= 0.2000"),
        ([0.1, 0.21], Outcome.REGRESSION, "mean 0.1550 > 0.1500, worst 0.2100 > 0.2000"),
        ([0.0, 0.21], Outcome.REGRESSION, "worst 0.2100 > 0.2000, mean 0.1050 <= 0.1500"),
        ([0.18, 0.19], Outcome.REGRESSION, "mean 0.1850 > 0.1500"),
        ([0.150001, 0.150001], Outcome.REGRESSION, "mean 0.150001 > 0.15"),
    ],
)
def test_mean_and_worst_are_both_bounds_and_what_failed_stands_first(
    values: list[float], outcome: Outcome, sentence: str
) -> None:
    scores = summarize(values, higher_is_better=False)
    assert decide(LPIPS.scale, scores, Bound(mean=0.15, worst=0.2)) == (outcome, sentence)


def test_no_values_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        summarize([], higher_is_better=False)


def test_the_bound_of_the_mean_counts_videos_not_frames() -> None:
    frames = [0.1, 0.1, 0.4, 0.4]
    videos = summarize(frames, higher_is_better=False, frames=2)
    assert videos.mean_bound_95 == pytest.approx(summarize([0.1, 0.4], higher_is_better=False).mean_bound_95)
    assert videos.mean_bound_95 > summarize(frames, higher_is_better=False).mean_bound_95
    assert videos.mean == pytest.approx(0.25)
    assert (videos.worst_index, videos.frames) == (2, 2)
