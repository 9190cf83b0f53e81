"""What was measured of whole calls, as a benchmark hands it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pytest_mxq.baselines.work import ObservedRun
from pytest_mxq.gates.memory import PeakMemory

Measured: TypeAlias = tuple[PeakMemory, ObservedRun]
"""Peak memory of one call, and what it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingConditions:
    """What the timings of a case must have in common beside hardware and software.

    Attributes:
        execution: how its arms run while they are timed.
        inductor: a name of Inductor's configuration.
    """

    execution: str
    inductor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedBf16:
    """BF16 timed for a stored session, and what was observed of it.

    Attributes:
        seconds: of each call.
        peak_gib: peak memory of one call, GiB; None where the device does not tell.
        conditions: under which it was timed.
        observed: what was observed.
        short: peak of a short call, and what it did; None where it was not measured.
        predicted: seconds of a call by the line through short calls; None where they were not timed.
        short_seconds: of each of the shorter ones of these; empty where they were not timed.
    """

    seconds: tuple[float, ...]
    peak_gib: float | None
    conditions: TimingConditions
    observed: ObservedRun
    short: Measured | None
    predicted: float | None
    short_seconds: tuple[float, ...]
