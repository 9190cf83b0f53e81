"""What a controller knows of xdist's workers: the cells they collected, and the GPU that they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from pytest_mxq.gates.verdict import Cell
from pytest_mxq.planning.gate_param import REFRESH, GateParam, planned_nodeid

if TYPE_CHECKING:
    from pytest_mxq.planning.options import Kinds


def cells_of(nodeids: Iterable[str], kinds: Kinds) -> list[Cell]:
    """Return the cells of what workers collected, as far as nodeids tell; the workers' own plans replace them."""
    cells = []
    for nodeid in nodeids:
        param = GateParam.from_nodeid(nodeid, formats=kinds.formats.names(), gates=kinds.gates.names())
        if param is not None and param.gate != REFRESH:
            case = nodeid.partition("[")[0].rpartition("::")[2]
            planned = planned_nodeid(nodeid)
            cells.append(Cell(nodeid=planned, model="", case=case, format=param.format, gate=param.gate))
    return cells


def refuse_shared_gpu(nodeids: Iterable[str], kinds: Kinds, workers: int) -> None:
    """Refuse to time on a GPU that several workers use: they would time each other.

    Raises:
        pytest.UsageError: a gate that needs the device for itself, or a refresh, was collected.
    """
    alone = {REFRESH, *(gate.name for gate in kinds.gates if gate.needs.exclusive_device)}
    for nodeid in nodeids:
        param = GateParam.from_nodeid(nodeid, formats=kinds.formats.names(), gates=kinds.gates.names())
        if param is not None and param.gate in alone:
            others = ",".join(gate.name for gate in kinds.gates if not gate.needs.exclusive_device)
            raise pytest.UsageError(
                f"{workers} xdist workers share one GPU, and {nodeid} would time the others' work: run speed and "
                f"memory gates with -n0 or -n1, or leave them out with --mxq-gates={others}"
            )
