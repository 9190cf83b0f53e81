"""Peak memory of each arm alone, and the size of the quantized weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
        short_calls: whether short calls served, by BF16's peaks; None: nothing compared them, and calls were full.
    """

    peak_gib: float
    reserved_gib: float
    bf16_peak_gib: float | None
    weight_ratio: float
    short_calls: ShortCalls | None = None

    @property
    def ratio(self) -> float | None:
        """Peak as a share of BF16's."""
        return None if self.bf16_peak_gib is None else self.peak_gib / self.bf16_peak_gib


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
    checks = [
        ("peak {} of BF16", memory.ratio, bound.max_ratio, of_bf16),
        ("peak {} GiB", memory.peak_gib, bound.max_gib, ""),
        ("quantized weights {} of BF16's", memory.weight_ratio, bound.max_weight_ratio, ""),
    ]
    texts, good = [], True
    for text, value, limit, more in checks:
        if limit is not None:
            if value is None:
                raise MxqError("BF16's peak memory was not measured")
            within = value <= limit
            good = good and within
            texts.append(f"{text.format(f'{value:.3f}')} {'<=' if within else '>'} {limit:.3f}{more}")
    texts.append(f"reserved {memory.reserved_gib:.2f} GiB")
    texts += [memory.short_calls.text] if memory.short_calls is not None else []
    return (Outcome.PASS if good else Outcome.REGRESSION), ", ".join(texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGate(Gate):
    """A gate that measures peak memory of one call of each arm, alone on the device.

    Attributes:
        decide: from what was measured and the bound to a verdict and its sentence.
    """

    decide: Callable[[MemoryFacts, MemoryBound], tuple[Outcome, str]] = decide_memory

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
    limit="max_ratio",
    largest=_LARGEST["max_ratio"],
    scale=Scale(higher_is_better=False, digits=3, noun="call"),
    arguments=("max_gib", "max_weight_ratio", "steps"),
)
