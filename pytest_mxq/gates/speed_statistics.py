"""Speedup with an interval: paired (live) and stored estimates, when to stop sampling, and the decision.

All intervals live on the log scale, where a speedup is a difference: `ln speedup = ln t_bf16 - ln t_quantized`.
Bounds are one-sided, each at level `alpha`. How often every rule is right and wrong was simulated:
`benchmarks/speed_gate_simulation.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from statistics import NormalDist, fmean, median, stdev

from pytest_mxq.errors import MxqError
from pytest_mxq.gates.distributions import signed_rank_critical_value, student_t_quantile

MAX_ROUNDS = 20
"""Paired rounds after which sampling ends, however wide the interval still is."""
MAX_SECONDS = 300.0
"""Seconds of sampling after which it ends, once there are enough rounds for an interval at all."""
TARGET_HALF_WIDTH = 0.01
"""Half-width of the signed-rank interval of ln speedup at which sampling ends, or earlier (`target_half_width`)."""
MARGINAL_HALF_WIDTH = 0.02
"""Widest half-width at which an interval around the bound still passes at alpha 0.05 (`marginal_half_width`). A speedup
5 % short passes at most 1 % of the time while `h (1 + z_0.99 / z_0.95) <= -ln 0.95`, that is `h <= 2.1 %`; up to 3 % it
did up to 3 % of the time."""
DEFAULT_PROCESS_SD = 0.01
"""Assumed sd of ln speedup between processes. Float8 FLUX.1-dev in seven processes on up to four H100s: 0.8 %, of which
processes on one GPU were 0.25 % and BF16 against BF16 0.04 % (benchmarks/results/gpu-speed-2026-11-22.md)."""
MIN_SESSIONS = 3
"""Stored sessions below which nothing is decided."""
MIN_SESSION_ROUNDS = 8
"""Timed rounds of one session, of either arm."""


class SamplesError(MxqError, ValueError):
    """Timings or a setting that no speedup can be estimated from."""


class SpeedMode(Enum):
    """What the quantized arm was compared with."""

    LIVE = "live"
    STORED = "stored"


class SpeedRule(Enum):
    """What a speedup must show: that it is not below its bound, or that it is proven to reach it."""

    NOT_BELOW = "not-below"
    PROVEN = "proven"


class SpeedDecision(Enum):
    """What an estimate says about a bound; `MARGINAL` is a pass within the resolution."""

    PASS = "pass"
    MARGINAL = "marginal"
    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedEstimate:
    """A speedup and its one-sided bounds.

    Attributes:
        speedup: BF16 time over quantized time.
        lower: Lower bound of the speedup at level alpha.
        upper: Upper bound of the speedup at level alpha.
        half_width: Half of `ln upper - ln lower`.
        n: Rounds of the quantized arm.
        mode: Whether BF16 ran beside it or comes from stored sessions.
        alpha: One-sided level of each bound; both together hold at `1 - 2 alpha`.
        process_sd: Sd between processes that the bounds allow for: of ln speedup, or, stored, of ln BF16 time where
            the sessions' own counts for more than `DEFAULT_PROCESS_SD`.
    """

    speedup: float
    lower: float
    upper: float
    half_width: float
    n: int
    mode: SpeedMode
    alpha: float
    process_sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Hodges-Lehmann estimate and its signed-rank interval, in the unit of the differences."""

    center: float
    lower: float
    upper: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.upper - self.lower) / 2


@lru_cache(maxsize=64)
def minimum_rounds(alpha: float) -> int:
    """Fewest paired rounds to start with: the smallest even n that has an interval at level alpha.

    Even, because half an ABBA block leaves one step of drift in the estimate.

    Raises:
        SamplesError: If alpha is not in [2^-20, 0.5), so that no allowed number of rounds has an interval.

    >>> minimum_rounds(0.05), minimum_rounds(0.01)
    (6, 8)
    """
    _check_alpha(alpha)
    return next(n for n in range(2, MAX_ROUNDS + 1, 2) if signed_rank_critical_value(n, alpha) >= 0)


def hodges_lehmann(differences: Sequence[float], *, alpha: float) -> Location:
    """Median of the Walsh averages `(d_i + d_j) / 2, i <= j`, with its exact signed-rank interval.

    The bounds are the (k+1)-th smallest and (k+1)-th largest Walsh average (Hollander, Wolfe and Chicken,
    sections 3.2 and 3.3); each fails with probability at most alpha for independent symmetric differences.

    Raises:
        SamplesError: If there are too few differences for an interval at level alpha.

    >>> hodges_lehmann([1.0, 2.0, 3.0, 4.0, 5.0], alpha=0.05)
    Location(center=3.0, lower=1.0, upper=5.0)
    """
    n = len(differences)
    k = signed_rank_critical_value(n, alpha)
    if k < 0:
        raise SamplesError(f"{n} paired rounds have no interval at alpha {alpha}; take {minimum_rounds(alpha)} or more")
    walsh = sorted((a + b) / 2 for i, a in enumerate(differences) for b in differences[i:])
    return Location(center=median(walsh), lower=walsh[k], upper=walsh[-1 - k])


@lru_cache(maxsize=64)
def marginal_half_width(alpha: float) -> float:
    """Widest half-width at which an interval around the bound still passes, `MARGINAL_HALF_WIDTH` at alpha 0.05.

    An interval of half-width h at level alpha has the sd `h / z_{1-alpha}`, hence a speedup 5 % short passes at most
    1 % of the time while `h (1 + z_0.99 / z_{1-alpha}) <= -ln 0.95`: a smaller alpha allows a wider interval, though
    not in proportion to z. Below alpha 0.0062 `DEFAULT_PROCESS_SD` alone is wider: nothing is marginal any more.

    Raises:
        SamplesError: If alpha is not in [2^-20, 0.5).

    >>> [round(marginal_half_width(alpha), 4) for alpha in (0.1, 0.05, 0.01)]
    [0.0172, 0.02, 0.0241]
    """
    _check_alpha(alpha)
    wanted = NormalDist().inv_cdf(0.99)
    return MARGINAL_HALF_WIDTH * (1 + wanted / _z(0.05)) / (1 + wanted / _z(alpha))


@lru_cache(maxsize=64)
def target_half_width(alpha: float, model_error: float = 0.0) -> float:
    """Half-width of the signed-rank interval at which sampling ends: `TARGET_HALF_WIDTH`, or less if alpha is small.

    With `DEFAULT_PROCESS_SD` and the error of a model it must leave the whole interval within `marginal_half_width`,
    where that can be.

    >>> [round(target_half_width(alpha), 4) for alpha in (0.05, 0.01, 0.001)]
    [0.01, 0.0065, 0.01]
    >>> round(target_half_width(0.05, model_error=0.01), 4)
    0.0054
    """
    margin = marginal_half_width(alpha) ** 2 - (_z(alpha) * DEFAULT_PROCESS_SD) ** 2 - model_error**2
    return min(TARGET_HALF_WIDTH, math.sqrt(margin)) if margin > 0 else TARGET_HALF_WIDTH


def estimate_paired(
    bf16_seconds: Sequence[float],
    quantized_seconds: Sequence[float],
    *,
    alpha: float,
    process_sd: float,
    model_error: float = 0.0,
) -> SpeedEstimate:
    """Speedup of paired rounds of one process, with bounds for any process.

    Each side of the signed-rank interval is widened to `hypot(side, z_{1-alpha} process_sd, model_error)`: rounds of
    one process share what that process is worth, and the error of a model, so more rounds cannot remove them.

    Args:
        bf16_seconds: Seconds of the BF16 arm, one a round.
        quantized_seconds: Seconds of the quantized arm in the same rounds.
        alpha: One-sided level of each bound.
        process_sd: Sd between processes of ln speedup (not of one arm's time): `DEFAULT_PROCESS_SD`, or
            `speedup_process_sd` of stored sessions.
        model_error: Half-width that a model costs which the seconds come from; 0: they were measured.

    Raises:
        SamplesError: If a time or a setting is out of range, the arms differ in rounds, or rounds are too few.

    >>> estimate = estimate_paired([2.0] * 6, [1.0] * 6, alpha=0.05, process_sd=0.01)
    >>> round(estimate.speedup, 4), round(estimate.lower, 4), round(estimate.half_width, 4)
    (2.0, 1.9674, 0.0164)
    """
    _check_alpha(alpha)
    if not 0 <= process_sd < math.inf:
        raise SamplesError(f"process_sd is {process_sd}; allowed: finite, 0 or more; {DEFAULT_PROCESS_SD} if unknown")
    location = hodges_lehmann(log_ratios(bf16_seconds, quantized_seconds), alpha=alpha)
    process = _z(alpha) * process_sd
    below = math.hypot(location.center - location.lower, process, model_error)
    above = math.hypot(location.upper - location.center, process, model_error)
    return SpeedEstimate(
        speedup=math.exp(location.center),
        lower=math.exp(location.center - below),
        upper=math.exp(location.center + above),
        half_width=(below + above) / 2,
        n=len(bf16_seconds),
        mode=SpeedMode.LIVE,
        alpha=alpha,
        process_sd=process_sd,
    )


def estimate_stored(
    sessions: Sequence[Sequence[float]], quantized_seconds: Sequence[float], *, alpha: float
) -> SpeedEstimate:
    """Speedup of one session of the quantized arm over stored BF16 sessions, each a process of its own.

    With K sessions, `s = mean_k ln med b_k - ln med q`; s_b is the sd between sessions and se_q that of the quantized
    median, `sqrt(pi / 2) sd(ln q) / sqrt(n)`. The half-width is the larger of

    - `t_{K-1,1-alpha} sqrt(s_b^2 (1 + 1/K) + se_q^2)`: the quantized arm's process is as steady as the stored ones;
    - `z_{1-alpha} sqrt(DEFAULT_PROCESS_SD^2 + s_b^2 / K + se_q^2)`: it is what a live comparison would assume, for
      BF16 sessions do not show the quantized arm's spread, and a few of them agree by luck.

    Args:
        sessions: Seconds of the BF16 arm, one sequence a stored session.
        quantized_seconds: Seconds of the quantized arm in this session.
        alpha: One-sided level of each bound.

    Raises:
        SamplesError: If a time or alpha is out of range, or there are too few sessions or rounds.

    >>> estimate = estimate_stored([[2.0] * 8, [2.02] * 8, [1.98] * 8], [1.0] * 8, alpha=0.05)
    >>> round(estimate.speedup, 3), round(estimate.half_width, 3)
    (2.0, 0.034)
    """
    _check_alpha(alpha)
    medians = _log_medians(sessions)
    (quantized,) = _log_sessions([quantized_seconds], "the quantized session")
    session_sd, mean_sd = stdev(medians), stdev(medians) / math.sqrt(len(medians))
    se_quantized = math.sqrt(math.pi / 2) * stdev(quantized) / math.sqrt(len(quantized))
    t, z = student_t_quantile(1 - alpha, len(medians) - 1), _z(alpha)
    as_measured = t * math.hypot(session_sd, mean_sd, se_quantized)
    as_assumed = z * math.hypot(DEFAULT_PROCESS_SD, mean_sd, se_quantized)
    half_width = max(as_measured, as_assumed)
    center = fmean(medians) - median(quantized)
    return SpeedEstimate(
        speedup=math.exp(center),
        lower=math.exp(center - half_width),
        upper=math.exp(center + half_width),
        half_width=half_width,
        n=len(quantized),
        mode=SpeedMode.STORED,
        alpha=alpha,
        process_sd=session_sd if t * session_sd > z * DEFAULT_PROCESS_SD else DEFAULT_PROCESS_SD,
    )


def speedup_process_sd(sessions: Sequence[Sequence[float]], *, alpha: float) -> float:
    """Return the `process_sd` that K stored sessions of one arm justify for a live speedup; never under the default.

    A speedup carries the process of two arms, hence `sqrt(2) sd_k(ln med b_k)`; an sd of K values is itself uncertain,
    hence times `t_{K-1,1-alpha} / z_{1-alpha}`. The default stays the least, because BF16 sessions do not show the
    quantized arm's spread (on one H100 0.26 % for BF16 and 1.06 % for float8).

    Raises:
        SamplesError: If a time or alpha is out of range, or there are too few sessions or rounds.

    >>> round(speedup_process_sd([[2.0] * 8, [2.04] * 8, [1.96] * 8], alpha=0.05), 3)
    0.05
    >>> speedup_process_sd([[2.0] * 8] * 5, alpha=0.05)
    0.01
    """
    _check_alpha(alpha)
    medians = _log_medians(sessions)
    inflation = student_t_quantile(1 - alpha, len(medians) - 1) / _z(alpha)
    return max(DEFAULT_PROCESS_SD, math.sqrt(2) * stdev(medians) * inflation)


def decide_speed(estimate: SpeedEstimate, bound: float, rule: SpeedRule) -> SpeedDecision:
    """Decide a speedup against its bound.

    Raises:
        SamplesError: If the bound is not a positive finite number.

    >>> estimate = estimate_paired([1.40] * 8, [1.0] * 8, alpha=0.05, process_sd=0.0087)
    >>> round(estimate.lower, 2), round(estimate.upper, 2)
    (1.38, 1.42)
    >>> [decide_speed(estimate, bound, SpeedRule.NOT_BELOW).value for bound in (1.38, 1.41, 1.43)]
    ['pass', 'marginal', 'regression']
    >>> decide_speed(estimate, 1.41, SpeedRule.PROVEN).value
    'inconclusive'
    """
    if not 0 < bound < math.inf:
        raise SamplesError(f"the speedup bound is {bound}; allowed: finite and above 0; state it as min=1.15")
    if estimate.lower >= bound:
        return SpeedDecision.PASS
    if estimate.upper < bound:
        return SpeedDecision.REGRESSION
    if rule is SpeedRule.NOT_BELOW and estimate.half_width <= marginal_half_width(estimate.alpha):
        return SpeedDecision.MARGINAL
    return SpeedDecision.INCONCLUSIVE


def _check_alpha(alpha: float) -> None:
    if not 2.0**-MAX_ROUNDS <= alpha < 0.5:
        raise SamplesError(f"alpha is {alpha}; allowed: 2^-{MAX_ROUNDS} to below 0.5; use 0.05 or 0.01")


def _z(alpha: float) -> float:
    """`z_{1-alpha}`, the normal quantile."""
    return NormalDist().inv_cdf(1 - alpha)


def log_ratios(bf16_seconds: Sequence[float], quantized_seconds: Sequence[float]) -> list[float]:
    """Return ``ln t_bf16 - ln t_quantized`` of each paired round.

    Raises:
        SamplesError: If the arms differ in rounds, or a time is not positive and finite.
    """
    if len(bf16_seconds) != len(quantized_seconds):
        raise SamplesError(
            f"{len(bf16_seconds)} BF16 times, {len(quantized_seconds)} quantized times; a paired round has one of each"
        )
    bf16, quantized = _logs(bf16_seconds, "BF16"), _logs(quantized_seconds, "quantized")
    return [b - q for b, q in zip(bf16, quantized, strict=True)]


def _log_medians(sessions: Sequence[Sequence[float]]) -> list[float]:
    if len(sessions) < MIN_SESSIONS:
        raise SamplesError(f"{len(sessions)} stored sessions; at least {MIN_SESSIONS}: refresh again or compare live")
    return [median(logs) for logs in _log_sessions(sessions, "a stored BF16 session")]


def _log_sessions(sessions: Sequence[Sequence[float]], name: str) -> list[list[float]]:
    for seconds in sessions:
        if len(seconds) < MIN_SESSION_ROUNDS:
            raise SamplesError(f"{name} has {len(seconds)} rounds; at least {MIN_SESSION_ROUNDS}: measure it again")
    return [_logs(seconds, name) for seconds in sessions]


def _logs(seconds: Sequence[float], name: str) -> list[float]:
    for index, value in enumerate(seconds):
        if not 0 < value < math.inf:
            raise SamplesError(f"time {index} of {name} is {value} s; allowed: finite and above 0; measure it again")
    return [math.log(value) for value in seconds]
