"""What the paths of gates need of arms and probes: the backend behind these protocols arrive as arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pytest_mxq.baselines.manifest import Identity, LpipsInfo, Manifest, Selection
from pytest_mxq.gates.speed_statistics import Sampling
from pytest_mxq.gates.verdict import Evidence, OutputFault, PeakMemory, SpeedSamples

if TYPE_CHECKING:
    from pytest_mxq.formats import Format
    from pytest_mxq.planning.case import Case

Workload = Callable[..., object]


class Outputs(Protocol):
    """The images or videos of one arm (the backend' own type), with what was observed while they were generated."""

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
        """What is degenerate about the images or videos."""
        ...

    @property
    def identity(self) -> Identity:
        """What was observed."""
        ...


S = TypeVar("S", bound=Outputs)  # the backend' own type of images


class Backend(Protocol[S]):
    """What the workflow needs of arms and probes; images are opaque to it."""

    def generate(self, case: Case, workload: Workload, *, label: str, chunks: Sequence[int] | None = None) -> S:
        """Generate a case, or some chunks of it, with the BF16 arm."""
        ...

    def generate_other_execution(self, case: Case, workload: Workload, *, chunks: Sequence[int]) -> S:
        """Generate some chunks in BF16, compiled where the case is eager and vice versa (for the noise floor)."""
        ...

    def generate_quantized(self, case: Case, workload: Workload, number_format: Format, *, emulated: bool) -> S:
        """Generate a case with a quantized arm."""
        ...

    def evidence(self, case: Case, number_format: Format, *, emulated: bool) -> Evidence:
        """Build a quantized arm and prove that it is quantized."""
        ...

    def selection(self, case: Case, number_format: Format) -> Selection | None:
        """The layers that a format would quantize; None if there are none."""
        ...

    def stored(self, manifest: Manifest, media: Sequence[Any]) -> S:
        """The images or videos of a stored baseline."""
        ...

    def media(self, outputs: S) -> list[Any]:
        """What a store keeps: PIL images, or Videos."""
        ...

    def subset(self, outputs: S, positions: Sequence[int]) -> S:
        """The images or videos at some positions."""
        ...

    def differences(self, reference: S, other: S) -> tuple[str, ...]:
        """In what the videos of two outputs cannot be compared, such as ``frame count 121 -> 97``."""
        ...

    def score(self, gate: str, reference: S, other: S) -> list[float]:
        """A metric's values in the order of the positions: equally many, one or one for each frame, at each."""
        ...

    def are_identical(self, reference: S, other: S) -> bool:
        """Whether all images, and all audio, are bit-identical."""
        ...

    def image(self, gate: str, outputs: S, index: int, frame: int | None) -> Any:
        """What a gate looked at, as PIL image: an image, a video's frame (None: the middle one), a spectrogram."""
        ...

    def lpips_info(self) -> LpipsInfo:
        """What LPIPS was computed with."""
        ...


class TimedBf16(Protocol):
    """BF16 timed for a stored session."""

    @property
    def seconds(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def peak_gib(self) -> float | None: ...  # noqa: D102
    @property
    def execution(self) -> str: ...  # noqa: D102
    @property
    def identity(self) -> Identity: ...  # noqa: D102


class Benchmark(Protocol):
    """What the path needs of the backend."""

    def evidence(self, case: Case, number_format: Format) -> Evidence:
        """Build the quantized arm that is timed, and prove that it is quantized."""
        ...

    def time_live(
        self, case: Case, workload: Workload, number_format: Format, *, sampling: Sampling, seed: int
    ) -> tuple[SpeedSamples, Identity]:
        """Both arms in turn, and what was observed."""
        ...

    def time_quantized(
        self, case: Case, workload: Workload, number_format: Format, sessions: tuple[tuple[float, ...], ...]
    ) -> tuple[SpeedSamples, Identity]:
        """One session of the quantized arm, and what was observed."""
        ...

    def measure_memory(
        self, case: Case, workload: Workload, number_format: Format | None
    ) -> tuple[PeakMemory, Identity]:
        """Peak memory of one call of an arm (None: BF16) alone on the device, and what was observed."""
        ...

    def execution(self, case: Case) -> str:
        """How the arms of a case run while they are timed."""
        ...

    def inductor_digest(self) -> str:
        """Names Inductor's configuration: part of what timings must have in common."""
        ...

    def time_bf16(self, case: Case, workload: Workload) -> TimedBf16:
        """One session of BF16, and its peak memory, to be stored.

        Raises:
            Stop: the machine is not fit to be timed on.
        """
        ...
