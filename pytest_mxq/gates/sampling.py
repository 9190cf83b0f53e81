"""In which order the arms of paired rounds run, and when sampling ends."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

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


Order: TypeAlias = tuple[int, ...]
"""The arms of a round in the order in which they run; BF16 is arm 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How long paired rounds are sampled.

    Attributes:
        alpha: One-sided level of the bounds that the samples are for.
        max_rounds: Rounds after which sampling ends, however wide the interval still is; even, for whole ABBA blocks.
        max_seconds: Seconds after which it ends, once there are enough rounds for an interval at all.
        lengths: Steps of two short calls, from which the workload's are extrapolated; None: calls are whole.
        model_error: Half-width that this adds to the interval; the rounds have to make up for it.
    """

    alpha: float
    max_rounds: int = MAX_ROUNDS
    max_seconds: float = MAX_SECONDS
    lengths: tuple[int, int] | None = None
    model_error: float = 0.0


def round_orders(arms: int, rounds: int, seed: int) -> tuple[Order, ...]:
    """Return in which order the arms run in each round: at random by the recorded seed, then the same backwards.

    Of each two rounds a steady drift of the machine cancels out. Two arms alternate as ABBA; of more, every second
    round moves all places on by one, so that each arm comes to each place. More rounds of the same seed go on where
    fewer ended, so sampling may grow.

    >>> round_orders(2, 3, seed=0)
    ((1, 0), (0, 1), (1, 0))
    >>> round_orders(3, 4, seed=0)
    ((1, 2, 0), (0, 2, 1), (2, 0, 1), (1, 0, 2))
    """
    first = random.Random(seed).sample(range(arms), arms)
    orders = []
    for index in range(rounds):
        moved = (index // 2) % arms if arms > 2 else 0
        order = first[moved:] + first[:moved]
        orders.append(tuple(reversed(order) if index % 2 else order))
    return tuple(orders)


def enough(
    bf16_seconds: Sequence[float], quantized_seconds: Sequence[float], sampling: Sampling, *, elapsed_seconds: float
) -> bool:
    """Whether paired sampling may end: on the interval's width, the rounds or the time, never on the verdict.

    Call after every second round, so that blocks of a round and its reverse stay whole.

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
    target = target_half_width(sampling.alpha, sampling.model_error)
    return hodges_lehmann(differences, alpha=sampling.alpha).half_width <= target
