"""What one item is to do: judge a gate, refresh a baseline, skip with a reason, or fail with a fault."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from pytest_mxq.gates.base import AccuracyGate, DriftCheck
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.memory import MemoryBound, MemoryGate
from pytest_mxq.gates.speedup import SpeedBound, SpeedGate
from pytest_mxq.planning.requirements import kernel_caution, most_arms

if TYPE_CHECKING:
    from pytest_mxq.environment.device import Device
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.base import Gate
    from pytest_mxq.gates.verdict import Cell
    from pytest_mxq.planning.case import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePlan:
    """One gate, ready to be judged: an `OutputsPlan`, a `SpeedPlan` or a `MemoryPlan`."""

    cell: Cell
    case: Case
    gate: Gate
    number_format: Format
    emulated: bool

    @property
    def order(self) -> tuple[str, ...]:
        """Parts that building every arm once sorts by: model, weights, format, outputs or compiled calls, case, gate.

        An arm that generates outputs is another one than the compiled one, and its text encoders are elsewhere.
        """
        return self._order("outputs" if isinstance(self.gate, AccuracyGate) else "times")

    @property
    def batch_caution(self) -> str | None:
        """What is known to go wrong with the format at this batch size; None: nothing, or it runs emulated."""
        return None if self.emulated else batch_caution(self.number_format, self.case)

    def _order(self, what: str) -> tuple[str, ...]:
        return (*self._weights, self.cell.format, what, self.cell.case, self.cell.gate)

    @property
    def _weights(self) -> tuple[str, str]:
        return self.cell.model, self.case.settings.revision or ""


class Judged(TypedDict):
    """What the plans of all gates are made with."""

    cell: Cell
    case: Case
    number_format: Format
    emulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsPlan(GatePlan):
    """A gate of generated outputs.

    Attributes:
        drift_checks: how far regenerated BF16 outputs may be from the stored ones.
    """

    gate: AccuracyGate
    bound: Bound
    drift_checks: tuple[DriftCheck, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedPlan(GatePlan):
    """A gate of speed.

    Attributes:
        together: formats that one session times, its own among them; empty: it is timed alone.
    """

    gate: SpeedGate
    bound: SpeedBound
    together: tuple[Format, ...]

    @property
    def order(self) -> tuple[str, ...]:
        """Formats that are timed together follow each other case by case, behind all else of their model."""
        if not self.together:
            return self._order("times")
        return (*self._weights, "sessions", self.cell.case, self.cell.gate, self.cell.format)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan(GatePlan):
    """A gate of peak memory."""

    gate: MemoryGate
    bound: MemoryBound


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshPlan:
    """The BF16 arm of one case, to be measured and stored."""

    cell: Cell
    case: Case

    @property
    def order(self) -> tuple[str, ...]:
        """Order that loads every model once."""
        return self.cell.model, self.case.settings.revision or "", self.cell.format, "", self.cell.case, self.cell.gate

    @property
    def batch_caution(self) -> str | None:
        """What is known to go wrong; a refresh runs BF16 alone."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedPlan:
    """A gate or a refresh that cannot run here.

    Attributes:
        reason: what is lacking, and what would help.
        emulated: whether the format would be emulated here.
        batch_caution: what is known to go wrong at this batch size where it can run.
    """

    cell: Cell
    case: Case
    reason: str
    emulated: bool = False
    batch_caution: str | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """Order among other items."""
        return self.cell.model, "", self.cell.format, "", self.cell.case, self.cell.gate


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidPlan:
    """A test that cannot be gated as it is written.

    Attributes:
        fault: what is wrong with it; raised in its setup.
    """

    cell: Cell
    fault: str

    @property
    def order(self) -> tuple[str, ...]:
        """Order among other items."""
        return self.cell.model, "", self.cell.format, "", self.cell.case, self.cell.gate

    @property
    def batch_caution(self) -> str | None:
        """What is known to go wrong; nothing runs."""
        return None


CallsPlan: TypeAlias = SpeedPlan | MemoryPlan
RunnablePlan: TypeAlias = OutputsPlan | CallsPlan | RefreshPlan
Plan: TypeAlias = RunnablePlan | SkippedPlan | InvalidPlan


def timed_together(plans: Sequence[Plan], device: Device) -> list[Plan]:
    """Return the plans with the formats of each case that one session can time: their arms fit beside each other.

    A model that does not say what it needs is timed format by format.
    """
    sessions: dict[tuple[object, ...], dict[str, Format]] = {}
    for plan in plans:
        if isinstance(plan, SpeedPlan):
            sessions.setdefault(_session(plan), {})[plan.number_format.name] = plan.number_format
    return [
        replace(plan, together=tuple(sessions[_session(plan)].values()))
        if isinstance(plan, SpeedPlan) and 1 < len(sessions[_session(plan)]) <= most_arms(plan.case, device)
        else plan
        for plan in plans
    ]


def _session(plan: SpeedPlan) -> tuple[object, ...]:
    return (*plan.case.key, plan.gate.name)


def batch_caution(number_format: Format, case: Case) -> str | None:
    """Return what is known to go wrong with a format at a case's batch size; None: nothing."""
    caution, size = number_format.batch_caution, case.settings.batch_size
    if caution is None or size < caution.from_size:
        return None
    return f"{number_format.name} at batch size {size}: {caution.said_of(case.recipe.name)}"


def batch_cautions(plans: Iterable[Plan]) -> list[str]:
    """Return what is known to go wrong with some of the plans, once a caution, with the tests that it concerns."""
    tests: dict[str, list[str]] = {}
    for plan in plans:
        if plan.batch_caution:
            tests.setdefault(plan.batch_caution, []).append(plan.cell.nodeid)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {caution}"
        for caution, names in tests.items()
    ]


def kernel_cautions(plans: Iterable[Plan], device: Device) -> list[str]:
    """Return the caution of `kernel_caution` for what is going to run natively, where there is one."""
    native = [plan for plan in plans if isinstance(plan, GatePlan) and not plan.emulated]
    formats = {plan.number_format.name: plan.number_format for plan in native}
    caution = kernel_caution(formats.values(), device)
    return [caution] if caution else []
