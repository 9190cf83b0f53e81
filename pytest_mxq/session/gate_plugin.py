"""The active plugin object: parametrizes gate tests, plans them, and runs each as a gate."""

from __future__ import annotations

import inspect
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_mxq.evaluation.run import EvaluationError
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import Cell, Verdict
from pytest_mxq.planning.gate_param import GateParam, refresh_nodeid
from pytest_mxq.planning.markers import PIPELINE, PROMPT, is_gate_test, stray_marker
from pytest_mxq.planning.options import Kinds, check_directories, check_selection, read_options
from pytest_mxq.planning.planner import Planner, find_double_cases, owner_of
from pytest_mxq.planning.plans import (
    GatePlan,
    InvalidPlan,
    Plan,
    RefreshPlan,
    RunnablePlan,
    SkippedPlan,
    batch_cautions,
    kernel_cautions,
    timed_together,
)
from pytest_mxq.planning.plugin_params import note_plugin_ids
from pytest_mxq.planning.settings import Reference, Settings
from pytest_mxq.reports.failure import failure_text
from pytest_mxq.reports.junit import attachments, html_extras, properties
from pytest_mxq.reports.progress import make_progress
from pytest_mxq.reports.records import cell_record, from_record, to_record
from pytest_mxq.session.distribution import refuse_shared_gpu
from pytest_mxq.session.expected_tests import place_of_test
from pytest_mxq.session.forecast import Forecast, LastReport
from pytest_mxq.session.item_reports import (
    fail_again,
    hide_secrets,
    settle_skip,
    settle_xfail,
    shorten_crash,
    verdict_of_report,
)
from pytest_mxq.session.rerun import Rerun
from pytest_mxq.session.runtime import Runtime, find_machine
from pytest_mxq.session.starting import take_earlier
from pytest_mxq.session.timing_processes import TimingProcesses, is_child

PLAN = pytest.StashKey[Plan]()  # what a gate item is to do, from its collection to its run
RECORD = "mxq"  # the attribute of a report that carries the verdict's record across xdist


def start_session(config: pytest.Config) -> GatePlugin:
    """Read the options, and return the active object.

    Raises:
        pytest.UsageError: an option's value is not allowed; lists the choices.
    """
    settings, kinds = read_options(config)
    check_selection(config, settings)
    check_directories(config, settings)
    if settings.refresh:  # the ids that a failure prints are of gates
        formats, gates = kinds.formats.names(), kinds.gates.names()
        config.args = list(dict.fromkeys(refresh_nodeid(arg, formats=formats, gates=gates) for arg in config.args))
    runtime = Runtime(find_machine(config), settings, kinds, make_progress(config))
    last = LastReport.read(take_earlier(config), runtime.device.slug)  # a worker has none: no progress
    return GatePlugin(config, settings, kinds, runtime, Forecast(settings, runtime, last))


class GatePlugin:
    """One run with gates.

    Attributes:
        settings: the options.
        kinds: what is registered.
        runtime: what gates run with.
        forecast: tells how long each of them is going to take.
        planned: every planned cell by its nodeid, also those that ``-k`` deselects.
        selected: nodeids of those that remain selected.
        cautions: what is known to go wrong with them.
        cases: one gate of outputs of each model and case that is going to run.
        verdicts: the first verdict of each cell that ran in this process, by its nodeid: it stands.
        again: nodeids of the cells that something tried to run again.
        collected_tests: nodeids, without parameters, of all tests that became items.
    """

    def __init__(
        self, config: pytest.Config, settings: Settings, kinds: Kinds, runtime: Runtime, forecast: Forecast
    ) -> None:
        self.config = config
        self.forecast = forecast
        self.settings = settings
        self.kinds = kinds
        self.runtime = runtime
        self.planner = Planner(settings=settings, kinds=kinds, device=runtime.device, root=config.rootpath)
        self.planned: dict[str, Cell] = {}
        self.selected: set[str] = set()
        self.cautions: list[str] = []
        self.cases: dict[tuple[str, str], GatePlan] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.again: dict[str, None] = {}
        self.collected_tests: dict[str, None] = {}
        self._collected: list[pytest.Item] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> Generator[None, None, None]:
        """Parametrize a gate test over formats x gates, after everybody else's parameters."""
        is_gate = PIPELINE in metafunc.fixturenames
        if is_gate:
            note_plugin_ids(metafunc)
        yield
        if is_gate:
            params = self.planner.params(metafunc)
            metafunc.parametrize(PIPELINE, params, indirect=True, ids=[param.id for param in params])

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note a gate item before any hook can drop it."""
        self.collected_tests[place_of_test(item)] = None
        if is_gate_test(item):
            self._collected.append(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, None, None]:
        """Plan the gate items before anything deselects, and order what is left so that every arm is built once."""
        self._plan_dropped(items)
        dropped = [item for item in items if not self._keep(item)]
        if dropped:
            gone = set(dropped)
            items[:] = [item for item in items if item not in gone]
            self.config.hook.pytest_deselected(items=dropped)
        self._fault_double_cases(items)
        ranks = _ranks(items)
        yield
        self._time_together(items)
        _order(items, ranks)
        left = [item.stash[PLAN] for item in items if PLAN in item.stash]
        self.selected = {plan.cell.nodeid for plan in left}
        self.cautions = [*kernel_cautions(left, self.runtime.device), *batch_cautions(left)]
        if not self.config.option.collectonly:
            refuse_shared_gpu(self.config, left, self.kinds, self.runtime.device)

    def _time_together(self, items: list[pytest.Item]) -> None:
        """Let one session time the formats of a case, where speedups are timed beside BF16."""
        planned = [item for item in items if PLAN in item.stash]
        if self.settings.reference is not Reference.STORED:
            plans = timed_together([item.stash[PLAN] for item in planned], self.runtime.device)
            for item, plan in zip(planned, plans, strict=True):
                item.stash[PLAN] = plan

    def _plan_dropped(self, items: list[pytest.Item]) -> None:
        """Plan the cells of gate items that another plugin dropped by now: they were asked for, and do not run."""
        there = set(items)
        for item in self._collected:
            plan = None if item in there else self._plan(item)
            if plan is not None:
                self.planned[plan.cell.nodeid] = plan.cell
        self._collected.clear()

    def _plan(self, item: pytest.Item) -> Plan | None:
        param = _param(item)
        return self.planner.plan(item, param) if param is not None and isinstance(item, pytest.Function) else None

    def _keep(self, item: pytest.Item) -> bool:
        if not is_gate_test(item):
            fault = stray_marker(item)
            if fault is not None:
                cell = Cell(nodeid=item.nodeid, model="", case=item.name, format="", gate="")
                item.stash[PLAN] = InvalidPlan(cell=cell, fault=fault)
            return fault is not None or not self.settings.refresh
        plan = self._plan(item)
        if plan is None:
            return False
        item.stash[PLAN] = plan
        return True

    def _fault_double_cases(self, items: list[pytest.Item]) -> None:
        params = {item: _param(item) for item in items if PLAN in item.stash}
        owned = [
            (item.stash[PLAN], owner_of(item, param))
            for item, param in params.items()
            if param is not None and isinstance(item, pytest.Function)
        ]
        faults = find_double_cases(owned)
        for item in params:
            plan = item.stash[PLAN]
            fault = faults.get(plan.cell.nodeid)
            if fault is not None:
                plan = item.stash[PLAN] = InvalidPlan(cell=plan.cell, fault=fault)
            self.planned[plan.cell.nodeid] = plan.cell
            if isinstance(plan, GatePlan) and plan.gate.needs.trained_weights:
                self.cases[plan.cell.model, plan.cell.case] = plan

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Raise a test's fault, or skip it with its reason, before any fixture is made."""
        if PLAN not in item.stash:
            return
        self._refuse_again(item.stash[PLAN].cell)
        plan = item.stash[PLAN] = self.runtime.with_prompts(item.stash[PLAN])
        if isinstance(plan, InvalidPlan):
            pytest.fail(f"fault of the test: {plan.fault}", pytrace=False)
        if isinstance(plan, SkippedPlan):
            pytest.skip(plan.reason)

    def _refuse_again(self, cell: Cell) -> None:
        """Fail a test that has its verdict: whatever runs it again, it is never retried until it is green."""
        first = self.verdicts.get(cell.nodeid)
        if first is not None:
            self.again[cell.nodeid] = None
            text = "a gate is run once, and something ran this one again; its first verdict stands"
            is_failure = first.outcome.is_failure
            said = f"{self._failure(first)}\n{text}" if is_failure else f"{text}: {first.outcome}: {first.sentence}"
            pytest.fail(said, pytrace=False)

    def _failure(self, verdict: Verdict) -> str:
        return failure_text(verdict, root=self.settings.root, report=self.settings.report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        """Run the test's body as the workload of its gate."""
        plan = pyfuncitem.stash.get(PLAN, None)
        if not isinstance(plan, GatePlan | RefreshPlan):
            return None
        self._refuse_again(plan.cell)
        error: BaseException | None = None
        try:
            verdict = self._evaluate(plan, pyfuncitem)
        except EvaluationError as ended:
            verdict, error = ended.verdict, ended.error
        self.verdicts[plan.cell.nodeid] = verdict
        if error is not None:
            raise error
        try:
            if verdict.speed is not None:
                from pytest_mxq.reports.pytest_benchmark import replay

                handle: Any = pyfuncitem.funcargs[PIPELINE]
                replay(pyfuncitem, handle.request, verdict.speed, f"{plan.cell.model} {plan.cell.case}")
        except (KeyboardInterrupt, pytest.exit.Exception):
            raise
        except BaseException:
            self._end_as(verdict)  # whatever pytest-benchmark makes of the samples, a regression stays one
            raise
        self._end_as(verdict)
        return True

    def _evaluate(self, plan: RunnablePlan, item: pytest.Function) -> Verdict:
        rerun = Rerun.of(self.config)
        if isinstance(plan, GatePlan):
            self.runtime.comparisons.forget_earlier(plan)
        self.runtime.progress.begin(self.forecast.seconds(plan))
        try:
            verdict = self.runtime.evaluator.evaluate(plan, _workload(item), rerun)
        finally:
            self.runtime.end_progress()
        further = 0 if is_child() else self.settings.refresh_sessions - 1
        if isinstance(plan, RefreshPlan) and verdict.outcome is Outcome.REFRESHED and further and self._is_timed(plan):
            return self._add_sessions(plan, verdict, rerun, further)
        return verdict

    def _is_timed(self, plan: RefreshPlan) -> bool:
        return plan.case.is_timed and self.runtime.device.kind == "cuda"

    def _add_sessions(self, plan: RefreshPlan, verdict: Verdict, rerun: Rerun, further: int) -> Verdict:
        self.runtime.backend.release()
        own_number = self.runtime.processes.own_number()
        processes = TimingProcesses(rerun=rerun, store=self.runtime.store, own_number=own_number)
        return processes.add(plan, verdict, further)

    def _end_as(self, verdict: Verdict) -> None:
        """End the test as its verdict says."""
        if verdict.outcome is Outcome.SKIPPED:
            pytest.skip(verdict.sentence)
        if verdict.outcome.is_failure:
            pytest.fail(self._failure(verdict), pytrace=False)

    def pytest_sessionfinish(self) -> None:
        """Hand plan and verdicts from an xdist worker to the controller, which alone writes files."""
        if hasattr(self.config, "workeroutput"):
            portable = self.settings.portable
            self.config.workeroutput.update(
                mxq_planned=[cell_record(cell) for cell in self.planned.values()],
                mxq_selected=list(self.selected),
                mxq_cautions=[*self.cautions, *self.runtime.cautions],
                mxq_verdicts=[to_record(verdict, portable) for verdict in self.verdicts.values()],
                mxq_again=list(self.again),
                mxq_collected_tests=list(self.collected_tests),
            )

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach the verdict to the report, and let xfail and a skip be what they are worth."""
        report = yield
        plan = item.stash.get(PLAN, None)
        if plan is None:
            return report
        if report.when != "teardown" and not (report.when == "setup" and report.passed):
            self._attach(item, report, call, plan)
        hide_secrets(report, self.config, self.settings.secrets)
        return report

    def _attach(self, item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[None], plan: Plan) -> None:
        nodeid = plan.cell.nodeid
        verdict = self.verdicts.get(nodeid) or verdict_of_report(self._draft(plan), plan, report, call)
        if nodeid in self.again:
            fail_again(report)
        else:
            verdict = self.verdicts[nodeid] = self._settle(item, report, call, verdict)
        shorten_crash(report, verdict)
        record = report.__dict__[RECORD] = to_record(verdict, self.settings.portable)
        if nodeid not in self.again:
            self._tell_other_reports(item, report, from_record(record))

    def _draft(self, plan: Plan) -> Verdict:
        if isinstance(plan, GatePlan | RefreshPlan):
            commands = Rerun.of(self.config) if isinstance(plan, GatePlan) else None
            return self.runtime.evaluator.draft(plan, commands)
        emulated = isinstance(plan, SkippedPlan) and plan.emulated
        return Verdict(cell=plan.cell, outcome=Outcome.ERROR, sentence="", emulated=emulated)

    def _tell_other_reports(self, item: pytest.Item, report: pytest.TestReport, verdict: Verdict) -> None:
        """Give JUnit XML its properties, GitLab its attachments, and pytest-html the images."""
        found = list(properties(verdict))
        item.user_properties.extend(found)
        report.user_properties.extend(found)
        if os.environ.get("GITLAB_CI"):
            project = Path(os.environ.get("CI_PROJECT_DIR") or self.config.invocation_params.dir)
            item.add_report_section("call", "stdout", attachments(verdict, self.settings.report, project))
        if getattr(self.config.option, "htmlpath", None):
            report.__dict__.setdefault("extras", []).extend(html_extras(verdict, self.settings.report))

    def _settle(
        self, item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[None], verdict: Verdict
    ) -> Verdict:
        if hasattr(report, "wasxfail") and call.excinfo is not None:
            verdict = settle_xfail(item, report, call.excinfo.value, verdict)
        if verdict.outcome is Outcome.NOT_RUN or (report.skipped and not hasattr(report, "wasxfail")):
            settle_skip(item, report, verdict, strict=self.settings.strict)
        return verdict


def _param(item: pytest.Item) -> GateParam | None:
    callspec = getattr(item, "callspec", None)
    param = callspec.params.get(PIPELINE) if callspec is not None else None
    return param if isinstance(param, GateParam) else None


def _ranks(items: list[pytest.Item]) -> dict[str, int]:
    """Return the place of each model, case, format and gate in the order that was asked for."""
    plans = [item.stash[PLAN] for item in items if PLAN in item.stash]
    return {name: place for place, name in enumerate(dict.fromkeys(part for plan in plans for part in plan.order))}


def _order(items: list[pytest.Item], ranks: dict[str, int]) -> None:
    """Sort the gate items among the places where gate items stand; other items stay where they are."""

    def key(item: pytest.Item) -> list[int]:
        return [ranks.get(part, len(ranks)) for part in item.stash[PLAN].order]

    places = [index for index, item in enumerate(items) if PLAN in item.stash]
    gates = sorted((items[index] for index in places), key=key)
    for index, item in zip(places, gates, strict=True):
        items[index] = item


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
