"""Handing the samples of a speed gate to pytest-benchmark: it stores and compares them, and decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_mxq.gates.speedup import SpeedFacts


class VirtualClock:
    """A clock that moves only when a sample is replayed: pytest-benchmark then measures that sample."""

    def __init__(self, seconds: tuple[float, ...]) -> None:
        self._samples = iter(seconds)
        self._now = 0.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self._now

    def advance(self) -> None:
        """Let one sample pass; nothing passes after the last."""
        self._now += next(self._samples, 0.0)


def replay(item: pytest.Item, request: pytest.FixtureRequest, facts: SpeedFacts, group: str) -> None:
    """Give the quantized arm's times to the ``benchmark`` fixture, where pytest-benchmark is there and switched on.

    Not where the test itself asks for the fixture: that one has the real clock already.
    """
    config = item.config
    asked_itself = "benchmark" in getattr(item, "funcargs", {})
    if not config.pluginmanager.has_plugin("benchmark") or config.getoption("benchmark_skip") or asked_itself:
        return
    clock = VirtualClock(facts.samples.quantized)
    own = item.get_closest_marker("benchmark")
    options = {"group": group, **(own.kwargs if own else {}), "timer": clock, "disable_gc": False}
    item.add_marker(pytest.mark.benchmark(**options), append=False)  # the first one counts
    benchmark = request.getfixturevalue("benchmark")
    benchmark.extra_info["mxq"] = {
        "speedup": facts.speedup,
        "lower": facts.lower,
        "upper": facts.upper,
        "bf16_seconds": facts.bf16_seconds,
        "mode": facts.mode,
    }
    benchmark.pedantic(clock.advance, rounds=len(facts.samples.quantized), iterations=1)
