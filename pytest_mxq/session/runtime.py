"""What a session works with, made when it is first needed: the machine, the backend, the evaluator."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mxq.baselines.paths import case_file_name, model_folder_name
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.environment.device import find_device
from pytest_mxq.environment.fingerprint import take_fingerprint
from pytest_mxq.environment.third_party_warnings import silence_third_party_warnings
from pytest_mxq.errors import MxqError, PromptsUnavailableError
from pytest_mxq.evaluation.accuracy import AccuracyStrategy
from pytest_mxq.evaluation.performance import PerformanceStrategy
from pytest_mxq.evaluation.protocols import Backend, Benchmark, Machine, Processes, Progress, Scorer
from pytest_mxq.evaluation.reference import References
from pytest_mxq.evaluation.refresh import RefreshStrategy
from pytest_mxq.evaluation.run import Evaluator
from pytest_mxq.pipelines.weights_names import known_weights
from pytest_mxq.planning.options import answer
from pytest_mxq.planning.plans import GatePlan, InvalidPlan, Plan, RefreshPlan, RunnablePlan, SkippedPlan
from pytest_mxq.planning.requirements import Use, memory_in_use
from pytest_mxq.planning.settings import PromptSet
from pytest_mxq.profiling.telemetry import GpuProcesses
from pytest_mxq.session.comparison_files import ComparisonWriter
from pytest_mxq.session.timing_processes import is_child, waiting_parent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pytest_mxq.environment.device import Device
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.options import Kinds
    from pytest_mxq.planning.settings import Settings
    from pytest_mxq.reports.progress import Progress as ShownProgress


def find_machine(config: pytest.Config) -> Machine:
    """Return what the session runs on: this machine, or the one that the hook ``pytest_mxq_machine`` names.

    Raises:
        pytest.UsageError: the hook raised, or returned something else.
    """
    try:
        named: Any = answer("pytest_mxq_machine", config.hook.pytest_mxq_machine)
    except MxqError as error:
        raise pytest.UsageError(str(error)) from None
    if named is not None:
        # By its fields: pytester's runs in one process load the class again.
        if not all(hasattr(named, field) for field in Machine.__dataclass_fields__):
            raise pytest.UsageError(f"the hook pytest_mxq_machine must return a Machine, got {named!r}")
        machine: Machine = named
        return machine
    device = find_device()
    return Machine(
        device=device,
        backend=lambda progress: _make_backend(device, progress),
        scorer=_make_scorer,
        benchmark=lambda backend, cache: _make_benchmark(device, backend, cache),
        processes=GpuProcesses(device=device, known=waiting_parent()),
        weights=known_weights,
    )


def _make_backend(device: Device, progress: Progress) -> Backend[Any]:
    try:
        with silence_third_party_warnings():
            from pytest_mxq.backend.generation import TorchBackend
    except ModuleNotFoundError as error:
        pytest.fail(
            f"{error.name} is not installed, and a gate needs it: pip install pytest-mxq brings torch, torchao and "
            "diffusers",
            pytrace=False,
        )
    backend = TorchBackend(device.kind, progress)
    backend.check_device(device)
    return backend


def _make_scorer() -> Scorer[Any]:
    from pytest_mxq.backend.scoring import TorchScorer

    return TorchScorer()


def _make_benchmark(device: Device, backend: Any, cache: Path | None) -> Benchmark:
    from pytest_mxq.backend.benchmark import TorchBenchmark

    return TorchBenchmark(backend, device, cache, known=waiting_parent())


class Runtime:
    """Made once a session; torch and diffusers are imported when the first gate runs.

    Attributes:
        device: what the session runs on.
        fingerprint: of this process.
        store: the stored baselines of this device.
        cautions: what could not be written; no gate fails for it.
        comparisons: writes the images of verdicts.
        progress: shows how far a gate is.
    """

    def __init__(self, machine: Machine, settings: Settings, kinds: Kinds, progress: ShownProgress) -> None:
        self._machine = machine
        self._settings = settings
        self._kinds = kinds
        self.progress = progress
        self.cautions: list[str] = []
        self.comparisons = ComparisonWriter(settings.report, self.cautions)
        self._weights: dict[tuple[str, str | None, bool], str | None] = {}
        self.device = machine.device
        self.fingerprint = take_fingerprint(machine.device)
        self.store = BaselineStore(settings.baselines, media=settings.media, device=machine.device.slug)

    @cached_property
    def backend(self) -> Backend[Any]:
        """What builds arms and generates."""
        return self._machine.backend(self.progress)

    @cached_property
    def scorer(self) -> Scorer[Any]:
        """What compares outputs."""
        return self._machine.scorer()

    @property
    def processes(self) -> Processes:
        """Who uses the device."""
        return self._machine.processes

    @cached_property
    def benchmark(self) -> Benchmark:
        """What measures time and memory of the backend's arms."""
        return self._machine.benchmark(self.backend, self._settings.compile_cache)

    def weights(self, case: Case) -> str | None:
        """Return the name of a case's weights; None where only loading them tells. A folder is read once a session."""
        source = case.source
        key = source.recipe.source, source.revision or source.recipe.revision, source.random
        if key not in self._weights:
            self._weights[key] = self._machine.weights(source)
        return self._weights[key]

    @cached_property
    def evaluator(self) -> Evaluator:
        """What turns plans into verdicts."""
        return Evaluator(
            fingerprint=self.fingerprint,
            preflight=self._preflight,
            accuracy=lambda: self._accuracy,
            performance=lambda: self._performance,
            refresh=lambda: self._refresh,
        )

    @cached_property
    def _accuracy(self) -> AccuracyStrategy[Any]:
        references = References(
            backend=self.backend,
            scorer=self.scorer,
            store=self.store,
            fingerprint=self.fingerprint,
            mode=self._settings.reference,
            strict=self._settings.strict,
            weights=self.weights,
        )
        return AccuracyStrategy(
            backend=self.backend, scorer=self.scorer, references=references, write_comparison=self.comparisons.write
        )

    @cached_property
    def _performance(self) -> PerformanceStrategy:
        return PerformanceStrategy(
            benchmark=self.benchmark,
            store=self.store,
            fingerprint=self.fingerprint,
            mode=self._settings.reference,
            strict=self._settings.strict,
            alpha=self._settings.alpha,
            weights=self.weights,
        )

    @cached_property
    def _refresh(self) -> RefreshStrategy[Any]:
        return RefreshStrategy(
            backend=self.backend,
            scorer=self.scorer,
            store=self.store,
            device=self.device.slug,
            fingerprint=self.fingerprint,
            formats=tuple(self._kinds.formats),
            benchmark=(lambda: self.benchmark) if self.device.kind == "cuda" else None,
            timing_only=is_child(),
            write_sheets=self._write_refresh_sheets,
        )

    def _write_refresh_sheets(self, case: Case, pairs: Iterable[tuple[int, Any, Any]]) -> tuple[str, ...]:
        from pytest_mxq.reports.refresh_sheets import write_sheets

        folder = self._settings.report / model_folder_name(case.recipe.name) / case_file_name(case.name)
        try:
            paths = write_sheets(folder, pairs)
        except OSError as error:  # a full or read-only disk says nothing of the model
            self.cautions.append(f"the sheets of old and new images could not be written: {error}")
            return ()
        return tuple(path.relative_to(self._settings.report).as_posix() for path in paths)

    def _preflight(self, plan: RunnablePlan) -> str | None:
        """Return why a plan cannot be carried out now: nothing stores its video, or others hold the device; or None.

        Found out before it is loaded: to run out of memory takes as long as loading.
        """
        if isinstance(plan, RefreshPlan) and _lacks_video(plan.case):
            name = plan.case.recipe.name
            return f"model {name!r} generates video, which PyAV stores: pip install 'pytest-mxq[video]'"
        if plan.case.recipe.memory is None or self.device.kind != "cuda":
            return None
        free = self.backend.free_gib(plan.case)
        if free is None:
            return None
        use = Use.BF16 if isinstance(plan, RefreshPlan) else Use.of(plan.gate, emulated=plan.emulated)
        others = self.processes.others()
        return memory_in_use(plan.case, self.device, use, free=free, others=others)

    def end_progress(self) -> None:
        """Take away the progress of a gate that has ended."""
        self.progress("", 1, 1)

    def with_prompts(self, plan: Plan) -> Plan:
        """Return the plan with its prompts, where they are a named set; skipped or invalid if there are none."""
        if not isinstance(plan, GatePlan | RefreshPlan) or not isinstance(plan.case.settings.prompts, PromptSet):
            return plan
        found = self._drawbench
        if isinstance(found, PromptsUnavailableError):
            return SkippedPlan(cell=plan.cell, case=plan.case, reason=str(found))
        if isinstance(found, MxqError):
            return InvalidPlan(cell=plan.cell, fault=str(found))
        return replace(plan, case=replace(plan.case, prompts=found))

    @cached_property
    def _drawbench(self) -> tuple[str, ...] | MxqError:
        """DrawBench, or why not: a Hub that is out of reach is waited for once a session."""
        from pytest_mxq.models.drawbench import read_drawbench

        try:
            return read_drawbench()
        except MxqError as error:
            return error


def _lacks_video(case: Case) -> bool:
    return case.recipe.generates_video and not case.random_weights and find_spec("av") is None
