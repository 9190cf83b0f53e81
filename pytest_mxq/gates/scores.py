"""The values of one metric over the outputs of a case: summary, decision, and the worst outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, isnan, nan, sqrt
from statistics import fmean, stdev

from pytest_mxq.gates.base import Scale
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.distributions import student_t_quantile
from pytest_mxq.gates.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One metric's values, in the order of the prompts: for every image, for every frame, or for every video.

    Attributes:
        values: the values.
        mean: their mean.
        worst: the worst of them.
        worst_index: its index.
        p90: the value that 90 % of them do not fall behind.
        mean_bound_95: one-sided 95 % bound of the mean, on the side of worse; NaN where there are too few values.
        frames: values of each video, one after the other; 1 where there is one value for each image or video.
    """

    values: tuple[float, ...]
    mean: float
    worst: float
    worst_index: int
    p90: float
    mean_bound_95: float
    frames: int = 1


def summarize(values: Sequence[float], *, higher_is_better: bool, frames: int = 1) -> Scores:
    """Return mean, worst, 90th percentile and one-sided 95 % bound of the mean of one metric.

    An image that equals its reference has an infinite PSNR; it is left out of the mean, which it would make infinite
    whatever the others are.

    p90 is the value that 90 % of the images do not fall behind (nearest rank, in the direction of worse);
    the 95 % bound of the mean is Student's, on the side of worse, over the means of the videos where there are such:
    the frames of one video are not independent.

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


def decide(scale: Scale, scores: Scores, bound: Bound) -> tuple[Outcome, str]:
    """Return pass or regression, and the sentence that says why.

    Nothing passes that is not a finite number.

    >>> scores = summarize([0.1, 0.2], higher_is_better=False)
    >>> decide(Scale(higher_is_better=False), scores, Bound(mean=0.2, worst=0.3))
    (<Outcome.PASS: 'pass'>, 'mean 0.1500 <= 0.2000, worst 0.2000 <= 0.3000')
    """
    mean_ok, mean_text = _compare(scale, "mean", scores.mean, bound.mean)
    if bound.worst is None:
        return (Outcome.PASS if mean_ok else Outcome.REGRESSION), mean_text
    worst_ok, worst_text = _compare(scale, "worst", scores.worst, bound.worst)
    texts = [mean_text, worst_text] if mean_ok or not worst_ok else [mean_text]
    if mean_ok and not worst_ok:
        texts.reverse()
    return (Outcome.PASS if mean_ok and worst_ok else Outcome.REGRESSION), ", ".join(texts)


_SIGNS = {(True, True): ">=", (True, False): "<", (False, True): "<=", (False, False): ">"}


def _compare(scale: Scale, what: str, value: float, limit: float) -> tuple[bool, str]:
    good = scale.holds(value, limit)
    sign = _SIGNS[scale.higher_is_better, good] if isfinite(value) else "is not a finite number, bound"
    value_text, limit_text = scale.show(value), scale.show(limit)
    if not good and value_text == limit_text:
        value_text, limit_text = repr(value), repr(limit)
    return good, f"{what} {value_text} {sign} {limit_text}"


def worst_first(values: Sequence[float], *, higher_is_better: bool, frames: int = 1) -> list[int]:
    """Return the indices of the values, the worst first; a NaN is worse than any number; of each video its worst frame.

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
