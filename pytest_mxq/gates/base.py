"""What a gate is: one object that reads its marker's bound, scores or decides, and says what it needs."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from math import isfinite
from typing import Any

from pytest_mxq.errors import CaseFaultError, MxqError
from pytest_mxq.gates.bounds import Bound, MarkerArguments

RESERVED_NAMES = ("refresh", "nothing")
"""What stands in a gate's place in the id of an item that judges none (`planning/gate_param`)."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BATCH_SIZE = re.compile(r"b[0-9]+")


class MemoryUse(Enum):
    """What a gate holds on the device at once."""

    OUTPUTS = "outputs"  # one arm at a time, its text encoders on the CPU while it generates
    BOTH_ARMS = "both arms"  # BF16 and the quantized arm, with their text encoders


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a gate needs of a run.

    Attributes:
        memory: what it holds on the device.
        native: whether the format must run natively; emulated numerics say nothing of speed or memory.
        trained_weights: whether random weights would make its numbers mean nothing.
        exclusive_device: whether nothing else may use the device meanwhile.
    """

    memory: MemoryUse
    native: bool
    trained_weights: bool
    exclusive_device: bool


GENERATED_OUTPUTS = Needs(memory=MemoryUse.OUTPUTS, native=False, trained_weights=True, exclusive_device=False)
"""Needs of a gate that scores images, videos or audio."""

COMPILED_CALLS = Needs(memory=MemoryUse.BOTH_ARMS, native=True, trained_weights=False, exclusive_device=True)
"""Needs of a gate that measures whole calls of the compiled arms."""


class CallLength(StrEnum):
    """How many steps a measured call may take: few where that is as good, or always the workload's own."""

    SHORT = "short"
    FULL = "full"


def read_length(arguments: MarkerArguments) -> CallLength | None:
    """Return what a marker's ``steps=`` states; None where it does not.

    Raises:
        CaseFaultError: it is no such length.
    """
    lengths, stated = [length.value for length in CallLength], arguments.named.get("steps")
    if stated is not None and stated not in lengths:
        raise CaseFaultError(f"{arguments.marker}(steps=) must be one of {', '.join(lengths)}; got {stated!r}")
    return None if stated is None else CallLength(stated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a gate's numbers compare and read.

    Attributes:
        higher_is_better: direction of the comparison.
        unit: printed behind numbers.
        digits: decimals in print.
        noun: what there is one number of: "image", "video", "call".
    """

    higher_is_better: bool
    unit: str = ""
    digits: int = 4
    noun: str = "image"

    @property
    def limit(self) -> str:
        """A marker's argument that states a bound in this direction: "min" or "max"."""
        return "min" if self.higher_is_better else "max"

    def show(self, value: float) -> str:
        """Return a number as people read it; a small one keeps two significant digits.

        >>> Scale(higher_is_better=True, unit=" dB", digits=2).show(38.4242)
        '38.42 dB'
        """
        small = 0 < abs(value) < 10.0 ** (1 - self.digits)
        return f"{value:.2g}{self.unit}" if small else f"{value:.{self.digits}f}{self.unit}"

    def holds(self, value: float, limit: float) -> bool:
        """Tell whether a value keeps a limit; nothing holds that is not a finite number."""
        return isfinite(value) and (value >= limit if self.higher_is_better else value <= limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(ABC):
    """One kind of gate; its marker is ``mxq_<name>``.

    Attributes:
        name: lower-case letters, digits and underscores; no hyphen, since a test's id ends in ``<format>-<gate>``.
        summary: one line that ``pytest --markers`` prints.
        scale: how its numbers compare and read; its direction names the marker's argument that holds the bound.
    """

    name: str
    summary: str
    scale: Scale

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or _BATCH_SIZE.fullmatch(self.name):
            raise MxqError(
                f"gate name {self.name!r} is not allowed: lower-case letters, digits and '_', a letter first, not like "
                "'b4' (test ids are '<format>-<gate>' or '<format>-<gate>-b<batch size>')"
            )
        if self.name in RESERVED_NAMES:
            raise MxqError(f"gate name {self.name!r} is reserved, as are {', '.join(RESERVED_NAMES)}; choose another")

    @property
    def marker(self) -> str:
        """Name of the marker."""
        return f"mxq_{self.name}"

    @property
    def limit(self) -> str:
        """The marker's argument that holds the bound."""
        return self.scale.limit

    @property
    @abstractmethod
    def arguments(self) -> tuple[str, ...]:
        """The further arguments of its marker, all of which `read_bound` reads."""

    @property
    def marker_line(self) -> str:
        """The line that declares the marker to pytest."""
        names = ", ".join(f"{name}=" for name in (self.limit, *self.arguments))
        return f"{self.marker}({names}): {self.summary}"

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What the gate needs of a run."""

    @abstractmethod
    def read_bound(self, arguments: MarkerArguments) -> Any:
        """Return the bound that the marker states for a format.

        Raises:
            CaseFaultError: an unknown or missing argument, no bound for the format, or one that decides nothing.
        """


def frame_preview(outputs: Any, index: int, frame: int | None) -> Any:
    """Return what most gates look at: an image, or a frame of a video (None: the middle one), as PIL image."""
    return outputs.preview(index, frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyGate(Gate):
    """A gate that scores generated outputs against BF16's.

    Attributes:
        largest: the largest bound that makes sense.
        score: called with BF16's outputs and the quantized arm's (`GeneratedOutputs`); returns one number for each
            image, for each frame of the videos, or for each video, in their order.
        default_worst: bound of the worst output where the marker states none, from the mean's; None: not bounded.
        drift_limit: how far regenerated BF16 outputs may be from the stored ones on this gate's own scale, from its
            bound; None: it tells no reference drift.
        usual_drift_limit: the same where a test lacks its marker, so that every gate of outputs is judged against a
            reference that this one finds unchanged; None: it tells the drift of what it judges itself alone.
        preview: called with outputs, an index, and a frame or None; returns the PIL image of what the gate looked at.
    """

    largest: float
    score: Callable[[Any, Any], Sequence[float]]
    default_worst: Callable[[float], float] | None = None
    drift_limit: Callable[[Bound], float] | None = None
    usual_drift_limit: float | None = None
    preview: Callable[[Any, int, int | None], Any] = frame_preview

    @property
    def arguments(self) -> tuple[str, ...]:
        """The bound of the worst output."""
        return ("worst",)

    @property
    def needs(self) -> Needs:
        """What the gate needs of a run."""
        return GENERATED_OUTPUTS

    def read_bound(self, arguments: MarkerArguments) -> Bound:
        """Return the bounds of the mean and of the worst output that the marker states for a format.

        Raises:
            CaseFaultError: an unknown or missing argument, no bound for the format, one that decides nothing, or a
                worst bound that is stricter than the mean's.
        """
        arguments.check_names((self.limit, *self.arguments))
        mean = arguments.number(self.limit, largest=self.largest)
        if "worst" not in arguments.named:
            return Bound(mean=mean, worst=self._default_worst(mean))
        worst = arguments.number("worst", largest=self.largest)
        if not self.scale.holds(mean, worst):
            raise CaseFaultError(
                f"{self.marker}: worst={worst} is stricter than {self.limit}={mean}; "
                f"the worst {self.scale.noun} cannot be better than the mean"
            )
        return Bound(mean=mean, worst=worst)

    def drift_check(self, bound: Bound | None) -> DriftCheck | None:
        """Return how reference drift is told on this gate's scale; None: it is not.

        Args:
            bound: what the test's marker states; None: the test lacks it.
        """
        if self.drift_limit is None:
            return None
        limit = self.usual_drift_limit if bound is None else self.drift_limit(bound)
        return None if limit is None else DriftCheck(gate=self, limit=limit)

    def _default_worst(self, mean: float) -> float | None:
        worst = None if self.default_worst is None else min(self.default_worst(mean), self.largest)
        if worst is not None and not self.scale.holds(mean, worst):
            raise CaseFaultError(f"{self.marker}: default_worst({mean:g}) is {worst!r}, stricter than the mean's bound")
        return worst


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCheck:
    """How far regenerated BF16 outputs may be from the stored ones on one gate's scale."""

    gate: AccuracyGate
    limit: float

    def allows(self, value: float | None) -> bool:
        """Tell whether the outputs that are farthest apart keep the limit; None: all are bit-identical."""
        return value is None or self.gate.scale.holds(value, self.limit)
