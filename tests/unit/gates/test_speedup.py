"""What a speed verdict says of its bounds, of what a process is worth, and of what would decide it."""

import math
from collections.abc import Sequence

import pytest

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.speed_statistics import SpeedMode, SpeedRule
from pytest_mxq.gates.speedup import SpeedBound, SpeedFacts, SpeedSamples, decide_speedup

# Three BF16 sessions whose medians have the sds 0.2 % and 0.82 % on the log scale: a process sd of a speedup of the
# default 1 %, or of 0.82 % sqrt(2) 2.92 / 1.645 = 2.1 %.
STEADY = tuple((2.0 * math.exp(0.002 * step),) * 8 for step in (-1, 0, 1))
RESTLESS = tuple((2.0 * math.exp(0.0082 * step),) * 8 for step in (-1, 0, 1))
NEAR, FAR = 1.40, 1.30


def decided(
    sessions: Sequence[Sequence[float]] = (),
    *,
    bound: float = NEAR,
    noise: float = 0.0,
    rule: SpeedRule = SpeedRule.NOT_BELOW,
    alpha: float = 0.05,
    mode: SpeedMode = SpeedMode.LIVE,
) -> tuple[Outcome, str, SpeedFacts]:
    """The verdict of a speedup of 1.405 in twenty rounds."""
    quantized = tuple(2.0 / 1.405 * math.exp(noise * (index - 9.5) / 9.5) for index in range(20))
    samples = SpeedSamples(
        mode=mode,
        bf16=(2.0,) * 20 if mode is SpeedMode.LIVE else (),
        quantized=quantized,
        sessions=tuple(tuple(session) for session in sessions),
    )
    outcome, sentence, facts = decide_speedup(samples, SpeedBound(speedup=bound, rule=rule), alpha=alpha)
    assert facts is not None
    return outcome, sentence, facts


@pytest.mark.parametrize(
    ("alpha", "said"), [(0.05, "95 %"), (0.025, "97.5 %"), (0.01, "99 %"), (0.004, "99.6 %"), (0.0001, "99.99 %")]
)
def test_a_sentence_names_the_level_of_each_bound(alpha: float, said: str) -> None:
    _, sentence, facts = decided(bound=FAR, alpha=alpha)
    assert f"[{facts.lower:.3f}, {facts.upper:.3f}] each bound {said}   BF16" in sentence


def test_a_clear_pass_by_the_default_process_sd_is_told_as_ever() -> None:
    outcome, sentence, facts = decided(STEADY, bound=FAR)
    assert outcome is Outcome.PASS
    assert sentence == "1.405x >= 1.300x   [1.382, 1.428] each bound 95 %   BF16 2.000 s -> 1.423 s   n=20"
    assert (facts.process_sd, facts.process_sd_source) == (0.01, "default")


def test_a_process_sd_of_stored_sessions_is_named_whatever_the_verdict() -> None:
    outcome, sentence, facts = decided(RESTLESS, bound=FAR)
    assert outcome is Outcome.PASS
    assert sentence.endswith("n=20   process sd 2.1 % (from 3 stored sessions)")
    assert facts.process_sd == pytest.approx(0.0206, abs=1e-4)
    assert facts.process_sd_source == "from 3 stored sessions"


def test_a_marginal_pass_names_the_process_sd() -> None:
    outcome, sentence, _ = decided()
    assert outcome is Outcome.MARGINAL
    assert sentence.endswith("n=20   process sd 1.0 % (default)")


HELP = {
    "sessions": "more rounds cannot tell: fresh sessions (--mxq-refresh) or a quieter machine may",
    "rounds": "more rounds (max_rounds=, max_seconds=) or a quieter machine may tell",
    "alpha": "at alpha 0.004 nothing can tell so little: a larger --mxq-alpha may",
    "stored": "fresh sessions (--mxq-refresh), a quieter machine or --mxq-reference=live may tell",
    "rule": 'rule="proven" wants both bounds at or above it',
}


@pytest.mark.parametrize(
    ("verdict", "process", "helps"),
    [
        (decided(RESTLESS), "2.1 % (from 3 stored sessions)", "sessions"),
        (decided(noise=0.06), "1.0 % (default)", "rounds"),
        (decided(noise=0.06, alpha=0.01), "1.0 % (default)", "rounds"),
        (decided(alpha=0.004), "1.0 % (default)", "alpha"),
        (decided(STEADY, mode=SpeedMode.STORED, alpha=0.004), "1.0 % (default)", "alpha"),
        (decided(bound=1.35, noise=0.2, alpha=0.004), "1.0 % (default)", "rounds"),
        (decided(RESTLESS, bound=1.34, noise=0.2), "2.1 % (from 3 stored sessions)", "rounds"),
        (decided(RESTLESS, mode=SpeedMode.STORED), "0.8 % (from 3 stored sessions)", "stored"),
        (decided(STEADY, mode=SpeedMode.STORED, noise=0.06), "1.0 % (default)", "stored"),
        (decided(rule=SpeedRule.PROVEN), "1.0 % (default)", "rule"),
    ],
)
def test_an_inconclusive_verdict_says_what_it_comes_from_and_what_helps(
    verdict: tuple[Outcome, str, SpeedFacts], process: str, helps: str
) -> None:
    outcome, sentence, _ = verdict
    assert outcome is Outcome.INCONCLUSIVE
    assert sentence.endswith(f"n=20   process sd {process}   {HELP[helps]}")
