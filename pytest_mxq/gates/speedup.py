"""Speedup of whole calls over BF16, decided by an interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, hypot, log
from statistics import NormalDist, median

from pytest_mxq.baselines.strict_json import LIVE
from pytest_mxq.errors import CaseFaultError, MxqError
from pytest_mxq.gates.base import COMPILED_CALLS, CallLength, Gate, Needs, Scale, read_length
from pytest_mxq.gates.bounds import MarkerArguments
from pytest_mxq.gates.extrapolation import Extrapolation
from pytest_mxq.gates.machine_drift import MachineDrift
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.speed_statistics import (
    DEFAULT_PROCESS_SD,
    MAX_ROUNDS,
    MAX_SECONDS,
    MIN_SESSIONS,
    SpeedDecision,
    SpeedEstimate,
    SpeedMode,
    SpeedRule,
    decide_speed,
    estimate_paired,
    estimate_stored,
    marginal_half_width,
    speedup_process_sd,
    target_half_width,
)

_RULES = tuple(rule.value for rule in SpeedRule)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedBound:
    """What ``mxq_speedup`` demands of one format.

    Attributes:
        speedup: the speedup over BF16.
        rule: how sure it must be.
        max_rounds: paired rounds after which sampling ends.
        max_seconds: seconds after which it ends, once there are rounds enough for an interval.
        steps: whether calls may be short, and their time extrapolated; None: as the run's options say.
    """

    speedup: float
    rule: SpeedRule
    max_rounds: int = MAX_ROUNDS
    max_seconds: float = MAX_SECONDS
    steps: CallLength | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedSamples:
    """What was timed for one speed gate; all times in seconds a call.

    Attributes:
        mode: whether BF16 ran beside the quantized arm, or comes from stored sessions.
        bf16: times of the BF16 arm in this run, round by round; empty in stored mode.
        quantized: times of the quantized arm.
        sessions: stored BF16 sessions on this hardware and software.
        voided: why rounds were voided and repeated.
        environment: why the machine is not fit to be timed on, or None.
        start_seed: seed of the random order of the arms.
        execution: how both arms ran.
        first_call: seconds of the case's first call of each arm in this process, BF16 first; compilation
            included unless an earlier case compiled the same code.
        throttle_share: share of the rounds in which the GPU was slowed down, where the driver tells.
        power_cap_share: share of the rounds at the software power cap; normal under load.
        beside: other formats whose arms ran in the same rounds.
        extrapolation: how the seconds of each round follow from short calls; None: they were measured.
        short_bf16: times of short calls of BF16 right after the quantized arm's, in stored mode.
        drift: these against those of the stored sessions; None where either has none.
    """

    mode: SpeedMode
    bf16: tuple[float, ...]
    quantized: tuple[float, ...]
    sessions: tuple[tuple[float, ...], ...] = ()
    voided: tuple[str, ...] = ()
    environment: str | None = None
    start_seed: int = 0
    execution: str = ""
    first_call: tuple[float, ...] = ()
    throttle_share: float | None = None
    power_cap_share: float | None = None
    beside: tuple[str, ...] = ()
    extrapolation: Extrapolation | None = None
    short_bf16: tuple[float, ...] = ()
    drift: MachineDrift | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedFacts:
    """The numbers of a speed verdict: the estimate, both medians in seconds, and the samples behind them.

    Attributes:
        speedup: BF16 time over quantized time.
        lower: lower bound of the speedup; it holds with probability ``1 - alpha``.
        upper: upper bound, likewise; both at once hold with ``1 - 2 alpha``.
        half_width: half of ``ln upper - ln lower``.
        n: rounds of the quantized arm.
        mode: "live" or "stored", as the samples'.
        alpha: one-sided level of each bound.
        process_sd: sd between processes that the bounds allow for, on the log scale.
        process_sd_source: "default", or which stored sessions show more than that.
        bf16_seconds: median time of a call in BF16.
        quantized_seconds: median time of a call of the quantized arm.
        samples: what was timed.
    """

    speedup: float
    lower: float
    upper: float
    half_width: float
    n: int
    mode: str
    alpha: float
    process_sd: float
    process_sd_source: str
    bf16_seconds: float
    quantized_seconds: float
    samples: SpeedSamples


def estimate(samples: SpeedSamples, *, alpha: float) -> SpeedEstimate:
    """Return the speedup of live rounds, or of one session against stored ones.

    Raises:
        SamplesError: too few rounds, or times that are none.
    """
    if samples.mode is SpeedMode.STORED:
        return estimate_stored(samples.sessions, samples.quantized, alpha=alpha)
    enough = len(samples.sessions) >= MIN_SESSIONS
    spread = speedup_process_sd(samples.sessions, alpha=alpha) if enough else DEFAULT_PROCESS_SD
    error = 0.0 if samples.extrapolation is None else samples.extrapolation.model_error
    return estimate_paired(samples.bf16, samples.quantized, alpha=alpha, process_sd=spread, model_error=error)


def decide_speedup(samples: SpeedSamples, bound: SpeedBound, *, alpha: float) -> tuple[Outcome, str, SpeedFacts | None]:
    """Return the verdict of a speedup, its sentence, and its numbers (None where nothing was timed to the end)."""
    if samples.environment:
        return Outcome.ENVIRONMENT, f"the machine is not fit to be timed on: {samples.environment}", None
    found = estimate(samples, alpha=alpha)
    outcome = _OUTCOMES[decide_speed(found, bound.speedup, bound.rule)]
    bf16 = (
        exp(median(log(median(session)) for session in samples.sessions)) if not samples.bf16 else median(samples.bf16)
    )
    facts = SpeedFacts(
        speedup=found.speedup,
        lower=found.lower,
        upper=found.upper,
        half_width=found.half_width,
        n=found.n,
        mode=found.mode.value,
        alpha=alpha,
        process_sd=found.process_sd,
        process_sd_source=_process_sd_source(found, len(samples.sessions)),
        bf16_seconds=bf16,
        quantized_seconds=median(samples.quantized),
        samples=samples,
    )
    return outcome, _sentence(facts, bound, outcome), facts


_OUTCOMES = {
    SpeedDecision.PASS: Outcome.PASS,
    SpeedDecision.MARGINAL: Outcome.MARGINAL,
    SpeedDecision.REGRESSION: Outcome.REGRESSION,
    SpeedDecision.INCONCLUSIVE: Outcome.INCONCLUSIVE,
}


_DEFAULT = "default"


def _process_sd_source(found: SpeedEstimate, sessions: int) -> str:
    return _DEFAULT if found.process_sd == DEFAULT_PROCESS_SD else f"from {sessions} stored sessions"


def _sentence(facts: SpeedFacts, bound: SpeedBound, outcome: Outcome) -> str:
    """Say what was found; within the resolution also what that comes from, and where it decides what helps."""
    sign = {Outcome.REGRESSION: "<", Outcome.PASS: ">=", Outcome.MARGINAL: "about"}.get(outcome, "not told from")
    parts = [
        f"{facts.speedup:.3f}x {sign} {bound.speedup:.3f}x",
        f"[{facts.lower:.3f}, {facts.upper:.3f}] each bound {100 * (1 - facts.alpha):g} %",
        f"BF16 {facts.bf16_seconds:.3f} s -> {facts.quantized_seconds:.3f} s",
        f"n={facts.n}",
    ]
    if facts.samples.extrapolation is not None:
        parts.append(facts.samples.extrapolation.text)
    if facts.samples.beside:
        parts.append(f"in the same rounds as {', '.join(facts.samples.beside)}")
    if facts.process_sd_source != _DEFAULT or outcome in {Outcome.MARGINAL, Outcome.INCONCLUSIVE}:
        parts.append(f"process sd {100 * facts.process_sd:.1f} % ({facts.process_sd_source})")
    if outcome is Outcome.INCONCLUSIVE:
        parts.append(_what_helps(facts, bound))
    return "   ".join(parts)


def _what_helps(facts: SpeedFacts, bound: SpeedBound) -> str:
    """Say what could decide an inconclusive speedup: it depends on what made its interval wide."""
    widest, z = marginal_half_width(facts.alpha), NormalDist().inv_cdf(1 - facts.alpha)
    process, floor = z * facts.process_sd, z * DEFAULT_PROCESS_SD
    distance = abs(log(facts.speedup / bound.speedup))
    more_rounds = "more rounds (max_rounds=, max_seconds=) or a quieter machine may tell"
    if facts.half_width <= widest:
        return 'rule="proven" wants both bounds at or above it'
    if facts.mode == SpeedMode.LIVE.value and distance > process:
        return more_rounds
    if distance <= floor and floor > widest:
        return f"at alpha {facts.alpha:g} nothing can tell so little: a larger --mxq-alpha may"
    if facts.mode == SpeedMode.STORED.value:
        return f"fresh sessions (--mxq-refresh), a quieter machine or {LIVE} may tell"
    if hypot(process, target_half_width(facts.alpha)) <= widest or facts.process_sd_source == _DEFAULT:
        return more_rounds
    return "more rounds cannot tell: fresh sessions (--mxq-refresh) or a quieter machine may"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedGate(Gate):
    """A gate that times whole calls of both arms.

    Attributes:
        largest: the largest speedup that makes sense as a bound.
        decide: from what was timed, the bound and alpha to a verdict, its sentence and its numbers.
    """

    largest: float
    decide: Callable[..., tuple[Outcome, str, SpeedFacts | None]] = decide_speedup

    def __post_init__(self) -> None:
        Gate.__post_init__(self)
        if not self.scale.higher_is_better:
            raise MxqError(f"gate {self.name!r}: of a speedup, higher is better")

    @property
    def arguments(self) -> tuple[str, ...]:
        """How sure the bound must be, how long to sample, and how long the calls are."""
        return ("rule", "max_rounds", "max_seconds", "steps")

    @property
    def needs(self) -> Needs:
        """What the gate needs of a run."""
        return COMPILED_CALLS

    def read_bound(self, arguments: MarkerArguments) -> SpeedBound:
        """Return what the marker states for a format: the bound, how sure it must be, and how long to sample.

        Raises:
            CaseFaultError: an unknown or missing argument, no bound for the format, or a value that is not allowed.
        """
        arguments.check_names((self.limit, *self.arguments))
        speedup = arguments.number(self.limit, largest=self.largest)
        rule = arguments.named.get("rule", SpeedRule.NOT_BELOW.value)
        if rule not in _RULES:
            raise CaseFaultError(f"{self.marker}(rule=) must be one of {', '.join(_RULES)}; got {rule!r}")
        rounds = arguments.named.get("max_rounds", MAX_ROUNDS)
        if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds % 2 or not 6 <= rounds <= 200:
            raise CaseFaultError(f"{self.marker}(max_rounds=) must be an even number from 6 to 200, got {rounds!r}")
        seconds = arguments.number("max_seconds", largest=7200.0, default=MAX_SECONDS)
        return SpeedBound(
            speedup=speedup,
            rule=SpeedRule(rule),
            max_rounds=rounds,
            max_seconds=seconds,
            steps=read_length(arguments),
        )


SPEEDUP = SpeedGate(
    name="speedup",
    summary="bound of the speedup over BF16; rule not-below or proven",
    largest=100.0,
    scale=Scale(higher_is_better=True, unit="x", digits=3, noun="call"),
)
