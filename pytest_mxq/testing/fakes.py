"""A backend and a benchmark without torch; what a gate decides of them is real."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace as replace_struct

from pytest_mxq.baselines.manifest import Identity, Selection
from pytest_mxq.baselines.work import ObservedRun, WorkRecord, work_changes
from pytest_mxq.environment.device import Device
from pytest_mxq.errors import CaseFaultError, MxqError, WeightsUnavailableError
from pytest_mxq.evaluation.protocols import Machine
from pytest_mxq.formats import Format
from pytest_mxq.gates.base import AccuracyGate
from pytest_mxq.gates.evidence import Evidence, RunEvidence
from pytest_mxq.gates.extrapolation import Extrapolation
from pytest_mxq.gates.memory import PeakMemory
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.speed_statistics import SpeedMode
from pytest_mxq.gates.speedup import SpeedSamples
from pytest_mxq.gates.verdict import OutputFault

if TYPE_CHECKING:
    from pytest_mxq.evaluation.protocols import Measured, Workload
    from pytest_mxq.gates.sampling import Sampling
    from pytest_mxq.planning.arms import ArmSpec
    from pytest_mxq.planning.case import Case
from pytest_mxq.testing.behaviour import Behaviour
from pytest_mxq.testing.devices import CPU

LOG = Path("backend.log")


def fake_machine(device: Device = CPU) -> Machine:
    """Return a machine whose backend and benchmark need no torch."""
    return Machine(
        device=device,
        backend=lambda _progress: FakeBackend(),
        benchmark=lambda backend, _cache: FakeBenchmark(backend),
        weights=lambda _source: Behaviour.read().weights,
    )


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
    noun: str = "image"

    def subset(self, positions: Sequence[int]) -> FakeOutputs:
        """Return the images at some positions."""
        rows = [self.positions.index(position) for position in positions]
        return replace(self, images=tuple(self.images[row] for row in rows), positions=tuple(positions))

    def equals(self, other: FakeOutputs) -> bool:
        """Tell whether all images are bit-identical."""
        return [image.tobytes() for image in self.images] == [image.tobytes() for image in other.images]

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


class _FakePipeline:
    """What a workload gets; it returns the prompts, so that prompts and seeds matter."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.calls: list[dict[str, Any]] = []
        self.pipe = "raw pipeline"

    def __call__(self, prompt: Any, **overrides: Any) -> list[str]:
        self.calls.append({**self.case.recipe.call, **overrides})
        return [prompt] if isinstance(prompt, str) else list(prompt)


class FakeBackend:
    """Generates one-colour images by PIL, and scores them by their red; what a gate decides of it is real."""

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
            pipeline = _FakePipeline(case)
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
            identity=_identity(case, calls, self.behaviour.weights),
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

    def score(self, gate: AccuracyGate, reference: FakeOutputs, other: FakeOutputs) -> list[float]:
        """Return the difference of the first pixel's red / 1000 as LPIPS and the like; SSIM and PSNR follow from it."""
        lpips = [abs(_red(one) - _red(two)) / 1000 for one, two in zip(reference.images, other.images, strict=True)]
        if self.behaviour.nan:
            return [float("nan")] * len(lpips)
        derived: dict[str, Callable[[float], float]] = {
            "ssim": lambda value: 1 - value,
            "psnr": lambda value: 60 - 1000 * value,
            "audio": lambda value: 1000 * value,
        }
        return [derived.get(gate.name, float)(value) for value in lpips]

    def preview(self, _gate: AccuracyGate, outputs: FakeOutputs, index: int, _frame: int | None) -> Any:
        """Return the image."""
        return outputs.images[index]

    def lpips_map(self, _reference: Any, _quantized: Any) -> None:
        """Return nothing: the images are too small for LPIPS."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeTimedBf16:
    """A session of BF16 as the behaviour states it."""

    seconds: tuple[float, ...]
    peak_gib: float | None
    execution: str
    observed: ObservedRun
    short: Measured | None
    predicted: float | None


class FakeBenchmark:
    """Times as the behaviour says: seconds of BF16 and of each format, with a little scatter."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend
        self.behaviour = backend.behaviour

    def evidence(self, case: Case, number_format: Format, _beside: Sequence[Format] = ()) -> Evidence:
        """Return the evidence that the behaviour states."""
        from pytest_mxq.planning.arms import ArmSpec

        arm = ArmSpec(number_format=number_format, emulated=False, execution=case.settings.execution)
        return self.backend.evidence(case, arm)

    def run_evidence(self, _case: Case, _number_format: Format) -> Evidence:
        """Return the evidence of what ran that the behaviour states."""
        return self.backend._run_evidence()  # noqa: SLF001  they are one fake machine

    def time_live(
        self, case: Case, workload: Workload, formats: Sequence[Format], *, sampling: Sampling, seed: int
    ) -> dict[str, SpeedSamples]:
        """Return eight rounds of BF16 and of the arm of each format.

        Raises:
            MxqError: the behaviour states that a format cannot be timed beside another.
        """
        names = [kind.name for kind in formats]
        self.backend.log(f"live {' '.join(names)}{'' if sampling.lengths is None else ' in short calls'}")
        self.backend.log(f"limits {sampling.max_rounds} {sampling.max_seconds}")
        if len(names) > 1 and set(names) & set(self.behaviour.alone):
            raise MxqError("these arms do not go together")
        for name in names:
            self._observed(case, workload, name)
        line = None
        if sampling.lengths is not None:
            line = Extrapolation(lengths=sampling.lengths, steps=28, model_error=sampling.model_error)
        return {name: replace(self._samples(name, names, seed), extrapolation=line) for name in names}

    def _samples(self, name: str, names: Sequence[str], seed: int) -> SpeedSamples:
        return SpeedSamples(
            mode=SpeedMode.LIVE,
            bf16=self._times("bf16"),
            quantized=self._times(name),
            environment=self.behaviour.environment,
            start_seed=seed,
            execution=self.behaviour.execution,
            first_call=(20.0, 11.0),
            throttle_share=0.0,
            power_cap_share=0.5,
            beside=tuple(other for other in names if other != name),
        )

    def time_quantized(
        self, case: Case, workload: Workload, number_format: Format, sessions: tuple[tuple[float, ...], ...]
    ) -> tuple[SpeedSamples, ObservedRun]:
        """Return eight rounds of the quantized arm."""
        self.backend.log(f"stored {number_format.name}")
        quantized = self._times(number_format.name)
        samples = SpeedSamples(mode=SpeedMode.STORED, bf16=(), quantized=quantized, sessions=sessions)
        return samples, self._observed(case, workload, number_format.name)

    def time_bf16(self, case: Case, workload: Workload) -> FakeTimedBf16:
        """Return a session of BF16.

        Raises:
            Stop: the behaviour states an unfit machine.
        """
        self.backend.log("session")
        if self.behaviour.environment is not None:
            raise Stop(Outcome.ENVIRONMENT, f"nothing was stored: {self.behaviour.environment}")
        return FakeTimedBf16(
            seconds=self._times("bf16"),
            peak_gib=20.0,
            execution=self.behaviour.execution,
            observed=self._observed(case, workload, "bf16"),
            short=self._measured(case, workload, "bf16", steps=case.short_steps) if case.short_steps else None,
            predicted=self.behaviour.predicted,
        )

    def measure_memory(
        self, case: Case, workload: Workload, number_format: Format, *, steps: int | None = None
    ) -> Measured:
        """Return the peak that the behaviour states."""
        self.backend.log(f"memory {number_format.name}{'' if steps is None else f' in {steps} steps'}")
        return self._measured(case, workload, number_format.name, steps=steps)

    def measure_bf16(self, case: Case, workload: Workload, *, steps: int | None) -> tuple[Measured | None, Measured]:
        """Return the peaks that the behaviour states."""
        self.backend.log("memory bf16")
        short = None if steps is None else self._measured(case, workload, "bf16", steps=steps)
        return short, self._measured(case, workload, "bf16", steps=None)

    def _measured(self, case: Case, workload: Workload, name: str, *, steps: int | None) -> Measured:
        peak = self.behaviour.peak_of(name, is_short=steps is not None)
        observed = self._observed(case, workload, name)
        taken = 8 if steps is None or self.behaviour.fixed_steps else steps
        return PeakMemory(allocated_gib=peak, reserved_gib=peak + 1), replace_struct(
            observed, work=self.behaviour.work_of(name, steps=taken)
        )

    def execution(self, _case: Case) -> str:
        """Return how the timed arms run."""
        return self.behaviour.execution

    def inductor_digest(self) -> str:
        """Return a name of Inductor's configuration."""
        return self.behaviour.inductor

    def process_number(self) -> str | None:
        """Return None: no driver lists this process."""
        return None

    def other_processes(self) -> Sequence[str]:
        """Return the processes that the behaviour states."""
        return self.behaviour.others

    def _times(self, name: str, count: int = 8) -> tuple[float, ...]:
        base, scatter = self.behaviour.seconds.get(name, 1.0), self.behaviour.scatter
        wave = (0.0, 1.0, -1.0, 0.5, -0.5, 0.8, -0.3, 0.2)
        return tuple(base * (1 + scatter * wave[(i + len(name)) % len(wave)]) for i in range(count))

    def _observed(self, case: Case, workload: Workload, name: str) -> ObservedRun:
        pipeline = _FakePipeline(case)
        workload(pipeline, case.prompts[0])
        identity = _identity(case, pipeline.calls, self.behaviour.weights)
        return ObservedRun(identity=identity, work=self.behaviour.work_of(name))


def fake_image(text: str, shift: int) -> Any:
    """Return the image of a prompt: 16 x 16 pixels in one colour, its red shifted."""
    from PIL import Image

    base = hashlib.sha256(text.encode()).digest()
    return Image.new("RGB", (16, 16), (base[0] // 2 + shift, base[1], base[2]))


def _red(image: Any) -> int:
    return int(image.getpixel((0, 0))[0])


def _identity(case: Case, calls: list[dict[str, Any]], weights: str) -> Identity:
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
