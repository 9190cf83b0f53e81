"""Peak memory of each arm alone, and the size of the quantized weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isfinite

from pytest_mxq.errors import CaseFaultError, MxqError
from pytest_mxq.gates.base import COMPILED_CALLS, CallLength, Gate, Needs, Scale, read_length
from pytest_mxq.gates.bounds import MarkerArguments
from pytest_mxq.gates.outcome import Outcome

SHORT_STEPS = 2
"""Denoising steps of a short call. FLUX.1-dev, Qwen-Image and LTX-2 had the peaks of their 28, 50 and 40 steps to two
digits at 4, 4 and 3."""
SHORT_TOLERANCE = 0.005
"""Relative difference up to which BF16's peak in a short call is that of a full one."""

_LARGEST = {"max_ratio": 2.0, "max_gib": 10_000.0, "max_weight_ratio": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBound:
    """What ``mxq_memory`` demands of one format; None: not bounded.

    Attributes:
        max_ratio: largest peak memory as a share of BF16's.
        max_gib: largest peak memory, GiB.
        max_weight_ratio: largest size of the quantized weights as a share of their size in BF16.
        steps: whether calls may be short where BF16 shows that it makes no difference.
    """

    max_ratio: float | None
    max_gib: float | None
    max_weight_ratio: float | None
    steps: CallLength = CallLength.SHORT


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """Most memory of one call, GiB: what tensors held, and what torch held of the device."""

    allocated_gib: float
    reserved_gib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCheck:
    """One bound of a memory gate: the marker's argument, what was measured, and the largest value that it allows.

    Both are GiB of ``max_gib``, and shares of BF16's otherwise.
    """

    argument: str
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        """Tell whether the value keeps the limit."""
        return isfinite(self.value) and self.value <= self.limit

    @property
    def unit(self) -> str:
        """What is printed behind both numbers."""
        return " GiB" if self.argument == "max_gib" else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortCalls:
    """BF16's peaks in calls of two lengths, GiB: whether short ones tell the peak of full ones.

    Attributes:
        steps: denoising steps of a short call.
        short_gib: peak of a short call.
        full_gib: peak of a call of the workload's own steps.
    """

    steps: int
    short_gib: float
    full_gib: float

    @property
    def agree(self) -> bool:
        """Tell whether short calls serve.

        >>> [ShortCalls(steps=2, short_gib=short, full_gib=20.0).agree for short in (19.95, 19.8)]
        [True, False]
        """
        return abs(self.short_gib / self.full_gib - 1) <= SHORT_TOLERANCE

    @property
    def text(self) -> str:
        """In which calls was measured, and why."""
        how = f"in {self.steps} steps" if self.agree else "in full calls"
        return f"{how} (peak of BF16: {self.short_gib:.2f} GiB in {self.steps} steps, {self.full_gib:.2f} in all)"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """The numbers of a memory verdict, of each arm alone.

    Attributes:
        peak_gib: most that the quantized arm's tensors held at once, GiB.
        reserved_gib: most that torch held of the device meanwhile, the pools of CUDA Graphs included, GiB.
        bf16_peak_gib: BF16's peak, GiB; None where no bound compares with it.
        weight_ratio: bytes of the quantized weights as a share of theirs in BF16.
        checks: each bound that the marker states; empty until they are compared.
        short_calls: whether short calls served, by BF16's peaks; None: nothing compared them, and calls were full.
    """

    peak_gib: float
    reserved_gib: float
    bf16_peak_gib: float | None
    weight_ratio: float
    checks: tuple[MemoryCheck, ...] = ()
    short_calls: ShortCalls | None = None

    @property
    def ratio(self) -> float | None:
        """Peak as a share of BF16's."""
        return None if self.bf16_peak_gib is None else self.peak_gib / self.bf16_peak_gib

    @property
    def deciding(self) -> MemoryCheck | None:
        """The first bound that does not hold, else the first; None before they are compared."""
        return next((check for check in self.checks if not check.holds), self.checks[0] if self.checks else None)

    def against(self, bound: MemoryBound) -> MemoryFacts:
        """Return the same numbers with each stated bound beside the value that it is compared with.

        Raises:
            MxqError: a bound compares with BF16, which was not measured.
        """
        values = {"max_ratio": self.ratio, "max_gib": self.peak_gib, "max_weight_ratio": self.weight_ratio}
        return replace(self, checks=tuple(_checks(values, bound)))


def decide_memory(memory: MemoryFacts, bound: MemoryBound) -> tuple[Outcome, str]:
    """Return pass or regression, and the sentence that says why.

    >>> memory = MemoryFacts(peak_gib=15.0, reserved_gib=16.5, bf16_peak_gib=27.0, weight_ratio=0.5)
    >>> decide_memory(memory, MemoryBound(max_ratio=0.6, max_gib=None, max_weight_ratio=None))
    (<Outcome.PASS: 'pass'>, 'peak 0.556 of BF16 <= 0.600 (15.00 of 27.00 GiB), reserved 16.50 GiB')

    Raises:
        MxqError: a bound compares with BF16, which was not measured; or a peak that is not a positive number.
    """
    if not (isfinite(memory.peak_gib) and memory.peak_gib > 0):
        raise MxqError(f"the quantized arm's peak memory came out as {memory.peak_gib} GiB")
    of_bf16 = "" if memory.bf16_peak_gib is None else f" ({memory.peak_gib:.2f} of {memory.bf16_peak_gib:.2f} GiB)"
    checks = memory.against(bound).checks
    texts = [
        f"{_SUBJECTS[check.argument].format(f'{check.value:.3f}')} {'<=' if check.holds else '>'} {check.limit:.3f}"
        + (of_bf16 if check.argument == "max_ratio" else "")
        for check in checks
    ]
    texts.append(f"reserved {memory.reserved_gib:.2f} GiB")
    texts += [memory.short_calls.text] if memory.short_calls is not None else []
    good = bool(checks) and all(check.holds for check in checks)
    return (Outcome.PASS if good else Outcome.REGRESSION), ", ".join(texts)


_SUBJECTS = {
    "max_ratio": "peak {} of BF16",
    "max_gib": "peak {} GiB",
    "max_weight_ratio": "quantized weights {} of BF16's",
}


def _checks(values: dict[str, float | None], bound: MemoryBound) -> Iterator[MemoryCheck]:
    for argument, value in values.items():
        limit = getattr(bound, argument)
        if limit is None:
            continue
        if value is None:
            raise MxqError("BF16's peak memory was not measured")
        yield MemoryCheck(argument=argument, value=value, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGate(Gate):
    """A gate that measures peak memory of one call of each arm, alone on the device.

    Attributes:
        decide: from what was measured and the bound to a verdict and its sentence.
    """

    decide: Callable[[MemoryFacts, MemoryBound], tuple[Outcome, str]] = decide_memory

    def __post_init__(self) -> None:
        Gate.__post_init__(self)
        if self.scale.higher_is_better:
            raise MxqError(f"gate {self.name!r}: of memory, lower is better")

    @property
    def limit(self) -> str:
        """The bound against BF16's peak."""
        return "max_ratio"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The other bounds, and how long the calls are."""
        return (*(name for name in _LARGEST if name != self.limit), "steps")

    @property
    def needs(self) -> Needs:
        """What the gate needs of a run."""
        return COMPILED_CALLS

    def read_bound(self, arguments: MarkerArguments) -> MemoryBound:
        """Return what the marker states for a format: at least one of its three bounds.

        Raises:
            CaseFaultError: none of them, an unknown argument, no bound for the format, or one that decides nothing.
        """
        arguments.check_names((self.limit, *self.arguments))
        if not set(_LARGEST) & set(arguments.named):
            raise CaseFaultError(f"{self.marker} needs at least one of {', '.join(_LARGEST)}")
        stated = {
            name: arguments.number(name, largest=largest) if name in arguments.named else None
            for name, largest in _LARGEST.items()
        }
        return MemoryBound(**stated, steps=read_length(arguments) or CallLength.SHORT)


MEMORY = MemoryGate(
    name="memory",
    summary="bounds of peak memory against BF16, in GiB, of the quantized weights against BF16's",
    scale=Scale(higher_is_better=False, digits=3, noun="call"),
)
