"""Deciding speed and memory gates: pure functions of what was measured."""

from math import exp, hypot, isfinite, log
from statistics import NormalDist, median

from pytest_mxq.errors import MxqError
from pytest_mxq.gates.bounds import MemoryBound, SpeedBound
from pytest_mxq.gates.speed_statistics import (
    DEFAULT_PROCESS_SD,
    MIN_SESSIONS,
    SpeedDecision,
    SpeedEstimate,
    SpeedMode,
    decide_speed,
    estimate_paired,
    estimate_stored,
    marginal_half_width,
    speedup_process_sd,
    target_half_width,
)
from pytest_mxq.gates.verdict import MemoryFacts, Outcome, SpeedFacts, SpeedSamples


def decide_memory(memory: MemoryFacts, bound: MemoryBound) -> tuple[Outcome, str]:
    """Pass or regression, and the sentence that says why.

    >>> memory = MemoryFacts(peak_gib=15.0, reserved_gib=16.5, bf16_peak_gib=27.0, weight_ratio=0.5)
    >>> decide_memory(memory, MemoryBound(max_ratio=0.6, max_gib=None, max_weight_ratio=None))
    (<Outcome.PASS: 'pass'>, 'peak 0.556 of BF16 <= 0.600 (15.00 of 27.00 GiB), reserved 16.50 GiB')

    Raises:
        MxqError: a bound compares with BF16, which was not measured; or a peak that is none.
    """
    if not (isfinite(memory.peak_gib) and memory.peak_gib > 0):
        raise MxqError(f"the quantized arm's peak memory came out as {memory.peak_gib} GiB")
    of_bf16 = "" if memory.bf16_peak_gib is None else f" ({memory.peak_gib:.2f} of {memory.bf16_peak_gib:.2f} GiB)"
    checks = [
        ("peak {} of BF16", memory.ratio, bound.max_ratio, of_bf16),
        ("peak {} GiB", memory.peak_gib, bound.max_gib, ""),
        ("quantized weights {} of BF16's", memory.weight_ratio, bound.max_weight_ratio, ""),
    ]
    texts, good = [], True
    for text, value, limit, more in checks:
        if limit is not None:
            if value is None:
                raise MxqError("BF16's peak memory was not measured")
            within = value <= limit
            good = good and within
            texts.append(f"{text.format(f'{value:.3f}')} {'<=' if within else '>'} {limit:.3f}{more}")
    texts.append(f"reserved {memory.reserved_gib:.2f} GiB")
    return (Outcome.PASS if good else Outcome.REGRESSION), ", ".join(texts)


def estimate(samples: SpeedSamples, *, alpha: float) -> SpeedEstimate:
    """The speedup of live rounds, or of one session against stored ones.

    Raises:
        SamplesError: too few rounds, or times that are none.
    """
    if samples.mode is SpeedMode.STORED:
        return estimate_stored(samples.sessions, samples.quantized, alpha=alpha)
    enough = len(samples.sessions) >= MIN_SESSIONS
    spread = speedup_process_sd(samples.sessions, alpha=alpha) if enough else DEFAULT_PROCESS_SD
    return estimate_paired(samples.bf16, samples.quantized, alpha=alpha, process_sd=spread)


def decide(samples: SpeedSamples, bound: SpeedBound, *, alpha: float) -> tuple[Outcome, str, SpeedFacts | None]:
    """The verdict of a speed gate, its sentence, and its numbers (None where nothing was timed to the end)."""
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
    """What was found; where it stays within the resolution, what that comes from; where that decides, what helps."""
    sign = {Outcome.REGRESSION: "<", Outcome.PASS: ">=", Outcome.MARGINAL: "about"}.get(outcome, "not told from")
    parts = [
        f"{facts.speedup:.3f}x {sign} {bound.speedup:.3f}x",
        f"[{facts.lower:.3f}, {facts.upper:.3f}] each bound {100 * (1 - facts.alpha):g} %",
        f"BF16 {facts.bf16_seconds:.3f} s -> {facts.quantized_seconds:.3f} s",
        f"n={facts.n}",
    ]
    if facts.process_sd_source != _DEFAULT or outcome in {Outcome.MARGINAL, Outcome.INCONCLUSIVE}:
        parts.append(f"process sd {100 * facts.process_sd:.1f} % ({facts.process_sd_source})")
    if outcome is Outcome.INCONCLUSIVE:
        parts.append(_what_helps(facts, bound))
    return "   ".join(parts)


def _what_helps(facts: SpeedFacts, bound: SpeedBound) -> str:
    """What could decide an inconclusive speedup: it depends on what made its interval wide."""
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
        return "fresh sessions (pytest --mxq-refresh), a quieter machine or --mxq-reference=live may tell"
    if hypot(process, target_half_width(facts.alpha)) <= widest or facts.process_sd_source == _DEFAULT:
        return more_rounds
    return "more rounds cannot tell: fresh sessions (pytest --mxq-refresh) or a quieter machine may"
