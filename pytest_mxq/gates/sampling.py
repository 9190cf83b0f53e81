"""In which order the arms of paired rounds run, and when sampling ends."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from pytest_mxq.gates.speed_statistics import (
    MAX_ROUNDS,
    MAX_SECONDS,
    hodges_lehmann,
    log_ratios,
    minimum_rounds,
    target_half_width,
)

MIN_WARM_UP = 2
"""Calls of an arm before the first timed one, at least."""


class RoundOrder(Enum):
    """Which arm runs first in a paired round."""

    BF16_FIRST = "bf16-first"
    QUANTIZED_FIRST = "quantized-first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How long paired rounds are sampled.

    Attributes:
        alpha: One-sided level of the bounds that the samples are for.
        max_rounds: Rounds after which sampling ends, however wide the interval still is; even, for whole ABBA blocks.
        max_seconds: Seconds after which it ends, once there are enough rounds for an interval at all.
    """

    alpha: float
    max_rounds: int = MAX_ROUNDS
    max_seconds: float = MAX_SECONDS


def abba_order(rounds: int, seed: int) -> tuple[RoundOrder, ...]:
    """Which arm runs first in each round: alternating, from a start generated with the recorded seed.

    More rounds of the same seed go on where fewer ended, so sampling may grow.

    >>> [order.value for order in abba_order(3, seed=0)]
    ['quantized-first', 'bf16-first', 'quantized-first']
    """
    first, second = random.Random(seed).sample(list(RoundOrder), 2)
    return tuple(second if index % 2 else first for index in range(rounds))


def enough(
    bf16_seconds: Sequence[float], quantized_seconds: Sequence[float], sampling: Sampling, *, elapsed_seconds: float
) -> bool:
    """Whether paired sampling may end: on the interval's width, the rounds or the time, never on the verdict.

    Call after every second round, so that ABBA blocks stay whole.

    >>> bf16 = [2.0, 2.01, 1.99, 2.0, 2.01, 1.99]
    >>> enough(bf16, [1.0] * 6, Sampling(alpha=0.05), elapsed_seconds=12.0)
    True
    >>> enough(bf16[:4], [1.0] * 4, Sampling(alpha=0.05), elapsed_seconds=400.0)
    False
    """
    differences = log_ratios(bf16_seconds, quantized_seconds)
    if len(differences) < minimum_rounds(sampling.alpha):
        return False
    if len(differences) >= sampling.max_rounds or elapsed_seconds >= sampling.max_seconds:
        return True
    return hodges_lehmann(differences, alpha=sampling.alpha).half_width <= target_half_width(sampling.alpha)
