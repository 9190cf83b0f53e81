"""In which order plans run, and what is known to go wrong with them."""

from plan_examples import plan_of

from pytest_mxq.formats import built_in_formats
from pytest_mxq.gates import built_in_gates
from pytest_mxq.gates.base import AccuracyGate, Gate
from pytest_mxq.gates.verdict import Cell
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.plans import CallsPlan, OutputsPlan
from pytest_mxq.planning.settings import CaseSettings

FORMATS = {number_format.name: number_format for number_format in built_in_formats()}


def plan(case: str, gate: Gate, name: str) -> OutputsPlan | CallsPlan:
    return plan_of(
        gate,
        cell=Cell(nodeid="t", model="demo", case=case, format=name, gate=gate.name),
        case=Case(recipe=DEMO, name=case, settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:2]),
        number_format=FORMATS[name],
        emulated=False,
    )


OUTPUT_GATES = sorted(gate.name for gate in built_in_gates() if isinstance(gate, AccuracyGate))


def test_all_images_of_a_format_come_before_its_times() -> None:
    plans = [
        plan(case, gate, name)
        for name in ("mxfp8", "nvfp4")
        for gate in reversed(built_in_gates())
        for case in ("b", "a")
    ]
    ordered = [one.cell for one in sorted(plans, key=lambda one: one.order)]
    assert [f"{cell.case} {cell.gate}" for cell in ordered if cell.format == "mxfp8"] == [
        *(f"{case} {name}" for case in ("a", "b") for name in OUTPUT_GATES),
        *("a memory", "a speedup", "b memory", "b speedup"),
    ]
    assert [cell.format for cell in ordered] == ["mxfp8"] * (len(plans) // 2) + ["nvfp4"] * (len(plans) // 2)
