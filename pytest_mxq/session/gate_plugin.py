"""The active plugin object: collects plans, runs gates, and keeps the verdicts. Registered only when asked for."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Generator, Iterable
from dataclasses import asdict, replace
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pytest_mxq.environment.device import find_device
from pytest_mxq.formats import FormatRegistry
from pytest_mxq.gates.verdict import Cell, Outcome, Verdict, to_record
from pytest_mxq.models import ModelRegistry
from pytest_mxq.planning.case import Case, Plan, batch_cautions, kernel_cautions
from pytest_mxq.planning.options import check_directories, read_options
from pytest_mxq.planning.planner import PIPELINE, PROMPT, Planner, Slot, find_double_cases, is_gate_test, stray_marker
from pytest_mxq.planning.settings import Settings
from pytest_mxq.session.rerun import Rerun
from pytest_mxq.session.runtime import TIMING_ONLY, Runtime

PLAN = pytest.StashKey[Plan]()  # what a gate item is to do, from its collection to its run
VERDICT = pytest.StashKey[Verdict]()  # what it came to, from its run to its report
RECORD = "mxq"  # the attribute of a report that carries the record across xdist


def start_session(config: pytest.Config) -> GatePlugin:
    """Read the options, and make the active object.

    Raises:
        pytest.UsageError: an option's value is not allowed; lists the choices.
    """
    settings, formats, models = read_options(config)
    return GatePlugin(config, settings, formats, models)


class GatePlugin:
    """One run with gates.

    Attributes:
        settings: the options.
        planned: every planned cell, also those that ``-k`` deselects.
        selected: nodeids of those that remain selected.
        cautions: what is known to go wrong with them.
    """

    def __init__(
        self, config: pytest.Config, settings: Settings, formats: FormatRegistry, models: ModelRegistry
    ) -> None:
        check_directories(config, settings)
        self.config = config
        self.settings = settings
        self.formats = formats
        self.models = models
        self.device = find_device()
        self.bench = Runtime(config, settings, self.device, list(formats))
        self.planner = Planner(
            settings=settings, formats=formats, models=models, device=self.device, beside=config.rootpath
        )
        self.planned: dict[str, Cell] = {}
        self.selected: set[str] = set()
        self.cautions: list[str] = []
        self.cases: dict[tuple[str, str], Plan] = {}

    # ------------------------------------------------------------------ collection

    @pytest.hookimpl(trylast=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize a gate test over formats x gates, after the user's own parameters."""
        if PIPELINE in metafunc.fixturenames:
            slots = self.planner.slots(metafunc)
            metafunc.parametrize(PIPELINE, slots, indirect=True, ids=[slot.id for slot in slots])

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, None, None]:
        """Plan the gate items before anything deselects, and order what is left so that every arm is built once."""
        dropped = [item for item in items if not self._keep(item)]
        if dropped:
            gone = set(dropped)
            items[:] = [item for item in items if item not in gone]
            self.config.hook.pytest_deselected(items=dropped)
        self._fault_double_cases(items)
        yield
        _order(items)
        left = [item.stash[PLAN] for item in items if PLAN in item.stash]
        self.selected = {plan.cell.nodeid for plan in left}
        self.cautions = [*kernel_cautions(left, self.device), *batch_cautions(left)]

    def _keep(self, item: pytest.Item) -> bool:
        if not is_gate_test(item):
            fault = stray_marker(item)
            if fault:
                item.stash[PLAN] = Plan(cell=_cell_of(item), fault=fault)
            return bool(fault) or not self.settings.refresh
        slot = _slot(item)
        plan = self.planner.plan(item, slot) if slot is not None and isinstance(item, pytest.Function) else None
        if plan is None:
            return False
        item.stash[PLAN] = plan
        if self.config.pluginmanager.has_plugin("rerunfailures"):
            # Before any such marker of the user's: a gate is never rerun until it is green.
            item.add_marker(pytest.mark.flaky(reruns=0), append=False)
        return True

    def _fault_double_cases(self, items: list[pytest.Item]) -> None:
        plans = [item.stash[PLAN] for item in items if PLAN in item.stash]
        faults = find_double_cases(plans)
        for item in items:
            if PLAN in item.stash:
                plan = item.stash[PLAN]
                plan = item.stash[PLAN] = replace(plan, fault=plan.fault or faults.get(item.nodeid, ""))
                self.planned[item.nodeid] = plan.cell
                generates = plan.kind is not None and plan.kind.family == "images"
                if generates and not plan.fault and not plan.skip:
                    self.cases[plan.cell.model, plan.cell.case] = plan

    # ------------------------------------------------------------------ run

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Raise a test's fault, or skip it with its reason, before any fixture is made."""
        plan = item.stash.get(PLAN, None)
        if plan is None:
            return
        if not plan.fault and not plan.skip:
            plan = item.stash[PLAN] = self.bench.with_prompts(plan)
        if plan.fault:
            pytest.fail(f"fault of the test: {plan.fault}", pytrace=False)
        if plan.skip:
            pytest.skip(plan.skip)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Run the test's body as the workload of its gate."""
        plan = pyfuncitem.stash.get(PLAN, None)
        if plan is None:
            return None
        verdict = pyfuncitem.stash[VERDICT] = self._run(plan, pyfuncitem)
        for name, value in _properties(verdict):
            pyfuncitem.user_properties.append((name, value))
        try:
            if verdict.speed is not None:
                from pytest_mxq.reports.pytest_benchmark import replay

                handle: Any = pyfuncitem.funcargs[PIPELINE]
                replay(pyfuncitem, handle.request, verdict.speed, f"{plan.cell.model} {plan.cell.case}")
        except (KeyboardInterrupt, pytest.exit.Exception):
            raise
        except BaseException:
            _end_as(verdict)  # whatever pytest-benchmark makes of the samples, a regression stays one
            raise
        _end_as(verdict)
        return True

    def _run(self, plan: Plan, item: pytest.Function) -> Verdict:
        workload = _workload(item)
        lack = self.bench.memory_in_use(plan)
        if lack:
            return Verdict(cell=plan.cell, outcome=Outcome.ENVIRONMENT, sentence=lack, emulated=plan.emulated)
        if self.settings.refresh:
            return self._refresh(plan, item, workload)
        self.bench.forget_comparisons(plan)
        command = Rerun.of(self.config).command(item, plan.cell)
        return self.bench.workflow.judge(plan, workload, next_command=command)

    def _refresh(self, plan: Plan, item: pytest.Function, workload: Any) -> Verdict:
        """Refresh a case; every further timing session runs in a process of its own."""
        verdict = self.bench.refresher.refresh(plan, workload)
        case = plan.case
        further = 0 if os.environ.get(TIMING_ONLY) else self.settings.refresh_sessions - 1
        timed = case is not None and case.is_timed and self.device.kind == "cuda"
        if case is None or not further or not timed or verdict.outcome is not Outcome.REFRESHED:
            return verdict
        self.bench.backend.arms.release()
        for number in range(further):
            fault = self._add_session(item, case)
            if fault:
                text = f"{number} of {further} further timing sessions added; the next one failed: {fault}"
                return verdict.because(Outcome.ERROR, f"{verdict.sentence}\n{text}")
        return verdict.because(verdict.outcome, f"{verdict.sentence}\n{further} further timing sessions added")

    def _add_session(self, item: pytest.Item, case: Case) -> str:
        """Time BF16 once more in a process of its own; why no session is stored, or ""."""
        before = self.bench.store.load(case.recipe.name, case.name).sessions
        done = self._run_session(item)
        if self.bench.store.load(case.recipe.name, case.name).sessions != before:
            return ""  # whatever became of the process afterwards
        ending = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        said = [f"{name}:\n{text[-2000:]}" for name, text in (("stdout", done.stdout), ("stderr", done.stderr)) if text]
        return "\n".join([f"its process added none and ended with {ending}", *said])

    def _run_session(self, item: pytest.Item) -> subprocess.CompletedProcess[str]:
        rerun = Rerun.of(self.config)
        with TemporaryDirectory() as report:
            options = (*rerun.options, "--mxq-refresh", "--mxq-refresh-in-ci", "--mxq-refresh-sessions=1")
            return subprocess.run(
                [sys.executable, "-m", "pytest", "-q", rerun.place(item), *options, f"--mxq-report={report}"],
                cwd=rerun.started_in,
                env={**os.environ, TIMING_ONLY: self.bench.benchmark.process_number() or "unknown"},
                capture_output=True,
                text=True,
                check=False,
            )

    def pytest_sessionfinish(self) -> None:
        """Hand the plan from an xdist worker to the controller, which alone writes files."""
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["mxq_planned"] = [asdict(cell) for cell in self.planned.values()]
            self.config.workeroutput["mxq_cautions"] = self.cautions

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach the verdict to the report; under ``--mxq-strict`` turn a skip into a failure."""
        report = yield
        plan = item.stash.get(PLAN, None)
        if plan is None or report.when == "teardown" or (report.when == "setup" and report.passed):
            return report
        verdict = item.stash.get(VERDICT, None) or _verdict_of(plan, report, call)
        if hasattr(report, "wasxfail"):
            pass  # the user's own word on a known regression; the table shows what it is
        elif report.skipped and self.settings.strict:
            report.outcome = "failed"
            report.longrepr = f"--mxq-strict: skipped: {verdict.sentence}"
        elif report.skipped:
            path, line, _ = item.location  # where the test stands, not where the plugin skipped it
            report.longrepr = (path, (line or 0) + 1, f"Skipped: {verdict.sentence}")
        report.__dict__[RECORD] = to_record(verdict)
        return report


def _slot(item: pytest.Item) -> Slot | None:
    callspec = getattr(item, "callspec", None)
    slot = callspec.params.get(PIPELINE) if callspec is not None else None
    return slot if isinstance(slot, Slot) else None


def _cell_of(item: pytest.Item) -> Cell:
    return Cell(nodeid=item.nodeid, model="", case=item.name, format="", gate="")


def _order(items: list[pytest.Item]) -> None:
    """Sort the gate items among the places where gate items stand; other items stay where they are."""
    places = [index for index, item in enumerate(items) if PLAN in item.stash]
    gates = sorted((items[index] for index in places), key=lambda item: item.stash[PLAN].order)
    for index, item in zip(places, gates, strict=True):
        items[index] = item


def _end_as(verdict: Verdict) -> None:
    """End the test as its verdict says."""
    if verdict.outcome is Outcome.SKIPPED:
        pytest.skip(verdict.sentence)
    if verdict.outcome.is_failure:
        from pytest_mxq.reports.summary import failure_text

        pytest.fail(failure_text(verdict), pytrace=False)


def _workload(item: pytest.Function) -> Any:
    names = [name for name in inspect.signature(item.obj).parameters if name in item.funcargs]

    def workload(bound: Any, prompt: Any) -> object:
        handle: Any = item.funcargs[PIPELINE]
        handle.bound = bound
        try:
            arguments = {name: item.funcargs[name] for name in names}
            return item.obj(**{**arguments, **({PROMPT: prompt} if PROMPT in names else {})})
        finally:
            handle.bound = None

    return workload


def _properties(verdict: Verdict) -> Iterable[tuple[str, object]]:
    yield "mxq_outcome", verdict.outcome.value
    for name in ("observed", "bound"):
        value = getattr(verdict, name)
        if value is not None:
            yield f"mxq_{name}", value
    if verdict.reference is not None:
        yield "mxq_reference", verdict.reference.mode


def _verdict_of(plan: Plan, report: pytest.TestReport, call: pytest.CallInfo[None]) -> Verdict:
    """The verdict of an item that never came to its gate: skipped, faulty, or broken by an exception."""
    error = call.excinfo.value if call.excinfo is not None else None
    text = str(getattr(error, "msg", None) or error or report.longreprtext)
    outcome = Outcome.SKIPPED if report.skipped else Outcome.ERROR
    kind = "" if plan.fault or report.skipped or error is None else f"{type(error).__name__}: "
    return Verdict(
        cell=plan.cell, outcome=outcome, sentence=f"{kind}{text}", emulated=plan.emulated, seconds=call.duration
    )
