"""The examples in the docstrings of the pure modules hold."""

import doctest
import importlib

import pytest

MODULES = (
    "baselines.paths",
    "baselines.strict_json",
    "doctor.checks",
    "environment.device",
    "environment.secrets",
    "gates.base",
    "gates.distributions",
    "gates.lpips",
    "gates.memory",
    "gates.sampling",
    "gates.scores",
    "gates.speed_statistics",
    "metrics.lpips_map",
    "pipelines.hub",
    "planning.settings",
    "reports.charts",
    "reports.failure",
    "reports.html",
    "reports.page_cells",
    "reports.proposals",
)


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"pytest_mxq.{name}"))
    assert results.attempted > 0
    assert results.failed == 0
