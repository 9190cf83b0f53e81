"""One store and one evaluator over the real backend on the CPU, for whole gates with the packaged model."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.backend.scoring import TorchScorer
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.environment.device import Device
from pytest_mxq.environment.fingerprint import take_fingerprint
from pytest_mxq.evaluation.accuracy import AccuracyStrategy
from pytest_mxq.evaluation.comparisons import ComparisonFiles, Shown
from pytest_mxq.evaluation.reference import References
from pytest_mxq.evaluation.refresh import RefreshStrategy
from pytest_mxq.evaluation.run import Evaluator
from pytest_mxq.formats import Format, built_in_formats
from pytest_mxq.gates import built_in_gates
from pytest_mxq.gates.base import AccuracyGate, DriftCheck
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.verdict import Cell, Verdict
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines.weights_names import known_weights
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.plans import OutputsPlan, RefreshPlan
from pytest_mxq.planning.settings import CaseSettings, Reference
from pytest_mxq.reports.comparison_images import write_comparison

if TYPE_CHECKING:
    import pytest

CPU = Device(kind="cpu", name="cpu", capability=None, slug="cpu-test", total_memory_gib=None, facts={})
FORMATS = {number_format.name: number_format for number_format in built_in_formats()}
GATES = {gate.name: gate for gate in built_in_gates() if isinstance(gate, AccuracyGate)}
QUICK = replace(DEMO, call=MappingProxyType({**DEMO.call, "height": 64, "width": 64, "num_inference_steps": 3}))


def drift_checks(gate: AccuracyGate, bound: Bound) -> tuple[DriftCheck, ...]:
    """How a test whose LPIPS bound is this one tells reference drift."""
    lpips = DriftCheck(gate=LPIPS, limit=min(0.02, bound.mean / 4))
    own = gate.drift_check(bound) if gate is not LPIPS else None
    return (lpips,) if own is None else (lpips, own)


def generate(pipeline: Any, prompt: Any) -> Any:
    return pipeline(prompt)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A comparison that was written: of two images of this size (width, height)."""

    path: Path
    size: tuple[int, int]
    caption: str


class Bench:
    """One store and its evaluators over the module's backend."""

    def __init__(self, backend: TorchBackend, root: Path) -> None:
        self.backend = backend
        self.scorer = TorchScorer()
        self.root = root
        self.store = BaselineStore(root / "baselines", media=None, device=CPU.slug)
        self.fingerprint = take_fingerprint(CPU)
        self.compared: list[Compared] = []

    def case(self, recipe: Any = QUICK, prompts: int = 3, batch_size: int = 1, **settings: Any) -> Case:
        chosen = CaseSettings(model=recipe.name, batch_size=batch_size, **settings)
        return Case(recipe=recipe, name="case", settings=chosen, prompts=DEMO.prompts[:prompts])

    def refresh(self, case: Case | None = None, workload: Callable[..., Any] = generate) -> Verdict:
        cell = Cell(nodeid="t::x[bf16-refresh]", model="demo", case="case", format="bf16", gate="refresh")
        return self.evaluator().evaluate(RefreshPlan(cell=cell, case=case or self.case()), workload)

    def judge(
        self,
        name: str = "mxfp8",
        gate: str = "lpips",
        bound: float = 0.05,
        *,
        case: Case | None = None,
        reference: Reference = Reference.AUTO,
        workload: Callable[..., Any] = generate,
        formats: dict[str, Format] | None = None,
        evaluator: Evaluator | None = None,
    ) -> Verdict:
        case = case or self.case()
        cell = Cell(nodeid=f"t::x[{name}-{gate}]", model=case.recipe.name, case="case", format=name, gate=gate)
        plan = OutputsPlan(
            cell=cell,
            case=case,
            gate=GATES[gate],
            number_format={**FORMATS, **(formats or {})}[name],
            bound=Bound(mean=bound, worst=None),
            emulated=True,
            drift_checks=drift_checks(GATES[gate], Bound(mean=bound, worst=None)),
        )
        return (evaluator or self.evaluator(reference)).evaluate(plan, workload)

    def evaluator(self, reference: Reference = Reference.AUTO) -> Evaluator:
        references = References(
            backend=self.backend,
            scorer=self.scorer,
            store=self.store,
            fingerprint=self.fingerprint,
            mode=reference,
            strict=False,
            weights=lambda case: known_weights(case.source),
        )
        accuracy = AccuracyStrategy(
            backend=self.backend, scorer=self.scorer, references=references, write_comparison=self._write
        )
        refresh = RefreshStrategy(
            backend=self.backend,
            scorer=self.scorer,
            store=self.store,
            device=CPU.slug,
            fingerprint=self.fingerprint,
            formats=list(FORMATS.values()),
        )
        return Evaluator(
            fingerprint=self.fingerprint,
            preflight=lambda _plan: None,
            accuracy=lambda: accuracy,
            performance=_no_performance,
            refresh=lambda: refresh,
        )

    def _write(self, _plan: OutputsPlan, shown: Shown) -> ComparisonFiles:
        path = self.root / f"{shown.output}.png"
        images = {"reference": shown.reference, "quantized": shown.quantized}
        write_comparison(path, **images, label="quantized", prompt=shown.prompt, text=shown.text or "")
        self.compared.append(Compared(path=path, size=shown.reference.size, caption=f"{shown.prompt}   {shown.text}"))
        return ComparisonFiles(sheet=path.name)

    @property
    def manifest(self) -> Path:
        return self.store.manifest_path("demo", "case")


@contextmanager
def one_thread() -> Iterator[TorchBackend]:
    """Backend on one thread: two on a busy two-core machine are slower, and generate the same images."""
    gc.collect()
    gc.freeze()  # what was imported since the collection: each release of an arm would look through all of it
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TorchBackend("cpu", lambda _label, _done, _total: None)
    torch.set_num_threads(threads)


def _no_performance() -> NoReturn:
    raise AssertionError("a gate of images needs no benchmark")


def without_compiler(patch: pytest.MonkeyPatch) -> None:
    """Have no backend generate in another execution mode than its case's: a cold compilation takes half a minute."""
    generate_there = TorchBackend.generate

    def generate_here(
        backend: TorchBackend, case: Case, workload: Callable[..., Any], arm: ArmSpec, **options: Any
    ) -> Any:
        if arm.execution is not case.settings.execution:
            raise RuntimeError("no compiler")
        return generate_there(backend, case, workload, arm, **options)

    patch.setattr(TorchBackend, "generate", generate_here)
