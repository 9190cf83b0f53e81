"""What each plan of a run is going to need: memory, time, and a baseline; nothing is loaded for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_mxq.errors import MxqError
from pytest_mxq.evaluation.preview import Preview, Previewer
from pytest_mxq.gates.base import AccuracyGate
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.planning.costs import CallCounter, call_seconds
from pytest_mxq.planning.plans import GatePlan, InvalidPlan, Plan, RunnablePlan, SkippedPlan, SpeedPlan
from pytest_mxq.planning.requirements import Use, memory_need
from pytest_mxq.reports.plan_table import PlanRow
from pytest_mxq.reports.records import decode_report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_mxq.baselines.manifest import Manifest
    from pytest_mxq.gates.verdict import Cell
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.settings import Settings
    from pytest_mxq.session.runtime import Runtime

# Their time is not that of a gate that runs to its end.
_CUT_SHORT = {Outcome.SKIPPED, Outcome.NOT_RUN, Outcome.ERROR, Outcome.ENVIRONMENT, Outcome.MISSING, Outcome.STALE}


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReport:
    """What the last report tells of a run's time.

    Attributes:
        source: which report it is.
        seconds: wall time of each cell that ran to its end on this device.
    """

    source: str = ""
    seconds: Mapping[Cell, float] = field(default_factory=dict)

    @classmethod
    def read(cls, content: bytes, device: str) -> LastReport:
        """Return the times of a report; none where it is of another device, or unreadable."""
        try:
            report = decode_report(content, where="report.json")
        except MxqError:
            return cls()
        if report.device.slug != device:
            return cls()
        ran = {verdict.cell: verdict.seconds for verdict in report.verdicts if verdict.outcome not in _CUT_SHORT}
        return cls(source=f"report of {report.created[:10]}", seconds=ran)


class Forecast:
    """Forecasts the plans of a run, to be asked once for each, in the order in which they run."""

    def __init__(self, settings: Settings, runtime: Runtime, last: LastReport) -> None:
        self._settings = settings
        self._runtime = runtime
        self._last = last
        self._counter = CallCounter(settings.alpha)
        self._previews: dict[tuple[object, ...], Preview] = {}

    def of(self, plan: Plan) -> PlanRow:
        """Return the row of the next plan."""
        if isinstance(plan, InvalidPlan):
            return PlanRow(cell=plan.cell, note=f"fault of the test: {plan.fault}", outcome=Outcome.ERROR)
        if isinstance(plan, SkippedPlan):
            outcome = Outcome.SKIPPED if self._settings.strict else None
            return PlanRow(cell=plan.cell, note=plan.reason, outcome=outcome, runs=False)
        preview = self._preview(plan)
        seconds, source = self._estimate(plan, preview)
        return PlanRow(
            cell=plan.cell,
            memory_gib=_memory(plan) if self._runtime.device.kind == "cuda" else None,
            seconds=seconds,
            source=source,
            reference=(preview.reference or "") if preview is not None else "",
            note="" if preview is None else preview.text,
            outcome=None if preview is None else preview.outcome,
        )

    def seconds(self, plan: RunnablePlan) -> float | None:
        """Return how long the next plan is going to take; None: nothing tells."""
        return self._estimate(plan, self._preview(plan))[0]

    def _preview(self, plan: RunnablePlan) -> Preview | None:
        if not isinstance(plan, GatePlan):
            return None
        is_shared = isinstance(plan.gate, AccuracyGate)  # its outputs are hashed once a case
        key = (plan.case.key, "outputs" if is_shared else plan.cell)
        if key not in self._previews:
            self._previews[key] = self._previewer.of(plan, self._runtime.weights(plan.case))
        return self._previews[key]

    @property
    def _previewer(self) -> Previewer:
        return Previewer(settings=self._settings, store=self._runtime.store, fingerprint=self._runtime.fingerprint)

    def _estimate(self, plan: RunnablePlan, preview: Preview | None) -> tuple[float | None, str]:
        """Return the seconds of the next plan and what tells them: its last run here, or the calls that it makes."""
        if preview is not None and preview.outcome is not None:
            return None, ""
        calls = self._counter.of(plan, is_stored=preview is not None and preview.reference == "stored")
        if plan.cell in self._last.seconds:
            return self._last.seconds[plan.cell], self._last.source
        is_native = not isinstance(plan, GatePlan) or not plan.emulated
        known = call_seconds(plan.case, plan.cell.format, self._manifest(plan.case)) if is_native else None
        return (None, "") if known is None else (known.of(calls), known.source)

    def _manifest(self, case: Case) -> Manifest | None:
        try:
            return self._runtime.store.load(case.recipe.name, case.name)
        except MxqError:
            return None


def _memory(plan: RunnablePlan) -> float | None:
    if not isinstance(plan, GatePlan):
        return memory_need(plan.case, Use.BF16)
    use = Use.of(plan.gate, emulated=plan.emulated)
    return memory_need(plan.case, use, formats=max(1, len(plan.together)) if isinstance(plan, SpeedPlan) else 1)
