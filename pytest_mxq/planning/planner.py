"""From markers to plans: parametrization, cases, bounds, and the faults of a test; nothing is built."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mxq.baselines.paths import case_file_name, check_case_name, model_folder_name
from pytest_mxq.baselines.strict_json import shown
from pytest_mxq.errors import CaseFaultError, MxqError
from pytest_mxq.fixtures import NO_FORMATS
from pytest_mxq.gates.base import AccuracyGate, CallLength, DriftCheck, Gate
from pytest_mxq.gates.extrapolation import SHORT_LENGTHS
from pytest_mxq.gates.memory import MemoryGate
from pytest_mxq.gates.speedup import SpeedBound, SpeedGate
from pytest_mxq.gates.verdict import Cell
from pytest_mxq.planning import gate_param
from pytest_mxq.planning.case import Case, stated_prompts
from pytest_mxq.planning.gate_param import EMPTY_PARAM, REFRESH_PARAM, GateParam, without_params
from pytest_mxq.planning.markers import (
    PIPELINE,
    batch_sizes_of,
    check_markers,
    check_own_markers,
    check_seen,
    check_test,
    closest,
    gates_of,
    read_marker,
)
from pytest_mxq.planning.plans import (
    InvalidPlan,
    Judged,
    MemoryPlan,
    OutputsPlan,
    Plan,
    RefreshPlan,
    SkippedPlan,
    SpeedPlan,
    batch_caution,
)
from pytest_mxq.planning.plugin_params import plugin_ids, without_ids
from pytest_mxq.planning.requirements import Emulation, Use, gate_refusal, memory_refusal, runs_natively
from pytest_mxq.planning.settings import Settings, read_case_settings

if TYPE_CHECKING:
    import pytest

    from pytest_mxq.environment.device import Device
    from pytest_mxq.models import Recipe
    from pytest_mxq.planning.options import Kinds

RANDOM_SUFFIX = "-random-weights"  # such a case has a baseline of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Reads the markers of tests for one run.

    Attributes:
        root: folder that a model's relative folder is looked for in.
    """

    settings: Settings
    kinds: Kinds
    device: Device
    root: Path

    def params(self, metafunc: pytest.Metafunc) -> list[GateParam]:
        """Return the items that a test becomes: batch sizes x formats x gates (one a batch size at refresh)."""
        sizes = batch_sizes_of(metafunc.definition)
        if self.settings.refresh:
            return [GateParam(format=REFRESH_PARAM.format, gate=REFRESH_PARAM.gate, batch_size=size) for size in sizes]
        if not self.settings.formats:
            return [GateParam(format="any", gate=gate_param.NO_FORMATS)]
        gates = gates_of(metafunc.definition, self.kinds.gates)
        if not gates:
            return [GateParam(format="any", gate=gate_param.NO_GATE)]  # a fault that must be seen
        kept = [name for name in self.settings.gates or gates if name in gates]
        cells = product(sizes, self.settings.formats, kept)
        params = [GateParam(format=name, gate=gate, batch_size=size, seen=gates) for size, name, gate in cells]
        return params or [EMPTY_PARAM]

    def plan(self, item: pytest.Function, param: GateParam) -> Plan | None:
        """Return the plan of an item; None if it is not to be gated in this run."""
        if param == EMPTY_PARAM:
            return None
        if param.gate in self.kinds.gates and closest(item, self.kinds.gates.get(param.gate).marker) is None:
            return None  # its marker stands on another parameter of the test
        cell = Cell(nodeid=item.nodeid, model="", case=_test_name(item, param), format=param.format, gate=param.gate)
        try:
            check_own_markers(item)
            case = self._case(item, param)
        except Exception as error:  # noqa: BLE001  a project's own gate or model may raise anything
            return InvalidPlan(cell=cell, fault=_fault("case", error))
        if self.settings.models and not {case.recipe.name, case.settings.model} & set(self.settings.models):
            return None
        cell = Cell(nodeid=cell.nodeid, model=case.recipe.name, case=case.name, format=cell.format, gate=cell.gate)
        try:
            return self._plan(item, param, cell, case)
        except Exception as error:  # noqa: BLE001  as above
            return InvalidPlan(cell=cell, fault=_fault(f"gate {param.gate!r}", error))

    def _plan(self, item: pytest.Function, param: GateParam, cell: Cell, case: Case) -> Plan:
        check_test(item)
        check_markers(item, self.kinds.gates, self.kinds.formats.names())
        if self.settings.refresh:
            reason = _refresh_refusal(case, self.device)
            if reason is not None:
                return SkippedPlan(cell=cell, case=case, reason=reason)
            return RefreshPlan(cell=cell, case=case)
        if not self.settings.formats:
            return SkippedPlan(cell=cell, case=case, reason=NO_FORMATS)
        check_seen(item, param, self.kinds.gates)
        return self._gate_plan(item, param, cell, case)

    def _gate_plan(self, item: pytest.Function, param: GateParam, cell: Cell, case: Case) -> Plan:
        gate, kind = self.kinds.gates.get(param.gate), self.kinds.formats.get(param.format)
        emulated = not runs_natively(kind, self.device)
        bound: Any = gate.read_bound(read_marker(item, gate, param.format, emulated=emulated))
        if isinstance(bound, SpeedBound):
            bound = replace(bound, steps=_timing(bound, case, self.settings.timing))
        reason = gate_refusal(case, gate, kind, self.device, emulation=Emulation.of(self.settings))
        if reason is not None:
            caution = batch_caution(kind, case)
            return SkippedPlan(cell=cell, case=case, reason=reason, emulated=emulated, batch_caution=caution)
        arm = Judged(cell=cell, case=case, number_format=kind, emulated=emulated)
        if isinstance(gate, SpeedGate):
            return SpeedPlan(**arm, gate=gate, bound=bound, together=())
        if isinstance(gate, MemoryGate):
            return MemoryPlan(**arm, gate=gate, bound=bound)
        checks = _drift_checks(item, gate, self.kinds.gates, param.format, emulated=emulated)
        return OutputsPlan(**arm, gate=gate, bound=bound, drift_checks=tuple(checks))

    def _case(self, item: pytest.Function, param: GateParam) -> Case:
        marker = closest(item, "mxq")
        if marker is None:
            raise CaseFaultError(
                f'a test that uses {PIPELINE} needs the model: @pytest.mark.mxq("demo"); '
                f"models: {', '.join(self.kinds.models.names())}"
            )
        choices = read_case_settings(marker.args, marker.kwargs)
        if param.batch_size is None and len(choices) > 1:
            raise CaseFaultError("a list of batch sizes belongs into a marker of the test itself, not of a parameter")
        settings = next((choice for choice in choices if param.batch_size in {None, choice.batch_size}), choices[0])
        recipe = self._recipe(settings.model)
        recipe.selection(settings.selection)  # an unknown name is a fault of the test
        random = self.settings.random_weights
        name = _test_name(item, param, settings.case) + (RANDOM_SUFFIX if random else "")
        check_case_name(name)
        marked = {marker.name for marker in item.iter_markers()}
        return Case(
            recipe=recipe,
            name=name,
            settings=settings,
            prompts=stated_prompts(settings, recipe),
            random_weights=random,
            is_timed=any(gate.marker in marked and gate.needs.native for gate in self.kinds.gates),
            plugin_ids=tuple(plugin_ids(item)),
        )

    def _recipe(self, model: str) -> Recipe:
        try:
            return self.kinds.models.find(model, beside=self.root)
        except (OSError, ValueError) as error:  # of the file system: too long, or a null character
            why = getattr(error, "strerror", None) or str(error)
            raise CaseFaultError(f"model name {shown(model)} is not allowed: {why}") from None
        except MxqError as error:
            raise CaseFaultError(str(error).replace(repr(model), shown(model))) from None


def _fault(what: str, error: Exception) -> str:
    return str(error) if isinstance(error, MxqError) else f"{what}: {type(error).__name__}: {error}"


def _timing(bound: SpeedBound, case: Case, asked: CallLength) -> CallLength:
    """Return how long the calls of a speed gate are: as its marker states, or else as the run's options ask.

    Raises:
        CaseFaultError: the marker states short ones, and the model's number of steps cannot be set.
    """
    can_be_short = (case.usual_steps or 0) > SHORT_LENGTHS[1]
    if bound.steps is CallLength.SHORT and not can_be_short:
        raise CaseFaultError(
            f"mxq_speedup(steps='short'): model {case.recipe.name!r} does not say which argument sets its number of "
            f"steps, or takes {SHORT_LENGTHS[1]} at most; state it, Recipe(steps='num_inference_steps'), or leave "
            "steps= out"
        )
    return (bound.steps or asked) if can_be_short else CallLength.FULL


def _drift_checks(
    item: pytest.Function, judged: AccuracyGate, gates: Iterable[Gate], format_name: str, *, emulated: bool
) -> Iterator[DriftCheck]:
    """Yield how a test's reference drift is told: by the gates that tell every test's, and by the judged one itself."""
    for gate in gates:
        if not isinstance(gate, AccuracyGate) or (gate is not judged and gate.usual_drift_limit is None):
            continue
        is_stated = closest(item, gate.marker) is not None
        stated = read_marker(item, gate, format_name, emulated=emulated) if is_stated else None
        check = gate.drift_check(None if stated is None else gate.read_bound(stated))
        if check is not None:
            yield check


def _refresh_refusal(case: Case, device: Device) -> str | None:
    """Return why a case cannot be refreshed here, or has nothing to store; None: it can, and it has."""
    if case.random_weights and case.recipe.random is None:
        return f"--mxq-weights=random: model {case.recipe.name!r} cannot be built with random weights"
    if case.random_weights and not case.is_timed:
        return "--mxq-weights=random: the test has no gate of speed or memory"
    return memory_refusal(case, device, Use.BF16)


def owner_of(item: pytest.Function, param: GateParam) -> str:
    """Return the test that owns an item's case: its nodeid without the gate and without other plugins' parameters."""
    return f"{without_params(item.nodeid)}[{_user_id(item, param)}]{param.batch_size or ''}"


def find_double_cases(plans: Collection[tuple[Plan, str]]) -> dict[str, str]:
    """Return the faults of tests that share a case, and so a baseline, with another test: nodeid -> what is wrong.

    Ids of parameters that join to one text, "a-b" and "c" or "a" and "b-c", give two items one nodeid.

    Args:
        plans: each plan, with the test that owns its case (`owner_of`).
    """
    owners: dict[tuple[str, str], dict[str, list[str]]] = {}
    for plan, test in plans:
        if not isinstance(plan, InvalidPlan):
            key = model_folder_name(plan.case.recipe.name), case_file_name(plan.case.name)
            owners.setdefault(key, {}).setdefault(test, []).append(plan.cell.nodeid)
    counts = Counter(plan.cell.nodeid for plan, _ in plans)
    faults = {
        nodeid: f"{count} items are {nodeid}; give the parameters ids=... that do not join to the same text"
        for nodeid, count in counts.items()
        if count > 1
    }
    for (model, case), tests in owners.items():
        if len(tests) > 1:
            places = " and ".join(nodeids[0] for nodeids in tests.values())
            text = f"two tests share the case {case!r} of model {model!r}: {places}; give one of them mxq(case=...)"
            faults.update({nodeid: text for nodeids in tests.values() for nodeid in nodeids})
    return faults


def _test_name(item: pytest.Function, param: GateParam, stated: str | None = None) -> str:
    """Return what ``mxq(case=)`` states or ``[Class.]function``, then the user's parameters and the batch size."""
    user = _user_id(item, param)
    batch = "" if param.batch_size is None else f"b{param.batch_size}"
    owner = f"{item.cls.__name__}." if item.cls is not None else ""
    name = "-".join(part for part in (stated or f"{owner}{item.originalname}", user, batch) if part)
    allowed = re.sub(r"[^\w.\[\]=+, -]", "_", name)
    # Two ids that differ in such signs alone are two cases.
    return name if allowed == name else f"{allowed}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _user_id(item: pytest.Function, param: GateParam) -> str:
    """Return the ids of the parameters that are the user's own."""
    callspec = getattr(item, "callspec", None)
    return without_ids(param.user_id(callspec.id), plugin_ids(item)) if callspec is not None else ""
