"""Two distributions that the standard library lacks: the exact signed-rank one, and Student's t."""

import math
from functools import lru_cache
from itertools import accumulate

from pytest_mxq.errors import MxqError


@lru_cache(maxsize=256)
def signed_rank_critical_value(n: int, alpha: float) -> int:
    """Largest k with `P(W+ <= k) <= alpha` under the exact signed-rank distribution of n differences, or -1.

    The 2^n sign patterns are counted by rank sum: `counts[w]` of the first r ranks gives that of r + 1
    (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., section 3.1).

    >>> [signed_rank_critical_value(n, 0.05) for n in (4, 5, 6, 8, 10, 20)]
    [-1, 0, 2, 5, 10, 60]
    """
    counts = [1]
    for rank in range(1, n + 1):
        unsigned, signed = counts + [0] * rank, [0] * rank + counts
        counts = [a + b for a, b in zip(unsigned, signed, strict=True)]
    return sum(total <= alpha * (1 << n) for total in accumulate(counts)) - 1


@lru_cache(maxsize=64)
def student_t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t for a whole number of degrees of freedom and a probability in [0.5, 1).

    Bisects the closed form of `P(|t| <= x)` in the angle `atan(x / sqrt(degrees))`.

    Raises:
        MxqError: If the probability or the degrees of freedom are out of range.

    >>> round(student_t_quantile(0.95, 4), 4)
    2.1318
    """
    if not 0.5 <= probability < 1 or degrees < 1:
        raise MxqError(f"t quantile of {probability} at {degrees} degrees; allowed: [0.5, 1) and at least 1")
    low, high = 0.0, math.pi / 2
    while low < (angle := (low + high) / 2) < high:
        if _t_central_probability(angle, degrees) < 2 * probability - 1:
            low = angle
        else:
            high = angle
    return math.sqrt(degrees) * math.tan(low)


def _t_central_probability(angle: float, degrees: int) -> float:
    """`P(|t| <= sqrt(degrees) tan angle)`: Abramowitz and Stegun, 26.7.3 (odd degrees) and 26.7.4 (even)."""
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for j in range(2 + odd, degrees + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (j - 1) / j
    series = math.sin(angle) * total
    return 2 / math.pi * (angle + series) if odd else series
