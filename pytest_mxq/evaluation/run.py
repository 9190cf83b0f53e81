"""From a plan to its verdict: preflight, dispatch, the mapping of errors to verdicts, and the time of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

from pytest_mxq.baselines.strict_json import REFRESH
from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.errors import BaselineError, BaselineMissingError, MxqError, WeightsUnavailableError
from pytest_mxq.evaluation.protocols import Strategy, Workload
from pytest_mxq.gates.base import AccuracyGate
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.verdict import Cell, Verdict
from pytest_mxq.planning.plans import GatePlan, RefreshPlan, RunnablePlan


class Commands(Protocol):
    """Writes the next command of an item as it must be typed where pytest was started."""

    def again(self, cell: Cell) -> str:
        """Return the command that judges the item again."""
        ...

    def refresh(self, cell: Cell, *, sessions: int = 1) -> str:
        """Return the command that measures the item's baseline again, with this many timing sessions."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Evaluates the plans of one session.

    Attributes:
        fingerprint: of this process.
        preflight: returns why a plan cannot be evaluated on the machine as it is now, or None.
        accuracy: makes the strategy of gates that score outputs; the strategies are made when first needed, since
            torch is imported with them.
        performance: makes the strategy of gates that measure compiled calls.
        refresh: makes the strategy that measures and stores baselines.
    """

    fingerprint: Fingerprint
    preflight: Callable[[RunnablePlan], str | None]
    accuracy: Callable[[], Strategy[GatePlan]]
    performance: Callable[[], Strategy[GatePlan]]
    refresh: Callable[[], Strategy[RefreshPlan]]

    def evaluate(self, plan: RunnablePlan, workload: Workload, commands: Commands | None = None) -> Verdict:
        """Return the verdict of one plan; whatever goes wrong is a verdict too.

        Args:
            plan: the plan.
            workload: the test's body.
            commands: writes the next command of a gate; None: no command is named.
        """
        start = perf_counter()
        named = commands if isinstance(plan, GatePlan) else None
        draft = self._draft(plan, named)
        try:
            verdict = self._evaluate(plan, workload, draft)
        except Stop as stop:
            verdict = replace(draft, outcome=stop.outcome, sentence=str(stop), **stop.facts)
            if named is not None and stop.outcome in {Outcome.STALE, Outcome.MISSING}:
                verdict = replace(verdict, next_command=named.refresh(plan.cell, sessions=stop.sessions))
        except BaselineError as error:
            outcome = Outcome.MISSING if isinstance(error, BaselineMissingError) else Outcome.ERROR
            way_out = (error.command or named.refresh(plan.cell)) if named is not None else None
            verdict = replace(draft, outcome=outcome, sentence=error.problem, next_command=way_out)
        except WeightsUnavailableError as error:
            verdict = draft.because(Outcome.SKIPPED, str(error))
        except MxqError as error:
            verdict = draft.because(Outcome.ERROR, str(error))
        if named is not None and REFRESH in verdict.sentence:
            verdict = verdict.because(verdict.outcome, verdict.sentence.replace(REFRESH, named.refresh(plan.cell)))
        return replace(verdict, seconds=perf_counter() - start)

    def _draft(self, plan: RunnablePlan, commands: Commands | None) -> Verdict:
        hard = dict(self.fingerprint.hard)
        draft = Verdict(cell=plan.cell, outcome=Outcome.ERROR, sentence="", fingerprint=hard)
        if isinstance(plan, RefreshPlan):
            return draft
        again = commands.again(plan.cell) if commands is not None else None
        return replace(draft, scale=plan.gate.scale, emulated=plan.emulated, next_command=again)

    def _evaluate(self, plan: RunnablePlan, workload: Workload, draft: Verdict) -> Verdict:
        refusal = self.preflight(plan)
        if refusal is not None:
            raise Stop(Outcome.ENVIRONMENT, refusal)
        if isinstance(plan, RefreshPlan):
            return self.refresh().evaluate(plan, workload, draft)
        strategy = self.accuracy() if isinstance(plan.gate, AccuracyGate) else self.performance()
        return strategy.evaluate(plan, workload, draft)
