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
    from pytest_mxq.gates.memory import PeakMemory
    from pytest_mxq.gates.sampling import Sampling
    from pytest_mxq.gates.speedup import SpeedSamples
    from pytest_mxq.gates.verdict import OutputFault, Verdict
    from pytest_mxq.models import ModelSource
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.plans import RunnablePlan

Workload: TypeAlias = Callable[..., object]
"""The body of a test, called with a pipeline and a prompt."""

Measured: TypeAlias = "tuple[PeakMemory, ObservedRun]"
"""Peak memory of one call, and what it did."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told (label, parts done, parts in all) between the parts of long work: chunks of prompts, timed rounds; 0 in all: the
number is not known (loading, quantizing, compiling)."""


class Outputs(Protocol):
    """The images or videos of one arm (the backend's own type), with what was observed while they were generated."""

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

    @property
    def evidence(self) -> Evidence | None:
        """Proof that what generated them ran quantized; None of BF16's and of stored ones."""
        ...

    @property
    def changes(self) -> Sequence[str]:
        """What the workload changed of the pipeline; it was put back, or the arm is built again."""
        ...

    def work_differences(self, other: Self) -> tuple[str, ...]:
        """Return in what the work of both arms differs, such as ``denoiser calls: transformer 8 -> 4``."""
        ...

    @property
    def originals(self) -> Mapping[int, object]:
        """What the pipeline generated in the chunks whose outputs the workload changed, by their first prompt."""
        ...

    def returned_in(self, start: int) -> Self:
        """Return what the workload returned in a chunk, by the index of its first prompt."""
        ...

    def generated_in(self, start: int) -> Self:
        """Return what the pipeline generated in a chunk, by the index of its first prompt."""
        ...

    @property
    def work_records(self) -> Mapping[int, WorkRecord]:
        """What each chunk ran, by the index of its first prompt; empty of stored outputs."""
        ...

    def subset(self, positions: Sequence[int]) -> Self:
        """Return the images or videos at some positions."""
        ...

    def equals(self, other: Self) -> bool:
        """Tell whether all images, and all audio, are bit-identical."""
        ...

    def identical_positions(self, other: Self) -> tuple[int, ...]:
        """Return the positions at which all pixels, and all audio, are bit-identical."""
        ...

    def differences(self, other: Self) -> tuple[str, ...]:
        """Return in what the videos cannot be compared, such as ``frame count 121 -> 97``."""
        ...

    def to_media(self) -> list[Any]:
        """Return what a store keeps: PIL images, or `Video` values."""
        ...


O = TypeVar("O", bound=Outputs)  # noqa: E741  the backend's own type of outputs


class Backend(Protocol[O]):
    """Builds arms, generates, and scores; outputs are opaque to an evaluation."""

    def generate(
        self, case: Case, workload: Workload, arm: ArmSpec, *, label: str, chunks: Sequence[int] | None = None
    ) -> O:
        """Generate a case, or some chunks of its prompts, with an arm."""
        ...

    def evidence(self, case: Case, arm: ArmSpec) -> Evidence:
        """Build a quantized arm and return the proof that it is quantized."""
        ...

    def selection(self, case: Case, number_format: Format) -> Selection | None:
        """Return the layers that a format would quantize; None if there are none."""
        ...

    def load(self, media: Sequence[Any], identity: Identity) -> O:
        """Return the outputs that a store kept."""
        ...

    def score(self, gate: AccuracyGate, reference: O, other: O) -> list[float]:
        """Return a gate's values in the order of the positions: one at each, or one for each frame there."""
        ...

    def preview(self, gate: AccuracyGate, outputs: O, index: int, frame: int | None) -> Any:
        """Return the PIL image of what a gate looked at: an image, a frame (None: the middle one), a spectrogram."""
        ...

    def lpips_map(self, reference: Any, quantized: Any) -> tuple[Any, float] | None:
        """Return where two PIL images differ, as a PIL image of the same size, and the value that is white in it.

        None where LPIPS has no value: images that are too small or of two sizes.
        """
        ...

    def free_gib(self, case: Case) -> float | None:
        """Return what the device has for a case's arms, GiB; None where its model is loaded, and on a CPU."""
        ...

    def release(self) -> None:
        """Free every arm."""
        ...


class TimedBf16(Protocol):
    """BF16 timed for a stored session."""

    @property
    def seconds(self) -> tuple[float, ...]:
        """Seconds of each call."""
        ...

    @property
    def peak_gib(self) -> float | None:
        """Peak memory of one call, GiB; None where the device does not tell."""
        ...

    @property
    def predicted(self) -> float | None:
        """Seconds of a call by the line through short calls; None where they were not timed."""
        ...

    @property
    def short(self) -> Measured | None:
        """Peak of a short call, and what it did; None where it was not measured."""
        ...

    @property
    def execution(self) -> str:
        """How the arm ran."""
        ...

    @property
    def observed(self) -> ObservedRun:
        """What was observed."""
        ...


class Benchmark(Protocol):
    """Measures time and memory of whole calls."""

    def evidence(self, case: Case, number_format: Format, beside: Sequence[Format] = ()) -> Evidence:
        """Build the quantized arm that is timed, and return the proof that it is quantized.

        The arms of the formats ``beside`` may stay beside it.
        """
        ...

    def run_evidence(self, case: Case, number_format: Format) -> Evidence:
        """Return the evidence of the arm that was timed or measured, with what it multiplied with."""
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
        self, case: Case, workload: Workload, number_format: Format, sessions: tuple[tuple[float, ...], ...]
    ) -> tuple[SpeedSamples, ObservedRun]:
        """Time one session of the quantized arm; return the samples and what was observed."""
        ...

    def measure_memory(
        self, case: Case, workload: Workload, number_format: Format, *, steps: int | None = None
    ) -> Measured:
        """Measure peak memory of one call of a quantized arm alone on the device, in that many steps (None: all)."""
        ...

    def measure_bf16(self, case: Case, workload: Workload, *, steps: int | None) -> tuple[Measured | None, Measured]:
        """Measure peak memory of BF16 alone on the device, in a short call (None without ``steps``) and a full one."""
        ...

    def time_bf16(self, case: Case, workload: Workload) -> TimedBf16:
        """Time one session of BF16, with its peak memory, to be stored.

        Raises:
            Stop: the machine is not fit to be timed on.
        """
        ...

    def execution(self, case: Case) -> str:
        """Return how the arms of a case run while they are timed."""
        ...

    def inductor_digest(self) -> str:
        """Return a name of Inductor's configuration: part of what timings must have in common."""
        ...

    def process_number(self) -> str | None:
        """Return the number under which the GPU's driver lists this process; None: it does not tell."""
        ...

    def other_processes(self) -> Sequence[str]:
        """Return the processes that the GPU's driver lists beside this one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a session runs on: the device, and how to make the backend and the benchmark when they are first needed.

    Attributes:
        device: the device.
        backend: makes the backend; told how to show progress.
        benchmark: makes the benchmark over that backend; told the directory of compiled code (None: torch's own).
        weights: tells the name of a model's weights, where it is known before they are loaded.
    """

    device: Device
    backend: Callable[[Progress], Backend[Any]]
    benchmark: Callable[[Any, Path | None], Benchmark]
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
