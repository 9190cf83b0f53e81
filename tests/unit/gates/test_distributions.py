"""The two distributions against published tables."""

import math
from statistics import NormalDist

import pytest

from pytest_mxq.errors import MxqError
from pytest_mxq.gates.distributions import signed_rank_critical_value, student_t_quantile

Z95 = NormalDist().inv_cdf(0.95)


# Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, tables of the signed-rank statistic.
@pytest.mark.parametrize(
    ("alpha", "table"),
    [
        (0.05, {4: -1, 5: 0, 6: 2, 7: 3, 8: 5, 9: 8, 10: 10, 12: 17, 16: 35, 20: 60}),
        (0.025, {5: -1, 6: 0, 7: 2, 8: 3, 9: 5, 10: 8, 12: 13, 16: 29, 20: 52}),
        (0.01, {6: -1, 7: 0, 8: 1, 9: 3, 10: 5, 12: 9, 16: 23, 20: 43}),
    ],
)
def test_signed_rank_critical_values_match_the_published_tables(alpha: float, table: dict[int, int]) -> None:
    assert {n: signed_rank_critical_value(n, alpha) for n in table} == table


# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, and Abramowitz and Stegun, table 26.10.
@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [
        (0.95, 1, 6.313752),
        (0.95, 2, 2.919986),
        (0.95, 3, 2.353363),
        (0.95, 4, 2.131847),
        (0.95, 7, 1.894579),
        (0.95, 30, 1.697261),
        (0.975, 4, 2.776445),
        (0.99, 2, 6.964557),
        (0.99, 7, 2.997952),
        (0.995, 1, 63.656741),
        (0.999, 5, 5.893430),
        (0.5, 3, 0.0),
    ],
)
def test_t_quantiles_match_the_published_table(probability: float, degrees: int, expected: float) -> None:
    assert student_t_quantile(probability, degrees) == pytest.approx(expected, abs=1e-6)


def test_the_t_quantile_nears_the_normal_one_with_many_degrees() -> None:
    assert student_t_quantile(0.95, 100_001) == pytest.approx(Z95, abs=3e-5)


@pytest.mark.parametrize(("probability", "degrees"), [(0.49, 4), (1.0, 4), (math.nan, 4), (0.95, 0)])
def test_a_t_quantile_out_of_range_is_refused(probability: float, degrees: int) -> None:
    with pytest.raises(MxqError, match="t quantile of"):
        student_t_quantile(probability, degrees)
