"""The active plugin object: collects plans, runs gates, and keeps the verdicts. Registered only when asked for."""

from __future__ import annotations

import inspect
import os
from collections.abc import Generator, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pytest_mxq.baselines.fingerprint import take_fingerprint
from pytest_mxq.baselines.names import case_file_name, model_folder_name
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.cases import Plan
from pytest_mxq.collection import (
    PIPELINE,
    PROMPT,
    Planner,
    Slot,
    find_double_cases,
    is_gate_test,
    stray_marker,
)
from pytest_mxq.device import find_device
from pytest_mxq.errors import MxqError
from pytest_mxq.formats import Format, FormatRegistry, built_in_formats
from pytest_mxq.gates.bounds import GATES
from pytest_mxq.gates.verdict import Cell, Outcome, Verdict, to_record
from pytest_mxq.models import ModelRegistry, Recipe, built_in_models
from pytest_mxq.noise import known_noise_silenced
from pytest_mxq.reports.command import Rerun
from pytest_mxq.settings import Reference, Settings, check_name, split_names

if TYPE_CHECKING:
    from pytest_mxq.refresh import Refresher
    from pytest_mxq.workflow import Workflow

T = TypeVar("T")
PLAN = pytest.StashKey[Plan]()  # what a gate item is to do, from its collection to its run
VERDICT = pytest.StashKey[Verdict]()  # what it came to, from its run to its report
RECORD = "mxq"  # the attribute of a report that carries the record across xdist


def start_session(config: pytest.Config) -> MxqSession:
    """Read the options, and make the active object.

    Raises:
        pytest.UsageError: an option's value is not allowed; lists the choices.
    """
    formats, models = FormatRegistry(), ModelRegistry()
    try:
        _register(config, formats, models)
        settings = _read_settings(config)
        _check_names(config, settings, formats, models)
    except MxqError as error:
        raise pytest.UsageError(str(error)) from None
    return MxqSession(config, settings, formats, models)


def _register(config: pytest.Config, formats: FormatRegistry, models: ModelRegistry) -> None:
    for number_format in _listed("pytest_mxq_formats", Format, [built_in_formats(), *config.hook.pytest_mxq_formats()]):
        formats.register(number_format)
    for recipe in _listed("pytest_mxq_models", Recipe, [built_in_models(), *config.hook.pytest_mxq_models()]):
        models.register(recipe)


def _listed(hook: str, kind: type[T], results: list[Any]) -> Iterable[T]:
    for result in results:
        for entry in result if isinstance(result, list | tuple) else [None]:
            if not isinstance(entry, kind):
                raise MxqError(f"the hook {hook} must return a list of {kind.__name__}, got {result!r}")
            yield entry


def _read_settings(config: pytest.Config) -> Settings:
    def option(name: str) -> Any:
        return config.getoption(f"mxq_{name}") or config.getini(f"mxq_{name}")

    def names(name: str) -> tuple[str, ...]:
        value = option(name)
        return split_names(value if isinstance(value, str) else " ".join(value or ()))

    def directory(name: str, default: str | None) -> Path | None:
        given = config.getoption(f"mxq_{name}")
        stated = config.getini(f"mxq_{name}") or default
        if given:
            return Path(config.invocation_params.dir, given)
        return Path(config.inipath.parent if config.inipath else config.rootpath, stated) if stated else None

    return Settings(
        formats=names("formats"),
        models=names("models"),
        gates=names("gates"),
        baselines=directory("baselines", "baselines") or Path(),
        media=directory("media", None),
        reference=_reference(option("reference")),
        refresh=bool(config.getoption("mxq_refresh")),
        emulate=bool(option("emulate")),
        strict=bool(option("strict")),
        report=directory("report", "mxq-report") or Path(),
    )


def _reference(value: str | None) -> Reference:
    check_name("reference", value or "auto", [mode.value for mode in Reference])
    return Reference(value or "auto")


def _check_names(config: pytest.Config, settings: Settings, formats: FormatRegistry, models: ModelRegistry) -> None:
    if config.option.mxq_formats is not None and not settings.formats:
        raise MxqError(f"--mxq-formats names no format; formats: {', '.join(formats.names())}")
    for name in settings.formats:
        check_name("format", name, formats.names())
    for name in settings.gates:
        check_name("gate", name, GATES)
    for name in settings.models:
        models.find(name, beside=config.rootpath)


def check_directories(config: pytest.Config, settings: Settings) -> None:
    """Refuse a refresh in CI that nobody allowed, and a report or baselines that could not be written.

    Raises:
        pytest.UsageError: says which, and how.
    """
    if config.option.collectonly:
        return
    try:
        settings.report.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=settings.report):
            pass
    except OSError as error:
        raise pytest.UsageError(
            f"the report cannot be written below {settings.report}: {error}; choose another with --mxq-report=DIR"
        ) from None
    if not settings.refresh:
        return
    if os.environ.get("CI", "").lower() not in {"", "0", "false"} and not config.getoption("mxq_refresh_in_ci"):
        raise pytest.UsageError(
            "--mxq-refresh writes baselines and CI is set: a gate must not move its own bar; add --mxq-refresh-in-ci "
            "if this job exists to refresh them"
        )
    try:
        BaselineStore(settings.baselines, media=settings.media, device="").check_writable()
    except MxqError as error:
        raise pytest.UsageError(str(error)) from None


class MxqSession:
    """One run with gates.

    Attributes:
        settings: the options.
        planned: every planned cell, also those that ``-k`` deselects.
        selected: nodeids of those that remain selected.
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
        self.fingerprint = take_fingerprint(self.device)
        self.store = BaselineStore(settings.baselines, media=settings.media, device=self.device.slug)
        self.planner = Planner(
            settings=settings, formats=formats, models=models, device=self.device, beside=config.rootpath
        )
        self.planned: dict[str, Cell] = {}
        self.selected: set[str] = set()
        self.cases: dict[tuple[str, str], Plan] = {}
        self._workflow: Workflow[Any] | None = None
        self._refresher: Refresher[Any] | None = None

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
        self.selected = {item.nodeid for item in items if PLAN in item.stash}

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
                if plan.case is not None and not plan.fault:
                    self.cases[plan.cell.model, plan.cell.case] = plan

    # ------------------------------------------------------------------ run

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Raise a test's fault, or skip it with its reason, before any fixture is made."""
        plan = item.stash.get(PLAN, None)
        if plan is None:
            return
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
        if verdict.outcome.is_failure:
            from pytest_mxq.reports.terminal import failure_text

            pytest.fail(failure_text(verdict), pytrace=False)
        return True

    def _run(self, plan: Plan, item: pytest.Function) -> Verdict:
        workload = _workload(item)
        if self.settings.refresh:
            return self._get_refresher().refresh(plan, workload)
        for old in self._comparison(plan, 0).parent.glob(f"{plan.cell.format}-{plan.cell.gate}-*.png"):
            old.unlink()  # of an earlier run: the report shows this one
        command = Rerun.of(self.config).command(item, plan.cell)
        return self._get_workflow().judge(plan, workload, next_command=command)

    def _get_workflow(self) -> Workflow[Any]:
        if self._workflow is None:
            from pytest_mxq.workflow import Workflow

            self._workflow = Workflow(
                engines=self._engines(),
                store=self.store,
                fingerprint=self.fingerprint,
                reference=self.settings.reference,
                strict=self.settings.strict,
                write_comparison=self._write_comparison,
            )
        return self._workflow

    def _get_refresher(self) -> Refresher[Any]:
        if self._refresher is None:
            from pytest_mxq.refresh import Refresher

            self._refresher = Refresher(
                engines=self._engines(),
                store=self.store,
                device=self.device.slug,
                fingerprint=self.fingerprint,
                formats=list(self.formats),
            )
        return self._refresher

    def _engines(self) -> Any:
        try:
            with known_noise_silenced():
                from pytest_mxq.engines import TorchEngines
        except ModuleNotFoundError as error:
            pytest.fail(
                f"{error.name} is not installed, and a gate needs it: pip install pytest-mxq brings torch, torchao and "
                "diffusers",
                pytrace=False,
            )
        from pytest_mxq.reports.terminal import make_progress

        return TorchEngines(self.device.kind, make_progress(self.config))

    def _comparison(self, plan: Plan, index: int) -> Path:
        folder = self.settings.report / model_folder_name(plan.cell.model) / case_file_name(plan.cell.case)
        return folder / f"{plan.cell.format}-{plan.cell.gate}-{index:02d}.png"

    def _write_comparison(self, plan: Plan, index: int, reference: Any, quantized: Any, caption: str) -> Path:
        from pytest_mxq.reports.pictures import write_comparison

        path = self._comparison(plan, index)
        if reference.size != quantized.size:  # nothing can be laid side by side; the odd one is shown alone
            path.parent.mkdir(parents=True, exist_ok=True)
            quantized.save(path)
            return path
        label = f"{plan.cell.format} (emulated)" if plan.emulated else plan.cell.format
        write_comparison(path, reference=reference, quantized=quantized, label=label, caption=caption)
        return path

    def pytest_sessionfinish(self) -> None:
        """Hand the plan from an xdist worker to the controller, which alone writes files."""
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["mxq_planned"] = [asdict(cell) for cell in self.planned.values()]

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
