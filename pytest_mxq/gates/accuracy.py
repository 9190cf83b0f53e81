"""Deciding an accuracy gate: scores of all images against the bound of the mean and of the worst image."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite, isnan, nan, sqrt
from statistics import fmean, stdev

from pytest_mxq.gates.bounds import Bound, GateKind
from pytest_mxq.gates.distributions import student_t_quantile
from pytest_mxq.gates.verdict import Outcome, Scores


def summarize(values: Sequence[float], *, higher_is_better: bool, frames: int = 1) -> Scores:
    """Mean, worst, 90th percentile and one-sided 95 % bound of the mean of one metric.

    An image that equals its reference has an infinite PSNR; it is left out of the mean, which it would make infinite
    whatever the others are.

    p90 is the value that 90 % of the images do not fall behind (nearest rank, in the direction of worse);
    the 95 % bound of the mean is Student's, on the side of worse, over the means of the videos where there are such:
    frames of one video are no independent images.

    Args:
        values: one value per image, frame or video.
        higher_is_better: direction.
        frames: values of each video, one after the other.

    >>> summarize([0.1, 0.2, 0.6], higher_is_better=False).worst_index
    2
    """
    if not values:
        raise ValueError("no values to summarize")
    extreme = float("-inf") if higher_is_better else float("inf")  # a NaN counts as the worst image
    ordered = sorted((extreme if isnan(value) else value for value in values), reverse=higher_is_better)
    worst = ordered[-1]
    return Scores(
        values=tuple(values),
        mean=_mean(values, higher_is_better=higher_is_better),
        worst=worst,
        worst_index=next(i for i, value in enumerate(values) if value == worst or isnan(value)),
        p90=ordered[-(-9 * len(ordered) // 10) - 1],
        mean_bound_95=_mean_bound(_video_means(values, frames), higher_is_better=higher_is_better),
        frames=frames,
    )


def _mean(values: Sequence[float], *, higher_is_better: bool) -> float:
    if any(map(isnan, values)):
        return nan
    finite = [value for value in values if isfinite(value)]
    return fmean(finite) if finite and (higher_is_better or len(finite) == len(values)) else inf


def _video_means(values: Sequence[float], frames: int) -> list[float]:
    return [fmean(values[start : start + frames]) for start in range(0, len(values), frames)]


def _mean_bound(values: Sequence[float], *, higher_is_better: bool) -> float:
    if len(values) < 2 or not all(map(isfinite, values)):
        return nan
    margin = student_t_quantile(0.95, len(values) - 1) * stdev(values) / sqrt(len(values))
    return fmean(values) - margin if higher_is_better else fmean(values) + margin


def decide(kind: GateKind, scores: Scores, bound: Bound) -> tuple[Outcome, str]:
    """Pass or regression, and the sentence that says why.

    Nothing passes that is not a finite number.

    >>> from pytest_mxq.gates.bounds import GATES
    >>> decide(GATES["lpips"], summarize([0.1, 0.2], higher_is_better=False), Bound(mean=0.2, worst=0.3))
    (<Outcome.PASS: 'pass'>, 'mean 0.1500 <= 0.2000, worst 0.2000 <= 0.3000')
    """
    mean_ok, mean_text = _compare(kind, "mean", scores.mean, bound.mean)
    if bound.worst is None:
        return (Outcome.PASS if mean_ok else Outcome.REGRESSION), mean_text
    worst_ok, worst_text = _compare(kind, "worst", scores.worst, bound.worst)
    texts = [mean_text, worst_text] if mean_ok or not worst_ok else [mean_text]
    if mean_ok and not worst_ok:
        texts.reverse()
    return (Outcome.PASS if mean_ok and worst_ok else Outcome.REGRESSION), ", ".join(texts)


def _compare(kind: GateKind, what: str, value: float, limit: float) -> tuple[bool, str]:
    good = isfinite(value) and (value >= limit if kind.higher_is_better else value <= limit)
    sign = {(True, True): ">=", (True, False): "<", (False, True): "<=", (False, False): ">"}[
        kind.higher_is_better, good
    ]
    if not isfinite(value):
        sign = "is no finite number, bound"
    value_text, limit_text = kind.show(value), kind.show(limit)
    if not good and value_text == limit_text:
        value_text, limit_text = repr(value), repr(limit)
    return good, f"{what} {value_text} {sign} {limit_text}"


def worst_first(values: Sequence[float], *, higher_is_better: bool, frames: int = 1) -> list[int]:
    """Indices of the values, the worst first; a NaN is worse than any number; of each video its worst frame alone.

    >>> worst_first([0.1, 0.3, 0.2], higher_is_better=False)
    [1, 2, 0]
    >>> worst_first([0.1, 0.3, 0.5, 0.4], higher_is_better=False, frames=2)
    [2, 1]
    """
    sign = 1 if higher_is_better else -1
    ordered = sorted(range(len(values)), key=lambda i: (not isnan(values[i]), sign * values[i]))
    worst_of: dict[int, int] = {}
    for index in ordered:
        worst_of.setdefault(index // frames, index)
    return list(worst_of.values())
