"""Plans of gates, whose bounds do not matter."""

from __future__ import annotations

from typing import Any, Unpack

from pytest_mxq.gates.memory import MemoryGate
from pytest_mxq.gates.speedup import SpeedGate
from pytest_mxq.planning.plans import CallsPlan, Judged, MemoryPlan, OutputsPlan, SpeedPlan


def plan_of(gate: Any, **judged: Unpack[Judged]) -> OutputsPlan | CallsPlan:
    """Return the plan of a gate, of its kind."""
    bound: Any = None
    if isinstance(gate, SpeedGate):
        return SpeedPlan(**judged, gate=gate, bound=bound, together=())
    if isinstance(gate, MemoryGate):
        return MemoryPlan(**judged, gate=gate, bound=bound)
    return OutputsPlan(**judged, gate=gate, bound=bound, drift_checks=())
