"""What evaluations need of a machine: a backend that generates, a benchmark that measures; free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar

from pytest_mxq.planning.arms import ArmSpec

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_mxq.baselines.manifest import Identity, Selection
    from pytest_mxq.baselines.work import ObservedRun, WorkRecord
    from pytest_mxq.environment.device import Device
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.base import AccuracyGate
    from pytest_mxq.gates.evidence import Evidence
    from pytest_mxq.gates.measured import Measured, TimedBf16, TimingConditions
    from pytest_mxq.gates.sampling import Sampling
    from pytest_mxq.gates.speedup import SpeedSamples
    from pytest_mxq.gates.verdict import OutputFault, Verdict
    from pytest_mxq.models import ModelSource
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.plans import RunnablePlan

Workload: TypeAlias = Callable[..., object]
"""The body of a test, called with a pipeline and a prompt."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told (label, parts done, parts in all) between the parts of long work: chunks of prompts, timed rounds; 0 in all: the
number is not known (loading, quantizing, compiling)."""


class Described(Protocol):
    """What the images or videos of one arm are."""

    @property
    def noun(self) -> str:
        """What they are: "image" or "video"."""
        ...

    @property
    def positions(self) -> Sequence[int]:
        """Position of each image or video in the case's full set."""
        ...

    @property
    def faults(self) -> Sequence[OutputFault]:
        """What is degenerate about them."""
        ...

    @property
    def identity(self) -> Identity:
        """What was observed."""
        ...


class Observed(Protocol):
    """What an arm did while it generated."""

    @property
    def evidence(self) -> Evidence | None:
        """Proof that what generated them ran quantized; None of BF16's and of stored ones."""
        ...

    @property
    def changes(self) -> Sequence[str]:
        """What the workload changed of the pipeline; it was put back, or the arm is built again."""
        ...

    @property
    def work_records(self) -> Mapping[int, WorkRecord]:
        """What each chunk ran, by the index of its first prompt; empty of stored outputs."""
        ...

    def work_differences(self, other: Self) -> tuple[str, ...]:
        """Return in what the work of both arms differs, such as ``denoiser calls: transformer 8 -> 4``."""
        ...


class Comparable(Protocol):
    """Parts of the outputs of one arm, and how they differ from another's."""

    @property
    def originals(self) -> Mapping[int, Self]:
        """What the pipeline generated in the chunks whose outputs the workload changed, by their first prompt."""
        ...

    def subset(self, positions: Sequence[int]) -> Self:
        """Return the images or videos at some positions."""
        ...

    def identical_positions(self, other: Self) -> tuple[int, ...]:
        """Return the positions at which all pixels, and all audio, are bit-identical."""
        ...

    def differences(self, other: Self) -> tuple[str, ...]:
        """Return in what the videos cannot be compared, such as ``frame count 121 -> 97``."""
        ...


class Outputs(Described, Observed, Comparable, Protocol):
    """The images or videos of one arm (the backend's own type), with what was observed while they were generated."""

    def to_media(self) -> list[Any]:
        """Return what a store keeps: PIL images, or `Video` values."""
        ...


O = TypeVar("O", bound=Outputs)  # noqa: E741  the backend's own type of outputs


O_co = TypeVar("O_co", bound=Outputs, covariant=True)
O_contra = TypeVar("O_contra", bound=Outputs, contravariant=True)


class Generator(Protocol[O_co]):
    """Builds arms, and makes outputs: by generating them, and of what a store kept."""

    def generate(
        self, case: Case, workload: Workload, arm: ArmSpec, *, label: str, chunks: Sequence[int] | None = None
    ) -> O_co:
        """Generate a case, or some chunks of its prompts, with an arm."""
        ...

    def load(self, media: Sequence[Any], identity: Identity) -> O_co:
        """Return the outputs that a store kept."""
        ...

    def evidence(self, case: Case, arm: ArmSpec) -> Evidence:
        """Build a quantized arm and return the proof that it is quantized."""
        ...

    def selection(self, case: Case, number_format: Format) -> Selection | None:
        """Return the layers that a format would quantize; None if there are none."""
        ...


class ArmMemory(Protocol):
    """What arms leave free on the device: asked by the session before it loads another."""

    def free_gib(self, case: Case) -> float | None:
        """Return what the device has for a case's arms, GiB; None where its model is loaded, and on a CPU."""
        ...

    def release(self) -> None:
        """Free every arm."""
        ...


class Backend(Generator[O_co], ArmMemory, Protocol[O_co]):
    """What a machine makes: strategies generate with it, the session frees it."""


class Scorer(Protocol[O_contra]):
    """Compares outputs, which are opaque to an evaluation; holds nothing."""

    def score(self, gate: AccuracyGate, reference: O_contra, other: O_contra) -> list[float]:
        """Return a gate's values in the order of the positions: one at each, or one for each frame there."""
        ...

    def preview(self, gate: AccuracyGate, outputs: O_contra, index: int, frame: int | None) -> Any:
        """Return the PIL image of what a gate looked at: an image, a frame (None: the middle one), a spectrogram."""
        ...

    def lpips_map(self, reference: Any, quantized: Any) -> tuple[Any, float] | None:
        """Return where two PIL images differ, as a PIL image of the same size, and the value that is white in it.

        None where LPIPS has no value: images that are too small or of two sizes.
        """
        ...


class ArmProof(Protocol):
    """Proves that the arms that are measured are quantized."""

    def evidence(self, case: Case, number_format: Format, beside: Sequence[Format] = ()) -> Evidence:
        """Build the quantized arm that is timed, and return the proof that it is quantized.

        The arms of the formats ``beside`` may stay beside it.
        """
        ...

    def run_evidence(self, case: Case, number_format: Format) -> Evidence:
        """Return the evidence of the arm that was timed or measured, with what it multiplied with."""
        ...


class ArmTimer(Protocol):
    """Times quantized arms: beside BF16, or alone to be held against stored sessions."""

    def conditions(self, case: Case) -> TimingConditions:
        """Return what timings of a case must have in common beside hardware and software."""
        ...

    def time_live(
        self, case: Case, workload: Workload, formats: Sequence[Format], *, sampling: Sampling, seed: int
    ) -> Mapping[str, SpeedSamples]:
        """Time BF16 and the arm of each format in turn; return the samples by format.

        Where the sampling states lengths, in calls of these numbers of steps, extrapolated to the workload's own.

        Raises:
            Stop: the workload's steps are not alike, or not more than these.
        """
        ...

    def time_quantized(
        self,
        case: Case,
        workload: Workload,
        number_format: Format,
        sessions: tuple[tuple[float, ...], ...],
        *,
        with_short: bool,
    ) -> tuple[SpeedSamples, ObservedRun]:
        """Time one session of the quantized arm; return the samples and what was observed.

        With short calls of BF16 right after it where the case can have such.
        """
        ...


class MemoryMeter(Protocol):
    """Measures peak memory of one call of an arm, alone on the device."""

    def measure_memory(
        self, case: Case, workload: Workload, number_format: Format, *, steps: int | None = None
    ) -> Measured:
        """Measure that of a quantized arm, in that many steps (None: all)."""
        ...

    def measure_bf16(self, case: Case, workload: Workload, *, steps: int | None) -> tuple[Measured | None, Measured]:
        """Measure that of BF16, in a short call (None without ``steps``) and a full one."""
        ...


class SessionTimer(Protocol):
    """Times BF16 for a baseline."""

    def time_bf16(self, case: Case, workload: Workload) -> TimedBf16:
        """Time one session of BF16, with its peak memory, to be stored.

        Raises:
            Stop: the machine is not fit to be timed on.
        """
        ...


class Benchmark(ArmProof, ArmTimer, MemoryMeter, SessionTimer, Protocol):
    """What a machine makes to measure whole calls: a gate of speed or memory uses three parts, a refresh the last."""


class Processes(Protocol):
    """Who uses the GPU, as its driver lists it."""

    def own_number(self) -> str | None:
        """Return the number of this process there; None: the driver does not tell."""
        ...

    def others(self) -> Sequence[str]:
        """Return the processes beside this one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a session runs on: the device, and how to make the backend and the benchmark when they are first needed.

    Attributes:
        device: the device.
        backend: makes the backend; told how to show progress.
        scorer: makes what compares its outputs.
        benchmark: makes the benchmark over that backend; told the directory of compiled code (None: torch's own).
        processes: who uses the device.
        weights: tells the name of a model's weights, where it is known before they are loaded.
    """

    device: Device
    backend: Callable[[Progress], Backend[Any]]
    scorer: Callable[[], Scorer[Any]]
    benchmark: Callable[[Any, Path | None], Benchmark]
    processes: Processes
    weights: Callable[[ModelSource], str | None]


P_contra = TypeVar("P_contra", bound="RunnablePlan", contravariant=True)


class Strategy(Protocol[P_contra]):
    """One way from a plan to a verdict."""

    def evaluate(self, plan: P_contra, workload: Workload, draft: Verdict) -> Verdict:
        """Return the verdict of a plan.

        Args:
            plan: the plan.
            workload: the test's body.
            draft: the verdict so far: cell, scale, emulation, command, fingerprint.

        Raises:
            Stop: the evaluation ended before its comparison, with an outcome of its own.
            MxqError: it could not be done.
        """
        ...
