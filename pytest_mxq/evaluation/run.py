"""From a plan to its verdict: preflight, dispatch, the mapping of errors to verdicts, and the time of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol
from unittest import SkipTest

import pytest

from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.errors import BaselineError, BaselineMissingError, MxqError, WeightsUnavailableError
from pytest_mxq.evaluation.protocols import Strategy, Workload
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.verdict import Cell, Verdict
from pytest_mxq.planning.plans import CallsPlan, GatePlan, OutputsPlan, RefreshPlan, RunnablePlan


class Commands(Protocol):
    """Writes the next command of an item as it must be typed where pytest was started."""

    def again(self, cell: Cell) -> str:
        """Return the command that judges the item again."""
        ...

    def refresh(self, cell: Cell, *, sessions: int = 1) -> str:
        """Return the command that measures the item's baseline again, with this many timing sessions."""
        ...


class EvaluationError(Exception):
    """End a gate with an exception that is nothing for a user to read alone, such as one of the test's body.

    Args:
        verdict: the whole record.
        error: the exception, with its traceback.
    """

    def __init__(self, verdict: Verdict, error: BaseException) -> None:
        super().__init__(verdict.sentence)
        self.verdict = verdict
        self.error = error


def said_of(error: BaseException) -> tuple[Outcome, str]:
    """Return the outcome of a test that an exception ended, and its sentence."""
    text = str(getattr(error, "msg", None) or error)
    if isinstance(error, pytest.skip.Exception | SkipTest):
        return Outcome.SKIPPED, text
    return Outcome.ERROR, f"{type(error).__name__}: {text}"


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
    accuracy: Callable[[], Strategy[OutputsPlan]]
    performance: Callable[[], Strategy[CallsPlan]]
    refresh: Callable[[], Strategy[RefreshPlan]]

    def evaluate(self, plan: RunnablePlan, workload: Workload, commands: Commands | None = None) -> Verdict:
        """Return the verdict of one plan.

        Args:
            plan: the plan.
            workload: the test's body.
            commands: writes the next command of a gate; None: no command is named.

        Raises:
            EvaluationError: something else went wrong than what evaluations know of; it carries the verdict.
        """
        start = perf_counter()
        named = commands if isinstance(plan, GatePlan) else None
        draft = self.draft(plan, named)
        broken: BaseException | None = None
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
        except (KeyboardInterrupt, pytest.exit.Exception):
            raise
        except BaseException as error:  # noqa: BLE001  raised again, with the verdict
            verdict, broken = draft.because(*said_of(error)), error
        verdict = replace(verdict, seconds=perf_counter() - start)
        if broken is not None:
            raise EvaluationError(verdict, broken)
        return verdict

    def draft(self, plan: RunnablePlan, commands: Commands | None) -> Verdict:
        """Return what is known of a plan's verdict before anything runs: an error without a sentence."""
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
        if isinstance(plan, OutputsPlan):
            return self.accuracy().evaluate(plan, workload, draft)
        return self.performance().evaluate(plan, workload, draft)
