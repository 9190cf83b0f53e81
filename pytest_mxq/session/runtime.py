"""What a session works with, made when it is first needed: backend, benchmark, workflow, refresher."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mxq.baselines.paths import case_file_name, model_folder_name
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.environment.fingerprint import take_fingerprint
from pytest_mxq.environment.third_party_warnings import silence_third_party_warnings
from pytest_mxq.errors import MxqError, PromptsUnavailableError
from pytest_mxq.planning.requirements import Use, memory_in_use
from pytest_mxq.planning.settings import PromptSet

if TYPE_CHECKING:
    from pytest_mxq.environment.device import Device
    from pytest_mxq.evaluation.accuracy import Workflow
    from pytest_mxq.evaluation.performance import Performance
    from pytest_mxq.evaluation.refresh import Refresher
    from pytest_mxq.formats import Format
    from pytest_mxq.planning.case import Plan
    from pytest_mxq.planning.settings import Settings

# Set for the child processes of a refresh, which add a session and generate nothing, to the number under which the
# GPU's driver lists their parent: it holds the GPU, and waits.
TIMING_ONLY = "PYTEST_MXQ_TIMING_ONLY"


class Runtime:
    """Made once a session; torch and diffusers are imported when the first gate runs.

    Attributes:
        fingerprint: of this process.
        store: the stored baselines of this device.
    """

    def __init__(self, config: pytest.Config, settings: Settings, device: Device, formats: Sequence[Format]) -> None:
        self._config = config
        self._settings = settings
        self._device = device
        self._formats = formats
        self.fingerprint = take_fingerprint(device)
        self.store = BaselineStore(settings.baselines, media=settings.media, device=device.slug)

    @cached_property
    def backend(self) -> Any:
        """Arms and probes."""
        try:
            with silence_third_party_warnings():
                from pytest_mxq.backend.generation import TorchBackend
        except ModuleNotFoundError as error:
            pytest.fail(
                f"{error.name} is not installed, and a gate needs it: pip install pytest-mxq brings torch, torchao and "
                "diffusers",
                pytrace=False,
            )
        from pytest_mxq.reports.summary import make_progress

        backend = TorchBackend(self._device.kind, make_progress(self._config))
        backend.check_device(self._device)
        return backend

    @cached_property
    def benchmark(self) -> Any:
        """What times and weighs the backend' arms."""
        from pytest_mxq.backend.benchmark import TorchBenchmark

        return TorchBenchmark(self.backend, self._device, self._settings.compile_cache, known=_waiting_parent())

    @cached_property
    def workflow(self) -> Workflow[Any]:
        """The path of every gate."""
        from pytest_mxq.evaluation.accuracy import Workflow

        return Workflow(
            backend=self.backend,
            store=self.store,
            fingerprint=self.fingerprint,
            reference=self._settings.reference,
            strict=self._settings.strict,
            write_comparison=self._write_comparison,
            performance=lambda: self.performance,
        )

    @cached_property
    def performance(self) -> Performance:
        """The path of speed and memory gates."""
        from pytest_mxq.evaluation.performance import Performance

        return Performance(
            benchmark=self.benchmark,
            fingerprint=self.fingerprint,
            reference=self._settings.reference,
            strict=self._settings.strict,
            alpha=self._settings.alpha,
        )

    @cached_property
    def refresher(self) -> Refresher[Any]:
        """What measures baselines."""
        from pytest_mxq.evaluation.refresh import Refresher

        return Refresher(
            backend=self.backend,
            store=self.store,
            device=self._device.slug,
            fingerprint=self.fingerprint,
            formats=self._formats,
            benchmark=(lambda: self.benchmark) if self._device.kind == "cuda" else None,
            timing_only=bool(os.environ.get(TIMING_ONLY)),
        )

    def memory_in_use(self, plan: Plan) -> str:
        """Why a plan's model cannot be loaded now: others hold too much of the device; empty: it can, or it is loaded.

        Found out before it is loaded: to run out of memory takes as long as loading.
        """
        if plan.case is None or plan.case.recipe.memory is None or self._device.kind != "cuda":
            return ""
        free = self.backend.free_gib(plan.case)
        if free is None:
            return ""
        from pytest_mxq.profiling.telemetry import open_telemetry

        with open_telemetry(self._device, known=_waiting_parent()) as telemetry:
            others = telemetry.others()
        return memory_in_use(
            plan.case, self._device, Use.of(plan.kind, emulated=plan.emulated), free=free, others=others
        )

    def with_prompts(self, plan: Plan) -> Plan:
        """The plan with its prompts, where they are a named set; with a skip or a fault if they cannot be had."""
        case = plan.case
        if case is None or not isinstance(case.settings.prompts, PromptSet):
            return plan
        found = self._drawbench
        if isinstance(found, PromptsUnavailableError):
            return replace(plan, skip=str(found))
        if isinstance(found, MxqError):
            return replace(plan, fault=str(found))
        return replace(plan, case=replace(case, prompts=found))

    @cached_property
    def _drawbench(self) -> tuple[str, ...] | MxqError:
        """DrawBench, or why not: a Hub that is out of reach is waited for once a session."""
        from pytest_mxq.models.drawbench import read_drawbench

        try:
            return read_drawbench()
        except MxqError as error:
            return error

    def forget_comparisons(self, plan: Plan) -> None:
        """Remove the comparisons of an earlier run: the report shows this one."""
        for old in self._comparison(plan, 0).parent.glob(f"{plan.cell.format}-{plan.cell.gate}-*.png"):
            old.unlink()

    def _comparison(self, plan: Plan, index: int) -> Path:
        folder = self._settings.report / model_folder_name(plan.cell.model) / case_file_name(plan.cell.case)
        return folder / f"{plan.cell.format}-{plan.cell.gate}-{index:02d}.png"

    def _write_comparison(self, plan: Plan, index: int, reference: Any, quantized: Any, caption: str) -> Path:
        from pytest_mxq.reports.comparison_images import write_comparison

        path = self._comparison(plan, index)
        if reference.size != quantized.size:  # nothing can be laid side by side; the odd one is shown alone
            path.parent.mkdir(parents=True, exist_ok=True)
            quantized.save(path)
            return path
        label = f"{plan.cell.format} (emulated)" if plan.emulated else plan.cell.format
        write_comparison(path, reference=reference, quantized=quantized, label=label, caption=caption)
        return path


def _waiting_parent() -> tuple[int, ...]:
    """The process for which this one adds a timing session, as the GPU's driver numbers it."""
    parent = os.environ.get(TIMING_ONLY, "")
    return (int(parent),) if parent.isdecimal() else ()
