"""The kinds of verdict, and the exception that ends a gate with one of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """The kinds of verdict; every requested cell ends in exactly one of them."""

    PASS = "pass"
    MARGINAL = "marginal"
    REGRESSION = "regression"
    KNOWN_REGRESSION = "known-regression"
    INCONCLUSIVE = "inconclusive"
    STALE = "stale"
    MISSING = "missing"
    NOT_QUANTIZED = "not-quantized"
    DEQUANTIZED = "dequantized"
    DEGENERATE = "degenerate"
    ENVIRONMENT = "environment"
    SKIPPED = "skipped"
    ERROR = "error"
    NOT_RUN = "not-run"
    REFRESHED = "refreshed"

    @property
    def is_good(self) -> bool:
        """Tell whether the gate let the model through (a skip or a known regression is neither good nor bad)."""
        return self in {Outcome.PASS, Outcome.MARGINAL, Outcome.REFRESHED}

    @property
    def is_failure(self) -> bool:
        """Tell whether the test fails."""
        return not self.is_good and self not in {Outcome.SKIPPED, Outcome.KNOWN_REGRESSION}


class Stop(Exception):  # noqa: N818  the end of an evaluation, not an error
    """End a gate before its comparison, with a verdict of its own kind and what was known by then.

    Args:
        outcome: the kind of verdict.
        sentence: why.
        sessions: timing sessions that a refresh must add before the gate can be judged.
        facts: further fields of the verdict, by name.
    """

    def __init__(self, outcome: Outcome, sentence: str, *, sessions: int = 1, **facts: Any) -> None:
        super().__init__(sentence)
        self.outcome = outcome
        self.sessions = sessions
        self.facts = facts
