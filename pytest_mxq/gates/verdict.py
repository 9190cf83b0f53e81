"""What a gate says in the end: one record for every requested (case, format, gate)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import Enum, StrEnum
from math import isfinite
from typing import Any, NamedTuple

from pytest_mxq.gates.speed_statistics import SpeedMode


class Outcome(StrEnum):
    """The kinds of verdict; every requested cell ends in exactly one of them."""

    PASS = "pass"
    MARGINAL = "marginal"
    REGRESSION = "regression"
    INCONCLUSIVE = "inconclusive"
    STALE = "stale"
    MISSING = "missing"
    NOT_QUANTIZED = "not-quantized"
    DEGENERATE = "degenerate"
    ENVIRONMENT = "environment"
    SKIPPED = "skipped"
    ERROR = "error"
    NOT_RUN = "not-run"
    REFRESHED = "refreshed"

    @property
    def is_good(self) -> bool:
        """Whether the gate let the model through (a skip is neither good nor a failure)."""
        return self in {Outcome.PASS, Outcome.MARGINAL, Outcome.REFRESHED}

    @property
    def is_failure(self) -> bool:
        """Whether the test fails."""
        return not self.is_good and self is not Outcome.SKIPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One planned gate of one case in one format: what a verdict belongs to."""

    nodeid: str
    model: str
    case: str
    format: str
    gate: str


class OutputFault(NamedTuple):
    """What is degenerate about one image or video: its index among those generated, and a sentence."""

    image: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One metric's values, in the order of the prompts: for every image, for every frame of videos, or for every video.

    Attributes:
        frames: values of each video, one after the other; 1 where there is one value for each image or video.
    """

    values: tuple[float, ...]
    mean: float
    worst: float
    worst_index: int
    p90: float
    mean_bound_95: float
    frames: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Proof that quantization took place in an arm.

    Attributes:
        quantized: number of Linear layers whose weight is a torchao tensor.
        chosen: number of Linear layers that the model's rule chose and the format's shapes fit.
        total: number of all Linear layers of the denoiser.
        weight_share: share of the Linear weights that are quantized, 0 to 1.
        weight_bytes: bytes that the quantized weights occupy in the native format.
        bf16_bytes: bytes of the same weights in BF16.
        layers_sha256: digest of the sorted names of the quantized layers.
        layers: names of the quantized layers with every number written as ``*``, and how many there are of each.
        unfit: names of layers that the rule chose and whose shape the format does not take.
    """

    quantized: int
    chosen: int
    total: int
    weight_share: float
    weight_bytes: int
    bf16_bytes: int
    layers_sha256: str
    layers: dict[str, int]
    unfit: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """One line for people."""
        ratio = self.weight_bytes / self.bf16_bytes if self.bf16_bytes else 1.0
        text = (
            f"{self.quantized} of {self.total} Linear layers quantized, {self.weight_share:.1%} of their weights, "
            f"{ratio:.3f} of the bytes"
        )
        return f"{text}; {len(self.unfit)} of unfit shape stay in BF16" if self.unfit else text


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedSamples:
    """What was timed for one speed gate; all times in seconds a call.

    Attributes:
        mode: whether BF16 ran beside the quantized arm, or comes from stored sessions.
        bf16: times of the BF16 arm in this run, round by round; empty in stored mode.
        quantized: times of the quantized arm.
        sessions: stored BF16 sessions on this hardware and software.
        voided: why rounds were voided and repeated.
        environment: why the machine is not fit to be timed on; empty: it is.
        start_seed: seed of the random order of the arms.
        execution: how both arms ran.
        first_call: seconds of the case's first call of each arm in this process, BF16 first; compilation
            included unless an earlier case compiled the same code.
        throttle_share: share of the rounds in which the GPU was slowed down, where the driver tells.
        power_cap_share: share of the rounds at the software power cap; normal under load.
    """

    mode: SpeedMode
    bf16: tuple[float, ...]
    quantized: tuple[float, ...]
    sessions: tuple[tuple[float, ...], ...] = ()
    voided: tuple[str, ...] = ()
    environment: str = ""
    start_seed: int = 0
    execution: str = ""
    first_call: tuple[float, ...] = ()
    throttle_share: float | None = None
    power_cap_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedFacts:
    """The numbers of a speed verdict: the estimate, both medians in seconds, and the samples behind them.

    Attributes:
        speedup: BF16 time over quantized time.
        lower: lower bound of the speedup; it holds with probability ``1 - alpha``.
        upper: upper bound, likewise; both at once hold with ``1 - 2 alpha``.
        half_width: half of ``ln upper - ln lower``.
        n: rounds of the quantized arm.
        mode: "live" or "stored", as the samples'.
        alpha: one-sided level of each bound.
        process_sd: sd between processes that the bounds allow for, on the log scale.
        process_sd_source: "default", or which stored sessions show more than that.
        bf16_seconds: median time of a call in BF16.
        quantized_seconds: median time of a call of the quantized arm.
        samples: what was timed.
    """

    speedup: float
    lower: float
    upper: float
    half_width: float
    n: int
    mode: str
    alpha: float
    process_sd: float
    process_sd_source: str
    bf16_seconds: float
    quantized_seconds: float
    samples: SpeedSamples


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """Most memory of one call, GiB: what tensors held, and what torch held of the device."""

    allocated_gib: float
    reserved_gib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """The numbers of a memory verdict, of each arm alone.

    Attributes:
        peak_gib: most that the quantized arm's tensors held at once, GiB.
        reserved_gib: most that torch held of the device meanwhile, the pools of CUDA Graphs included, GiB.
        bf16_peak_gib: BF16's peak, GiB; None where no bound compares with it.
        weight_ratio: bytes of the quantized weights as a share of theirs in BF16.
    """

    peak_gib: float
    reserved_gib: float
    bf16_peak_gib: float | None
    weight_ratio: float

    @property
    def ratio(self) -> float | None:
        """Peak as a share of BF16's."""
        return None if self.bf16_peak_gib is None else self.peak_gib / self.bf16_peak_gib


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceNote:
    """Which BF16 images a verdict was made against, and why these.

    Attributes:
        mode: "stored" or "live".
        reason: one sentence.
        manifest: path of the stored baseline's manifest, where there is one.
        drift_check: largest LPIPS between a stored image and the same image regenerated in this run.
        noise_repeat: LPIPS of BF16 against BF16 repeated, as stored at refresh.
        noise_compiled: LPIPS of BF16 eager against BF16 compiled, as stored at refresh.
    """

    mode: str
    reason: str
    manifest: str = ""
    drift_check: float | None = None
    noise_repeat: float | None = None
    noise_compiled: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The record of one cell.

    Attributes:
        sentence: one line that a other_process understands.
        observed: the number that was compared, in the gate's unit.
        bound: the number it was compared with.
        worst_bound: the bound of the worst image, where the gate has one.
        worst_prompt: the prompt of the worst image.
        emulated: whether the format's numerics were emulated.
        images: paths of the comparison images, worst first.
        next_command: the command that runs this one item again.
        seconds: wall time of the cell.
        fingerprint: the hard fields of the machine and software that judged.
    """

    cell: Cell
    outcome: Outcome
    sentence: str
    observed: float | None = None
    bound: float | None = None
    worst_bound: float | None = None
    worst_prompt: str = ""
    scores: Scores | None = None
    evidence: Evidence | None = None
    speed: SpeedFacts | None = None
    memory: MemoryFacts | None = None
    reference: ReferenceNote | None = None
    emulated: bool = False
    images: tuple[str, ...] = ()
    next_command: str = ""
    seconds: float = 0.0
    fingerprint: dict[str, str] | None = None

    def because(self, outcome: Outcome, sentence: str) -> Verdict:
        """The same record with another outcome and sentence."""
        return replace(self, outcome=outcome, sentence=sentence)


class Stop(Exception):  # noqa: N818  the end of a path, not an error
    """A gate ended before its comparison, with a verdict of its own kind and what was known by then."""

    def __init__(self, outcome: Outcome, sentence: str, **facts: Any) -> None:
        super().__init__(sentence)
        self.outcome = outcome
        self.facts = facts


def to_record(verdict: Verdict) -> dict[str, object]:
    """A verdict as JSON types only (it crosses xdist): enums as text, an infinite number as the text "inf"."""
    plain = _plain(asdict(verdict))
    if not isinstance(plain, dict):
        raise TypeError(f"not a record: {type(plain).__name__}")
    return plain


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return value
