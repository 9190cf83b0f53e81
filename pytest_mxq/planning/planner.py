"""From markers to planned gates: parametrization, cases, bounds, and the faults of a test; nothing is built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mxq.baselines.paths import case_file_name, check_case_name, model_folder_name
from pytest_mxq.errors import CaseFaultError, MxqError
from pytest_mxq.fixtures import NO_FORMATS
from pytest_mxq.gates.bounds import GATES, AnyBound, GateKind, check_mapping_keys, read_any_bound, read_bound
from pytest_mxq.gates.verdict import Cell
from pytest_mxq.planning.case import Case, Plan, refusal, refusal_of_emulation, runs_natively, stated_prompts
from pytest_mxq.planning.requirements import Use, insufficient_memory
from pytest_mxq.planning.settings import Settings, read_case_settings
from pytest_mxq.registry import check_name

if TYPE_CHECKING:
    import pytest

    from pytest_mxq.environment.device import Device
    from pytest_mxq.formats import Format, FormatRegistry
    from pytest_mxq.models import ModelRegistry

PIPELINE, PROMPT = "mxq_pipeline", "mxq_prompt"
RANDOM_SUFFIX = "-random-weights"  # such a case has a baseline of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The parameter of one item: which format and gate it is, and which batch size of a list.

    A slot without a format is a placeholder of a test that is left with no gate; it is deselected.

    Attributes:
        seen: the gates that were seen when the test was parametrized; a marker that comes later would gate nothing.
    """

    format: str = ""
    gate: str = ""
    batch_size: int | None = None
    seen: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The item's id: "nvfp4-lpips", "b4-nvfp4-lpips", "bf16-refresh"."""
        head = "" if self.batch_size is None else f"b{self.batch_size}-"
        return f"{head}{self.format}-{self.gate}" if self.format else "nothing"


REFRESH = Slot(format="bf16", gate="refresh")
UNGATED = Slot(format="any", gate="no-gate")  # a test without a gate is a fault that must be seen
WITHOUT_FORMATS = Slot(format="any", gate="no-formats")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Reads the markers of tests for one run."""

    settings: Settings
    formats: FormatRegistry
    models: ModelRegistry
    device: Device
    beside: Path

    def slots(self, metafunc: pytest.Metafunc) -> list[Slot]:
        """The items that a test becomes: batch sizes x formats x gates (one a batch size at refresh)."""
        sizes = _batch_sizes(metafunc.definition)
        if self.settings.refresh:
            return [Slot(format=REFRESH.format, gate=REFRESH.gate, batch_size=size) for size in sizes]
        if not self.settings.formats:
            return [WITHOUT_FORMATS]
        gates = tuple(_gate_names(metafunc.definition))
        if not gates:
            return [UNGATED]
        kept = [name for name in gates if not self.settings.gates or name in self.settings.gates]
        cells = product(sizes, self.settings.formats, kept)
        return [Slot(format=name, gate=gate, batch_size=size, seen=gates) for size, name, gate in cells] or [Slot()]

    def plan(self, item: pytest.Function, slot: Slot) -> Plan | None:
        """The plan of an item; None if it is not to be gated in this run."""
        marked = _marker(item, f"mxq_{slot.gate}") if slot.gate in GATES else None
        if not slot.format or (slot.gate in GATES and marked is None):
            return None  # this one's marker stands on another parameter of the test
        cell = Cell(nodeid=item.nodeid, model="", case=_test_name(item, slot), format=slot.format, gate=slot.gate)
        try:
            return self._read(item, slot, cell)
        except MxqError as error:
            return Plan(cell=cell, fault=str(error))

    def _read(self, item: pytest.Function, slot: Slot, cell: Cell) -> Plan | None:
        case = self._case(item, slot)
        if self.settings.models and not {case.recipe.name, case.settings.model} & set(self.settings.models):
            return None
        cell = Cell(nodeid=cell.nodeid, model=case.recipe.name, case=case.name, format=cell.format, gate=cell.gate)
        try:
            return self._gate(item, slot, cell, case)
        except MxqError as error:
            return Plan(cell=cell, case=case, fault=str(error))

    def _gate(self, item: pytest.Function, slot: Slot, cell: Cell, case: Case) -> Plan:
        _check_test(item)
        _check_markers(item, self.formats.names())
        if self.settings.refresh:
            return Plan(cell=cell, case=case, skip=_refresh_skip(case, self.device))
        if not self.settings.formats:
            return Plan(cell=cell, skip=NO_FORMATS)
        _check_seen(item, slot)
        number_format = self.formats.get(slot.format)
        emulated = not runs_natively(number_format, self.device)
        kind = GATES[slot.gate]
        skip = self._skip(case, kind, number_format, emulated=emulated)
        return Plan(
            cell=cell,
            case=case,
            kind=kind,
            number_format=number_format,
            bound=_bound(item, kind, slot.format, emulated=emulated),
            emulated=emulated,
            drift_limit=_drift_limit(item, slot.format, emulated=emulated) if kind.family == "images" else 0.02,
            skip=skip,
        )

    def _skip(self, case: Case, kind: GateKind, number_format: Format, *, emulated: bool) -> str:
        """Why a gate does not run here; empty: it does."""
        if case.random_weights and case.recipe.random is None:
            return f"--mxq-weights=random: model {case.recipe.name!r} cannot be built with random weights"
        if kind.family == "images" and case.random_weights:
            return "--mxq-weights=random: what random weights generate means nothing; speed and memory gates alone run"
        if kind.family == "images":
            incapable = refusal(number_format, self.device, emulate=self.settings.emulate) if emulated else ""
        else:
            incapable = refusal_of_emulation(number_format, self.device) if emulated else ""
        return incapable or insufficient_memory(case, self.device, Use.of(kind, emulated=emulated))

    def _case(self, item: pytest.Function, slot: Slot) -> Case:
        marker = _marker(item, "mxq")
        if marker is None:
            raise CaseFaultError(
                f'a test that uses {PIPELINE} needs the model: @pytest.mark.mxq("demo"); '
                f"models: {', '.join(self.models.names())}"
            )
        choices = read_case_settings(marker.args, marker.kwargs)
        if slot.batch_size is None and len(choices) > 1:
            raise CaseFaultError("a list of batch sizes belongs into a marker of the test itself, not of a parameter")
        settings = next((choice for choice in choices if slot.batch_size in {None, choice.batch_size}), choices[0])
        recipe = self.models.find(settings.model, beside=self.beside)
        recipe.selection(settings.selection)  # an unknown name is a fault of the test
        random = self.settings.random_weights
        name = _test_name(item, slot, settings.case) + (RANDOM_SUFFIX if random else "")
        check_case_name(name)
        return Case(
            recipe=recipe,
            name=name,
            settings=settings,
            prompts=stated_prompts(settings, recipe),
            random_weights=random,
            is_timed=any(_marker(item, k.marker) for k in GATES.values() if k.family != "images"),
        )


def _refresh_skip(case: Case, device: Device) -> str:
    """Why a case cannot be refreshed here, or has nothing to store with random weights; empty: it can, and it has."""
    if case.random_weights and case.recipe.random is None:
        return f"--mxq-weights=random: model {case.recipe.name!r} cannot be built with random weights"
    if case.random_weights and not case.is_timed:
        return "--mxq-weights=random: the test has no gate of speed or memory"
    if case.recipe.generates_video and not case.random_weights and find_spec("av") is None:
        return f"model {case.recipe.name!r} makes videos, which PyAV stores: pip install 'pytest-mxq[video]'"
    return insufficient_memory(case, device, Use.BF16)


def find_double_cases(plans: Iterable[Plan]) -> dict[str, str]:
    """Faults of tests that share a case, and so a baseline, with another test: nodeid -> what is wrong."""
    owners: dict[tuple[str, str], dict[str, list[str]]] = {}
    for plan in plans:
        if plan.case is not None:
            test = plan.cell.nodeid.replace(f"{plan.cell.format}-{plan.cell.gate}]", "")
            key = model_folder_name(plan.case.recipe.name), case_file_name(plan.case.name)
            owners.setdefault(key, {}).setdefault(test, []).append(plan.cell.nodeid)
    faults = {}
    for (model, case), tests in owners.items():
        if len(tests) > 1:
            places = " and ".join(nodeids[0] for nodeids in tests.values())
            text = f"two tests share the case {case!r} of model {model!r}: {places}; give one of them mxq(case=...)"
            faults.update({nodeid: text for nodeids in tests.values() for nodeid in nodeids})
    return faults


def is_gate_test(item: pytest.Item) -> bool:
    """Whether an item asks for the gated pipeline."""
    return PIPELINE in getattr(item, "fixturenames", ())


def stray_marker(item: pytest.Item) -> str:
    """The fault of a test with a gate marker that does not use the pipeline: its marker would gate nothing."""
    for marker in item.iter_markers():
        if marker.name == "mxq" or marker.name.startswith("mxq_"):
            return f"the marker {marker.name} gates nothing: the test does not use the fixture {PIPELINE}"
    return ""


def _marker(item: pytest.Item, name: str) -> pytest.Mark | None:
    """The marker that counts: a parameter's own before the function's, the function's before the class's."""
    own = [marker for marker in item.own_markers if marker.name == name]
    return own[-1] if own else item.get_closest_marker(name)


def _gate_names(definition: pytest.Function) -> Iterator[str]:
    """Gates of a test, in the registry's order: of its markers and of its parameters' markers."""
    marked = {marker.name for marker in definition.iter_markers()} | set(_parameter_marks(definition))
    return (name for name, kind in GATES.items() if kind.marker in marked)


def _parameter_marks(definition: pytest.Function) -> Iterator[str]:
    for marker in definition.iter_markers("parametrize"):
        values = marker.args[1] if len(marker.args) > 1 else marker.kwargs.get("argvalues", ())
        for value in values if isinstance(values, Collection) else ():
            yield from (mark.name for mark in getattr(value, "marks", ()))


def _batch_sizes(definition: pytest.Function) -> list[int | None]:
    marker = _marker(definition, "mxq")
    stated = marker.kwargs.get("batch_size") if marker else None
    if marker is None or not isinstance(stated, list | tuple):
        return [None]
    try:
        return [choice.batch_size for choice in read_case_settings(marker.args, marker.kwargs)]
    except MxqError:
        return [None]  # raised again, as the test's fault, when its items are planned


def _check_markers(item: pytest.Function, formats: tuple[str, ...]) -> None:
    known = {"mxq", *(kind.marker for kind in GATES.values())}
    gates = 0
    for marker in item.iter_markers():
        if marker.name.startswith("mxq"):
            try:
                check_name("marker", marker.name, sorted(known))
            except MxqError as error:
                raise CaseFaultError(str(error)) from None
        if marker.name in known - {"mxq"}:
            gates += 1
            check_mapping_keys(GATES[marker.name.removeprefix("mxq_")], marker.kwargs, formats)
    if not gates:
        raise CaseFaultError(f"no gate: add one of {', '.join(sorted(known - {'mxq'}))}")


def _check_test(item: pytest.Function) -> None:
    if inspect.iscoroutinefunction(item.obj):
        raise CaseFaultError("an async test cannot be a workload: the plugin calls the body and needs its images")
    if PROMPT not in item.fixturenames:
        raise CaseFaultError(
            f"the test does not use the fixture {PROMPT}: it would generate none of the case's prompts"
        )


def _check_seen(item: pytest.Function, slot: Slot) -> None:
    """A gate marker that was not there when the test was parametrized has no item of its own."""
    for name, kind in GATES.items():
        if _marker(item, kind.marker) is not None and name not in slot.seen:
            raise CaseFaultError(
                f"the marker {kind.marker} comes with a parameter that was not seen in time and would gate nothing; "
                "put it on the test itself, or into a list of pytest.param(..., marks=...) of @pytest.mark.parametrize"
            )


def _bound(item: pytest.Function, kind: GateKind, format_name: str, *, emulated: bool) -> AnyBound:
    marker = _marker(item, kind.marker)
    if marker is None:
        raise CaseFaultError(f"no marker {kind.marker}")
    return read_any_bound(kind, marker.args, marker.kwargs, format_name=format_name, emulated=emulated)


def _drift_limit(item: pytest.Function, format_name: str, *, emulated: bool) -> float:
    """min(0.02, bound / 4): beyond it BF16 itself has moved too far to judge a format by."""
    marker = _marker(item, "mxq_lpips")
    if marker is None:
        return 0.02
    bound = read_bound(GATES["lpips"], marker.args, marker.kwargs, format_name=format_name, emulated=emulated)
    return min(0.02, bound.mean / 4)


def _test_name(item: pytest.Function, slot: Slot, stated: str | None = None) -> str:
    """What ``mxq(case=)`` states or ``[Class.]function``, then the user's parameters and the batch size of a list."""
    inside = item.name.removeprefix(item.originalname).strip("[]")
    own = slot.id if slot.batch_size is None else slot.id.partition("-")[2]
    user = inside.replace(own, "").strip("-").replace("--", "-")
    owner = f"{item.cls.__name__}." if item.cls is not None else ""
    name = stated or f"{owner}{item.originalname}"
    return re.sub(r"[^\w.\[\]=+, -]", "_", f"{name}-{user}") if user else name
