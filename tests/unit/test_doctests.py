"""The examples in the docstrings of the pure modules hold."""

import doctest
import importlib

import pytest

MODULES = (
    "gates.accuracy",
    "gates.bounds",
    "gates.distributions",
    "gates.performance",
    "gates.speed_statistics",
    "doctor.checks",
    "reports.summary",
    "planning.settings",
)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"pytest_mxq.{name}"))
    assert results.attempted > 0
    assert results.failed == 0
