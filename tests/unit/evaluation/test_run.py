"""From a plan to its verdict: preflight, dispatch, and what errors become. The strategies are stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from plan_examples import plan_of

from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.errors import (
    BaselineInvalidError,
    BaselineMissingError,
    CaseFaultError,
    MxqError,
    WeightsUnavailableError,
)
from pytest_mxq.evaluation import run
from pytest_mxq.evaluation.run import EvaluationError, Evaluator
from pytest_mxq.formats import built_in_formats
from pytest_mxq.gates import built_in_gates
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.verdict import Cell, OutputFault, ReferenceNote, Verdict
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.plans import CallsPlan, OutputsPlan, RefreshPlan, RunnablePlan
from pytest_mxq.planning.settings import CaseSettings

GATES = {gate.name: gate for gate in built_in_gates()}
FORMATS = {number_format.name: number_format for number_format in built_in_formats()}
CASE = Case(recipe=DEMO, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])
FINGERPRINT = Fingerprint(hard={"torch": "2.11"}, recorded={"host": "here"})
NEXT = "pytest 't::x[nvfp4-lpips]'"


def workload(pipeline: Any, prompt: Any) -> Any:
    return pipeline(prompt)


def gate_plan(name: str = "lpips", *, emulated: bool = True) -> OutputsPlan | CallsPlan:
    gate = GATES[name]
    cell = Cell(nodeid=f"t::x[nvfp4-{name}]", model="demo", case="case", format="nvfp4", gate=name)
    return plan_of(gate, cell=cell, case=CASE, number_format=FORMATS["nvfp4"], emulated=emulated)


REFRESH_PLAN = RefreshPlan(
    cell=Cell(nodeid="t::x[bf16-refresh]", model="demo", case="case", format="bf16", gate="refresh"), case=CASE
)


@dataclass
class StandIn:
    """A strategy that does what a test says, and remembers what it was given."""

    ends: Callable[[Verdict], Verdict] = lambda draft: draft.because(Outcome.PASS, "fine")
    given: list[tuple[Any, Any, Verdict]] = field(default_factory=list)

    def evaluate(self, plan: Any, workload: Any, draft: Verdict) -> Verdict:
        self.given.append((plan, workload, draft))
        return self.ends(draft)


class Named:
    """Commands that stand for those of a session."""

    def again(self, _cell: Cell) -> str:
        return NEXT

    def refresh(self, _cell: Cell, *, sessions: int = 1) -> str:
        return f"refresh {sessions}"


@dataclass
class Bench:
    """An evaluator over three stand-ins, and how often each was made."""

    refusal: str | None = None
    accuracy: StandIn = field(default_factory=StandIn)
    performance: StandIn = field(default_factory=StandIn)
    refresh: StandIn = field(default_factory=StandIn)
    made: list[str] = field(default_factory=list)
    asked: list[RunnablePlan] = field(default_factory=list)

    def make(self, name: str) -> StandIn:
        self.made.append(name)
        strategy: StandIn = getattr(self, name)
        return strategy

    def preflight(self, plan: RunnablePlan) -> str | None:
        self.asked.append(plan)
        return self.refusal

    def evaluate(self, plan: RunnablePlan) -> Verdict:
        evaluator = Evaluator(
            fingerprint=FINGERPRINT,
            preflight=self.preflight,
            accuracy=lambda: self.make("accuracy"),
            performance=lambda: self.make("performance"),
            refresh=lambda: self.make("refresh"),
        )
        return evaluator.evaluate(plan, workload, Named())


def ending(error: BaseException) -> Callable[[Verdict], Verdict]:
    def end(_draft: Verdict) -> Verdict:
        raise error

    return end


@pytest.mark.parametrize(
    ("plan", "strategy"),
    [
        *((gate_plan(name), "accuracy") for name in ("lpips", "ssim", "psnr", "flicker", "audio")),
        (gate_plan("speedup"), "performance"),
        (gate_plan("memory"), "performance"),
        (REFRESH_PLAN, "refresh"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.cell.gate,
)
def test_a_plan_goes_to_its_strategy_and_no_other_is_made(plan: RunnablePlan, strategy: str) -> None:
    bench = Bench()
    verdict = bench.evaluate(plan)
    assert (verdict.outcome, verdict.sentence) == (Outcome.PASS, "fine")
    assert bench.made == [strategy]
    assert bench.asked == [plan]
    ((given, body, _),) = getattr(bench, strategy).given
    assert given is plan
    assert body is workload


@pytest.mark.parametrize("emulated", [True, False])
def test_a_gate_s_draft_says_what_is_known_before_anything_runs(*, emulated: bool) -> None:
    bench, plan = Bench(), gate_plan(emulated=emulated)
    verdict = bench.evaluate(plan)
    ((_, _, draft),) = bench.accuracy.given
    expected = Verdict(
        cell=plan.cell,
        outcome=Outcome.ERROR,
        sentence="",
        scale=plan.gate.scale,
        emulated=emulated,
        next_command=NEXT,
        fingerprint={"torch": "2.11"},
    )
    assert draft == expected
    assert replace(verdict, seconds=0.0) == expected.because(Outcome.PASS, "fine")


def test_a_refresh_s_draft_has_neither_scale_nor_command() -> None:
    bench = Bench()
    bench.evaluate(REFRESH_PLAN)
    ((_, _, draft),) = bench.refresh.given
    assert draft == Verdict(cell=REFRESH_PLAN.cell, outcome=Outcome.ERROR, sentence="", fingerprint={"torch": "2.11"})


@pytest.mark.parametrize("plan", [gate_plan(), gate_plan("speedup"), REFRESH_PLAN], ids=lambda plan: plan.cell.gate)
def test_a_machine_that_is_not_fit_is_told_before_a_strategy_is_made(plan: RunnablePlan) -> None:
    bench = Bench(refusal="30 of 80 GiB are free")
    verdict = bench.evaluate(plan)
    assert (verdict.outcome, verdict.sentence) == (Outcome.ENVIRONMENT, "30 of 80 GiB are free")
    assert bench.made == []
    assert verdict.cell == plan.cell


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Stop(Outcome.STALE, "what happened"), Outcome.STALE),
        (Stop(Outcome.NOT_QUANTIZED, "what happened"), Outcome.NOT_QUANTIZED),
        (Stop(Outcome.ENVIRONMENT, "what happened"), Outcome.ENVIRONMENT),
        (WeightsUnavailableError("what happened"), Outcome.SKIPPED),
        (MxqError("what happened"), Outcome.ERROR),
        (CaseFaultError("what happened"), Outcome.ERROR),
    ],
    ids=lambda value: value.value if isinstance(value, Outcome) else type(value).__name__,
)
@pytest.mark.parametrize("plan", [gate_plan(), gate_plan("memory"), REFRESH_PLAN], ids=lambda plan: plan.cell.gate)
def test_what_ends_a_strategy_becomes_a_verdict(plan: RunnablePlan, error: Exception, outcome: Outcome) -> None:
    end = StandIn(ends=ending(error))
    verdict = Bench(accuracy=end, performance=end, refresh=end).evaluate(plan)
    ((_, _, draft),) = end.given
    next_command = "refresh 1" if outcome is Outcome.STALE and plan is not REFRESH_PLAN else draft.next_command
    expected = replace(draft.because(outcome, "what happened"), next_command=next_command)
    assert replace(verdict, seconds=0.0) == expected


@pytest.mark.parametrize(("command", "expected"), [(None, "refresh 1"), ("git lfs pull", "git lfs pull")])
def test_a_baseline_that_does_not_serve_names_what_leads_out_of_it(command: str | None, expected: str) -> None:
    for error, outcome in ((BaselineInvalidError, Outcome.ERROR), (BaselineMissingError, Outcome.MISSING)):
        end = ending(error("x.json: a problem", steps="; steps", command=command))
        verdict = Bench(accuracy=StandIn(ends=end)).evaluate(gate_plan())
        assert (verdict.outcome, verdict.sentence, verdict.next_command) == (outcome, "x.json: a problem", expected)


def test_missing_timing_sessions_are_counted_in_the_command() -> None:
    end = ending(Stop(Outcome.MISSING, "too few", sessions=2))
    assert Bench(performance=StandIn(ends=end)).evaluate(gate_plan("speedup")).next_command == "refresh 2"


def test_what_was_known_when_a_gate_was_stopped_stands_in_its_verdict() -> None:
    note = ReferenceNote(mode="stored", reason="a reason", manifest="baselines/case.json")
    stop = Stop(Outcome.DEGENERATE, "black", reference=note, comparisons=("demo/0.png",))
    verdict = Bench(accuracy=StandIn(ends=ending(stop))).evaluate(gate_plan())
    assert (verdict.outcome, verdict.sentence) == (Outcome.DEGENERATE, "black")
    assert (verdict.reference, verdict.comparisons) == (note, ("demo/0.png",))
    assert verdict.next_command == NEXT


def test_the_strategies_errors_are_verdicts_when_they_cannot_be_made_too() -> None:
    class Torchless(Bench):
        def make(self, name: str) -> StandIn:
            raise MxqError(f"no {name}")

    verdict = Torchless().evaluate(gate_plan())
    assert (verdict.outcome, verdict.sentence) == (Outcome.ERROR, "no accuracy")


@pytest.mark.parametrize(
    ("error", "outcome", "sentence"),
    [
        (ValueError("a bug"), Outcome.ERROR, "ValueError: a bug"),
        (SystemExit(3), Outcome.ERROR, "SystemExit: 3"),
        (pytest.skip.Exception("not today"), Outcome.SKIPPED, "not today"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_other_exception_completes_the_verdict_and_is_carried_with_it(
    error: BaseException, outcome: Outcome, sentence: str
) -> None:
    plan = gate_plan()
    with pytest.raises(EvaluationError) as caught:
        Bench(accuracy=StandIn(ends=ending(error))).evaluate(plan)
    verdict = caught.value.verdict
    assert caught.value.error is error
    assert (verdict.outcome, verdict.sentence) == (outcome, sentence)
    assert (verdict.scale, verdict.next_command, verdict.fingerprint) == (plan.gate.scale, NEXT, {"torch": "2.11"})
    assert verdict.seconds > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), pytest.exit.Exception("enough")], ids=["ctrl-c", "exit"])
def test_what_ends_the_run_is_raised(error: BaseException) -> None:
    with pytest.raises(type(error)):
        Bench(accuracy=StandIn(ends=ending(error))).evaluate(gate_plan())


@pytest.mark.parametrize(
    "end",
    [
        lambda draft: replace(draft, outcome=Outcome.PASS, seconds=1e9),
        ending(Stop(Outcome.STALE, "")),
        ending(MxqError("")),
        ending(WeightsUnavailableError("")),
    ],
    ids=["pass", "stop", "error", "skip"],
)
def test_the_seconds_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch, end: Callable[[Verdict], Verdict]) -> None:
    ticks = iter([100.0, 107.5])
    monkeypatch.setattr(run, "perf_counter", lambda: next(ticks))
    assert Bench(accuracy=StandIn(ends=end)).evaluate(gate_plan()).seconds == 7.5


def test_a_fault_is_of_an_output() -> None:
    fault = OutputFault(3, "black")
    assert (fault.output, fault.sentence) == (3, "black")
