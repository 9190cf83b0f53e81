"""What xdist's workers share: a guess of what they collected, until they tell what they planned, and the GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from pytest_mxq.gates.verdict import Cell
from pytest_mxq.planning.gate_param import REFRESH, planned_gate, without_params
from pytest_mxq.planning.plans import GatePlan, Plan, RefreshPlan

if TYPE_CHECKING:
    from pytest_mxq.environment.device import Device
    from pytest_mxq.planning.options import Kinds

REFUSAL = "mxq_refusal"
"""Key of a worker's output: why it may not run what it planned."""


def cells_of(nodeids: Iterable[str], kinds: Kinds) -> list[Cell]:
    """Return the cells of what workers collected, as far as nodeids tell; the workers' own plans replace them."""
    cells = []
    for nodeid in nodeids:
        found = planned_gate(nodeid, formats=kinds.formats.names(), gates=kinds.gates.names())
        if found is not None and found[1].gate != REFRESH:
            planned, param = found
            case = without_params(planned).rpartition("::")[2]
            cells.append(Cell(nodeid=planned, model="", case=case, format=param.format, gate=param.gate))
    return cells


def refuse_shared_gpu(config: pytest.Config, plans: Iterable[Plan], kinds: Kinds, device: Device) -> None:
    """Refuse, in a worker, to time on a GPU that other workers use: they would time each other.

    Raises:
        pytest.UsageError: a gate that needs the device for itself, or a refresh, is planned.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if device.kind != "cuda" or workers == 1:
        return
    for plan in plans:
        if isinstance(plan, RefreshPlan) or (isinstance(plan, GatePlan) and plan.gate.needs.exclusive_device):
            others = ",".join(gate.name for gate in kinds.gates if not gate.needs.exclusive_device)
            text = (
                f"{workers} xdist workers share one GPU, and {plan.cell.nodeid} would time the others' work: run speed "
                f"and memory gates with -n0 or -n1, or leave them out with --mxq-gates={others}"
            )
            output: dict[str, str] = getattr(config, "workeroutput", {})
            output[REFUSAL] = text
            raise pytest.UsageError(text)
