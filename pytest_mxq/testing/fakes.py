"""A backend without torch; what a gate decides of its outputs is real."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mxq.baselines.manifest import Identity, Selection
from pytest_mxq.baselines.work import WorkRecord, work_changes
from pytest_mxq.errors import CaseFaultError, WeightsUnavailableError
from pytest_mxq.formats import Format
from pytest_mxq.gates.base import AccuracyGate
from pytest_mxq.gates.evidence import Evidence, RunEvidence
from pytest_mxq.gates.verdict import OutputFault

if TYPE_CHECKING:
    from pytest_mxq.evaluation.protocols import Workload
    from pytest_mxq.planning.arms import ArmSpec
    from pytest_mxq.planning.case import Case
from pytest_mxq.testing.behaviour import Behaviour

LOG = Path("backend.log")


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeOutputs:
    """Images of 16 x 16 pixels in one colour each."""

    images: tuple[Any, ...]
    positions: tuple[int, ...]
    faults: tuple[OutputFault, ...]
    identity: Identity
    evidence: Evidence | None = None
    works: dict[int, WorkRecord] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    originals: dict[int, FakeOutputs] = field(default_factory=dict)
    noun: str = "image"

    def subset(self, positions: Sequence[int]) -> FakeOutputs:
        """Return the images at some positions."""
        rows = [self.positions.index(position) for position in positions]
        return replace(self, images=tuple(self.images[row] for row in rows), positions=tuple(positions))

    def identical_positions(self, other: FakeOutputs) -> tuple[int, ...]:
        """Return the positions of bit-identical images."""
        rows = zip(self.positions, self.images, other.images, strict=True)
        return tuple(position for position, one, another in rows if one.tobytes() == another.tobytes())

    def work_differences(self, other: FakeOutputs) -> tuple[str, ...]:
        """Return in what the work of chunks that both ran differs, as the behaviour states it."""
        shared = self.works.keys() & other.works.keys()
        found = [text for start in shared for text in work_changes(self.works[start], other.works[start])]
        return tuple(dict.fromkeys(found))

    @property
    def work_records(self) -> dict[int, WorkRecord]:
        """Return the work of each chunk."""
        return self.works

    def differences(self, _other: FakeOutputs) -> tuple[str, ...]:
        """Return nothing: images have no length."""
        return ()

    def to_media(self) -> list[Any]:
        """Return the images."""
        return list(self.images)


class RecordingPipeline:
    """What a workload gets; it returns the prompts, so that prompts and seeds matter."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.calls: list[dict[str, Any]] = []
        self.pipe = "raw pipeline"

    def __call__(self, prompt: Any, **overrides: Any) -> list[str]:
        """Note a call's arguments, and return its prompts."""
        self.calls.append({**self.case.recipe.call, **overrides})
        return [prompt] if isinstance(prompt, str) else list(prompt)


class FakeBackend:
    """Generates one-colour images by PIL."""

    def __init__(self) -> None:
        self.behaviour = Behaviour.read()

    def generate(
        self, case: Case, workload: Workload, arm: ArmSpec, *, label: str, chunks: Sequence[int] | None = None
    ) -> FakeOutputs:
        """Generate a case, or some chunks of its prompts."""
        self._load()
        self.log(f"generate {case.recipe.name} {case.name} {label}")
        shifts = self._shifts(arm, case)
        size = case.settings.batch_size
        starts = list(range(0, len(case.prompts), size))
        images: list[Any] = []
        positions: list[int] = []
        calls: list[dict[str, Any]] = []
        for start in starts if chunks is None else [starts[chunk] for chunk in chunks]:
            prompts = case.prompts[start : start + size]
            pipeline = RecordingPipeline(case)
            result = workload(pipeline, prompts[0] if size == 1 else list(prompts))
            if not isinstance(result, list):
                raise CaseFaultError(f"the test returned {type(result).__name__}")
            images += [fake_image(text, shifts[(start + row) % len(shifts)]) for row, text in enumerate(result)]
            positions += range(start, start + len(prompts))
            calls += [call for call in pipeline.calls if call not in calls]
        faults = tuple(OutputFault(0, text) for text in self.behaviour.faults.get(label, ()))
        return FakeOutputs(
            images=tuple(images),
            positions=tuple(positions),
            faults=faults,
            identity=identity_of(case, calls, self.behaviour.weights),
            evidence=None if arm.number_format is None else self._run_evidence(),
            works=dict.fromkeys(positions[::size], self.behaviour.work_of(arm.name)),
        )

    def evidence(self, case: Case, arm: ArmSpec) -> Evidence:
        """Return the evidence that the behaviour states."""
        self._load()
        self.log(f"arm {case.recipe.name} {arm.name}")
        return self._evidence()

    def _run_evidence(self) -> Evidence:
        behaviour, built = self.behaviour, self._evidence()
        ran = built.quantized if behaviour.ran is None else behaviour.ran
        run = RunEvidence(
            ran=ran,
            denoiser_calls=8,
            arithmetic_share=0.9,
            multiplied=behaviour.multiplied,
            skipped=behaviour.skipped,
        )
        return replace(built, run=run)

    def _evidence(self) -> Evidence:
        names = [f"blocks.{index}" for index in range(self.behaviour.quantized)]
        return Evidence(
            quantized=len(names),
            chosen=len(names),
            total=5,
            weight_share=len(names) / 5,
            weight_bytes=50,
            bf16_bytes=100,
            layers={"blocks.*": len(names)},
            layers_sha256=hashlib.sha256("\n".join(names).encode()).hexdigest(),
        )

    def selection(self, _case: Case, _number_format: Format) -> Selection | None:
        """Return four layers of five."""
        return Selection.of([f"blocks.{index}" for index in range(4)], total=5, weight_share=0.8)

    def load(self, media: Sequence[Any], identity: Identity) -> FakeOutputs:
        """Return stored images."""
        return FakeOutputs(images=tuple(media), positions=tuple(range(len(media))), faults=(), identity=identity)

    def free_gib(self, _case: Case) -> float | None:
        """Return what the behaviour states."""
        return self.behaviour.free

    def release(self) -> None:
        """Free nothing: nothing is held."""

    def log(self, text: str) -> None:
        """Add a line to ``backend.log``."""
        with LOG.open("a") as file:
            file.write(text + "\n")

    def _load(self) -> None:
        if self.behaviour.unavailable is not None:
            raise WeightsUnavailableError(self.behaviour.unavailable)

    def _shifts(self, arm: ArmSpec, case: Case) -> list[int]:
        if arm.number_format is None:
            return [0 if arm.execution is case.settings.execution else 1]
        shift = self.behaviour.shift.get(arm.name, 10)
        return shift if isinstance(shift, list) else [shift]


class FakeScorer:
    """Scores one-colour images by their red."""

    def __init__(self) -> None:
        self.behaviour = Behaviour.read()

    def score(self, gate: AccuracyGate, reference: FakeOutputs, other: FakeOutputs) -> list[float]:
        """Return how far the images are apart on the gate's own scale; their distance is a thousandth of that in red.

        It is counted in the gate's `Behaviour.units`; where higher is better, down from the gate's largest bound.
        """
        distances = [abs(_red(one) - _red(two)) / 1000 for one, two in zip(reference.images, other.images, strict=True)]
        if self.behaviour.nan:
            return [float("nan")] * len(distances)
        best = gate.largest if gate.scale.higher_is_better else 0.0
        unit = self.behaviour.units.get(gate.name, gate.largest if gate.scale.higher_is_better else 1.0)
        return [best - unit * distance if gate.scale.higher_is_better else unit * distance for distance in distances]

    def preview(self, _gate: AccuracyGate, outputs: FakeOutputs, index: int, _frame: int | None) -> Any:
        """Return the image."""
        return outputs.images[index]

    def lpips_map(self, _reference: Any, _quantized: Any) -> None:
        """Return nothing: the images are too small for LPIPS."""


def fake_image(text: str, shift: int) -> Any:
    """Return the image of a prompt: 16 x 16 pixels in one colour, its red shifted."""
    from PIL import Image

    base = hashlib.sha256(text.encode()).digest()
    return Image.new("RGB", (16, 16), (base[0] // 2 + shift, base[1], base[2]))


def _red(image: Any) -> int:
    return int(image.getpixel((0, 0))[0])


def identity_of(case: Case, calls: list[dict[str, Any]], weights: str) -> Identity:
    """Return what was observed of a case's calls."""
    return Identity(
        model=case.recipe.name,
        weights=weights,
        prompts=case.prompts,
        seed=case.settings.seed,
        batch_size=case.settings.batch_size,
        images_per_prompt=1,
        width=16,
        height=16,
        execution=case.settings.execution.value,
        calls=tuple(calls),
    )
