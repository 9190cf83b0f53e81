"""Further timing sessions of a refresh, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pytest_mxq.gates.outcome import Outcome

if TYPE_CHECKING:
    from pytest_mxq.baselines.store import BaselineStore
    from pytest_mxq.gates.verdict import Verdict
    from pytest_mxq.planning.plans import RefreshPlan
    from pytest_mxq.session.rerun import Rerun

TIMING_ONLY = "PYTEST_MXQ_TIMING_ONLY"
"""Set for the child processes of a refresh, which add a session and generate nothing, to the number under which the
GPU's driver lists their parent: it holds the GPU, and waits."""


def is_child() -> bool:
    """Tell whether this process only adds a timing session."""
    return bool(os.environ.get(TIMING_ONLY))


def waiting_parent() -> tuple[int, ...]:
    """Return the process for which this one adds a timing session, as the GPU's driver numbers it."""
    parent = os.environ.get(TIMING_ONLY, "")
    return (int(parent),) if parent.isdecimal() else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingProcesses:
    """Starts the processes that add timing sessions to a refreshed case.

    Attributes:
        rerun: how this run was started.
        store: the stored baselines.
        own_number: the number under which the GPU's driver lists this process; None: it does not tell.
    """

    rerun: Rerun
    store: BaselineStore
    own_number: str | None

    def add(self, plan: RefreshPlan, verdict: Verdict, further: int) -> Verdict:
        """Add sessions, one after the other, and return the verdict with what became of them."""
        for number in range(further):
            fault = self._add_one(plan)
            if fault is not None:
                text = f"{number} of {further} further timing sessions added; the next one failed: {fault}"
                return verdict.because(Outcome.ERROR, f"{verdict.sentence}\n{text}")
        return verdict.because(verdict.outcome, f"{verdict.sentence}\n{further} further timing sessions added")

    def _add_one(self, plan: RefreshPlan) -> str | None:
        """Time BF16 once more; return why no session is stored, or None."""
        model, case = plan.case.recipe.name, plan.case.name
        before = self.store.load(model, case).sessions
        done = self._run(plan)
        if self.store.load(model, case).sessions != before:
            return None  # whatever became of the process afterwards
        ending = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        said = [f"{name}:\n{text[-2000:]}" for name, text in (("stdout", done.stdout), ("stderr", done.stderr)) if text]
        return "\n".join([f"its process added none and ended with {ending}", *said])

    def _run(self, plan: RefreshPlan) -> subprocess.CompletedProcess[str]:
        with TemporaryDirectory() as report:
            options = (*self.rerun.options, "--mxq-refresh", "--mxq-refresh-in-ci", "--mxq-refresh-sessions=1")
            place = self.rerun.place(plan.cell)
            return subprocess.run(
                [sys.executable, "-m", "pytest", "-q", place, *options, f"--mxq-report={report}"],
                cwd=self.rerun.started_in,
                env={**os.environ, TIMING_ONLY: self.own_number or "unknown"},
                capture_output=True,
                text=True,
                check=False,
            )
