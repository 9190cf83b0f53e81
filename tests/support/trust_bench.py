"""Injected faults, one row each, and the bench that lets a real gate judge them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gate_bench import CPU, FORMATS, GATES, Bench
from shipped_gates import marks_of_images, read_marker

from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.errors import MxqError
from pytest_mxq.evaluation.protocols import Progress
from pytest_mxq.formats import Format
from pytest_mxq.gates.base import AccuracyGate
from pytest_mxq.gates.bounds import MarkerArguments
from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import Cell, Verdict
from pytest_mxq.models import Recipe
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.plans import OutputsPlan
from pytest_mxq.planning.settings import Reference

RECIPE = replace(DEMO, call=MappingProxyType({**DEMO.call, "num_inference_steps": 2}))

WHOLE: dict[str, Any] = {"case": "demo", "recipe": lambda: DEMO, "prompts": DEMO.prompts[:8], "batch_size": 8}
"""What the packaged gate generates, for faults that two images of two steps would not show; see `Fault.case`."""

_SHIPPED = marks_of_images("test_demo.py", "test_demo")


class Layer(StrEnum):
    """Where a fault is injected."""

    NOTHING = "nothing"
    BODY = "workload body"
    LAYERS = "layers"
    SCHEDULER = "scheduler"
    WEIGHTS = "weights"
    OUTPUTS = "outputs"
    BASELINE = "stored baseline"
    ENVIRONMENT = "environment"
    BOUND = "bound"


@dataclass(slots=True, kw_only=True)
class Scene:
    """One call of a test's body.

    Attributes:
        pipeline: the `mxq_pipeline` that the body was given.
        prompt: its prompt, or prompts.
        memory: what the body keeps from one call to the next, on both arms.
    """

    pipeline: Any
    prompt: Any
    memory: dict[str, Any]

    @property
    def pipe(self) -> Any:
        """The pipeline of diffusers."""
        return self.pipeline.pipe

    @property
    def is_quantized(self) -> bool:
        """Whether it is the quantized arm, as any body can find out."""
        weights = self.pipe.transformer.parameters()
        return any(type(weight).__name__ in {"EmulatedTensor", "_Wrapped"} for weight in weights)

    def call(self, **arguments: Any) -> Any:
        """Generate, and return the images (N, 3, H, W)."""
        return self.pipeline(self.prompt, **arguments).images


Act = Callable[[Scene], object]


@dataclass(slots=True)
class Body:
    """A test's body that does one thing on the BF16 arm and another one on the quantized arm."""

    on_quantized: Act
    on_bf16: Act
    memory: dict[str, Any] = field(default_factory=dict)

    def __call__(self, pipeline: Any, prompt: Any) -> object:
        """Run it."""
        scene = Scene(pipeline=pipeline, prompt=prompt, memory=self.memory)
        if scene.is_quantized:
            return self.on_quantized(scene)
        self.memory["pipe"], self.memory["transformer"] = scene.pipe, scene.pipe.transformer
        result = self.on_bf16(scene)
        self.memory.setdefault("images", []).append(result)
        return result


def plainly(scene: Scene) -> object:
    """Generate and change nothing."""
    return scene.call()


WITHOUT_EFFECT: set[Act] = {plainly}
"""Bodies of the BF16 arm that many rows share."""


@dataclass(slots=True)
class _Remembered:
    case: Case
    act: Act
    asked: tuple[Any, ...]
    pipe: Any
    outputs: Any
    images: list[Any]


class RememberingBackend(TorchBackend):
    """Generates what BF16 generates of an unchanged case once: most rows inject their fault into the other arm."""

    def __init__(self, device: str, progress: Progress) -> None:
        super().__init__(device, progress)
        self._remembered: list[_Remembered] = []

    def generate(
        self, case: Case, workload: Any, arm: ArmSpec, *, label: str, chunks: Sequence[int] | None = None
    ) -> Any:
        """Generate; of BF16's arm only what is not remembered."""
        is_shared = isinstance(workload, Body) and workload.on_bf16 in WITHOUT_EFFECT
        if arm.number_format is not None or not is_shared or case.recipe not in (RECIPE, DEMO):
            return super().generate(case, workload, arm, label=label, chunks=chunks)
        pipe, asked = self._arm(case, arm).pipe, (arm, chunks)
        for known in self._remembered:
            if (known.case, known.act, known.asked) == (case, workload.on_bf16, asked) and known.pipe is pipe:
                workload.memory.update(pipe=pipe, transformer=pipe.transformer, images=list(known.images))
                return known.outputs
        outputs = super().generate(case, workload, arm, label=label, chunks=chunks)
        images = list(workload.memory["images"])
        self._remembered.append(
            _Remembered(case=case, act=workload.on_bf16, asked=asked, pipe=pipe, outputs=outputs, images=images)
        )
        return outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row: what is injected into a gate of the packaged model, and the verdict that must come.

    Attributes:
        injected: what is injected.
        layer: where.
        expected: the verdict.
        why: why it is this one.
        said: what the verdict's sentence or cautions must contain.
        quantized: body on the quantized arm.
        bf16: body on the BF16 arm.
        recipe: makes the model's recipe.
        number_format: makes the format.
        gate: name of the gate.
        reference: what is compared with.
        stored: changes the stored baseline.
        bound: arguments of the gate's marker; empty: the packaged gate's.
        case: name of the case, which a baseline is stored for: "case" is two images of two steps, generated one by one,
            and "demo" what the packaged gate generates.
        prompts: the case's prompts.
        batch_size: the case's.
        settings: more of the case's settings.
        preflight: why the machine cannot be used now.
        fingerprint: hard facts of this machine that are another's.
        layers: number of layers that must have run quantized; None: not looked at.
        unseen: whether no bound of the images shows the fault.
        hole: why the gate does not give this verdict yet; None: it does.
    """

    injected: str
    layer: Layer
    expected: Outcome
    why: str
    said: str = ""
    quantized: Act = plainly
    bf16: Act = plainly
    recipe: Callable[[], Recipe] = lambda: RECIPE
    number_format: Callable[[], Format] = lambda: FORMATS["mxfp8"]
    gate: str = "lpips"
    reference: Reference = Reference.AUTO
    stored: Callable[[Bench], None] | None = None
    bound: Mapping[str, Any] = field(default_factory=dict)
    case: str = "case"
    prompts: tuple[str, ...] = DEMO.prompts[:2]
    batch_size: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    preflight: str | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    layers: int | None = None
    unseen: bool = False
    hole: str | None = None


class TrustBench(Bench):
    """A bench with its own copy of the stored baselines of both cases."""

    def __init__(self, backend: TorchBackend, root: Path, stored: Path | None = None) -> None:
        super().__init__(backend, root)
        if stored is not None:
            shutil.copytree(stored, root / "baselines")

    @property
    def outputs(self) -> list[Path]:
        """The stored images, in the order of the prompts."""
        return sorted(self.manifest.with_suffix("").glob("*.png"))

    def trial(self, fault: Fault) -> Verdict:
        """Inject a fault and let the gate judge; a bound that cannot be read is the planner's error, as in a session."""
        if fault.stored is not None:
            fault.stored(self)
        self.fingerprint = replace_facts(self.fingerprint, fault.fingerprint)
        number_format, recipe = fault.number_format(), fault.recipe()
        cell = Cell(nodeid="t::x", model=recipe.name, case=fault.case, format=number_format.name, gate=fault.gate)
        case = self.case(recipe, batch_size=fault.batch_size, **fault.settings)
        case = replace(case, name=fault.case, prompts=fault.prompts)
        try:
            plan = self._plan(fault, cell, case, number_format)
        except MxqError as error:
            return Verdict(cell=cell, outcome=Outcome.ERROR, sentence=str(error))
        evaluator = replace(self.evaluator(fault.reference), preflight=lambda _plan: fault.preflight)
        return evaluator.evaluate(plan, Body(fault.quantized, fault.bf16))

    @staticmethod
    def _plan(fault: Fault, cell: Cell, case: Case, number_format: Format) -> OutputsPlan:
        gate = GATES[fault.gate]
        assert isinstance(gate, AccuracyGate)
        drift = LPIPS.drift_check(LPIPS.read_bound(_arguments("lpips", {}, cell.format)))
        assert drift is not None
        return OutputsPlan(
            cell=cell,
            case=case,
            gate=gate,
            number_format=number_format,
            bound=gate.read_bound(_arguments(fault.gate, fault.bound, cell.format)),
            emulated=True,
            drift_checks=(drift,),
        )


def _arguments(gate: str, stated: Mapping[str, Any], format_name: str) -> MarkerArguments:
    marker = f"mxq_{gate}"
    named = stated or read_marker(_SHIPPED, marker)
    return MarkerArguments(marker=marker, positional=(), named=named, format_name=format_name, emulated=True)


def replace_facts(fingerprint: Any, facts: Mapping[str, str]) -> Any:
    """Return a fingerprint with some of its hard facts replaced."""
    return type(fingerprint)(hard={**fingerprint.hard, **facts}, recorded=fingerprint.recorded)


def empty_store(bench: Bench) -> None:
    """Remove the stored baseline."""
    shutil.rmtree(bench.root / "baselines")
    bench.store = BaselineStore(bench.root / "baselines", media=None, device=CPU.slug)
