"""The gates that exist, the arguments of their markers, and the bound that applies to a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pytest_mxq.errors import CaseFaultError
from pytest_mxq.gates.speed_statistics import MAX_ROUNDS, MAX_SECONDS, SpeedRule

EMULATED_SUFFIX = "-emulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateKind:
    """One gate: its marker is ``mxq_<name>``.

    Attributes:
        name: "lpips".
        limit: the marker's argument that holds the bound: "max" or "min".
        higher_is_better: direction of the comparison.
        family: what it looks at: images, speed or memory.
        noun: what it has a value of, where it has none of each frame.
        arguments: further arguments of its marker.
        largest: largest bound that makes sense (a bound beyond it could not fail or not pass).
        unit: printed behind numbers.
        digits: decimals in print.
    """

    name: str
    limit: str
    higher_is_better: bool
    largest: float
    unit: str = ""
    digits: int = 4
    family: str = "images"
    noun: str = "image"
    arguments: tuple[str, ...] = ("worst",)

    @property
    def marker(self) -> str:
        """Name of the marker."""
        return f"mxq_{self.name}"

    def show(self, value: float) -> str:
        """A number as people read it; a small one keeps two digits that count."""
        small = 0 < abs(value) < 10.0 ** (1 - self.digits)
        return f"{value:.2g}{self.unit}" if small else f"{value:.{self.digits}f}{self.unit}"


GATES: dict[str, GateKind] = {
    "lpips": GateKind(name="lpips", limit="max", higher_is_better=False, largest=0.80),
    "ssim": GateKind(name="ssim", limit="min", higher_is_better=True, largest=1.0),
    "psnr": GateKind(name="psnr", limit="min", higher_is_better=True, largest=120.0, unit=" dB", digits=2),
    "flicker": GateKind(name="flicker", limit="max", higher_is_better=False, largest=1.0, digits=3, noun="video"),
    "audio": GateKind(
        name="audio", limit="max", higher_is_better=False, largest=60.0, unit=" dB", digits=2, noun="video"
    ),
    "speedup": GateKind(
        name="speedup",
        limit="min",
        higher_is_better=True,
        largest=100.0,
        unit="x",
        digits=3,
        family="speed",
        arguments=("rule", "max_rounds", "max_seconds"),
    ),
    "memory": GateKind(
        name="memory",
        limit="max_ratio",
        higher_is_better=False,
        largest=2.0,
        digits=3,
        family="memory",
        arguments=("max_gib", "max_weight_ratio"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What one gate demands of one format: of the mean, and of the worst image (None: not bounded)."""

    mean: float
    worst: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedBound:
    """What ``mxq_speedup`` demands of one format.

    Attributes:
        speedup: the speedup over BF16.
        rule: how sure it must be.
        max_rounds: paired rounds after which sampling ends.
        max_seconds: seconds after which it ends, once there are rounds enough for an interval.
    """

    speedup: float
    rule: SpeedRule
    max_rounds: int = MAX_ROUNDS
    max_seconds: float = MAX_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBound:
    """What ``mxq_memory`` demands of one format; None: not bounded.

    Attributes:
        max_ratio: largest peak memory as a share of BF16's.
        max_gib: largest peak memory, GiB.
        max_weight_ratio: largest size of the quantized weights as a share of their size in BF16.
    """

    max_ratio: float | None
    max_gib: float | None
    max_weight_ratio: float | None


AnyBound = Bound | SpeedBound | MemoryBound


def read_any_bound(
    kind: GateKind, args: tuple[Any, ...], arguments: Mapping[str, Any], *, format_name: str, emulated: bool
) -> AnyBound:
    """The bound that a gate's marker states for a format.

    Raises:
        CaseFaultError: as `read_bound`.
    """
    if kind.family == "images":
        return read_bound(kind, args, arguments, format_name=format_name, emulated=emulated)
    _check_arguments(kind, args, arguments)
    if kind.family == "speed":
        return _speed_bound(kind, arguments, format_name)
    return _memory_bound(kind, arguments, format_name)


def _speed_bound(kind: GateKind, arguments: Mapping[str, Any], format_name: str) -> SpeedBound:
    _need_limit(kind, arguments)
    rules = [rule.value for rule in SpeedRule]
    rule = arguments.get("rule", SpeedRule.NOT_BELOW.value)
    if rule not in rules:
        raise CaseFaultError(f"{kind.marker}(rule=) must be one of {', '.join(rules)}; got {rule!r}")
    rounds = arguments.get("max_rounds", MAX_ROUNDS)
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds % 2 or not 6 <= rounds <= 200:
        raise CaseFaultError(f"{kind.marker}(max_rounds=) must be an even number from 6 to 200, got {rounds!r}")
    seconds = arguments.get("max_seconds", MAX_SECONDS)
    return SpeedBound(
        speedup=_number(kind, "min", arguments["min"], format_name, emulated=False),
        rule=SpeedRule(rule),
        max_rounds=rounds,
        max_seconds=_number(kind, "max_seconds", seconds, format_name, emulated=False, largest=7200.0),
    )


def _memory_bound(kind: GateKind, arguments: Mapping[str, Any], format_name: str) -> MemoryBound:
    largest = {"max_ratio": 2.0, "max_gib": 10_000.0, "max_weight_ratio": 1.0}
    if not arguments:
        raise CaseFaultError(f"{kind.marker} needs at least one of {', '.join(largest)}")
    stated = {
        name: _number(kind, name, arguments[name], format_name, emulated=False, largest=limit)
        for name, limit in largest.items()
        if name in arguments
    }
    return MemoryBound(**{name: stated.get(name) for name in largest})


def _check_arguments(kind: GateKind, args: tuple[Any, ...], arguments: Mapping[str, Any]) -> None:
    allowed = (kind.limit, *kind.arguments)
    if args:
        raise CaseFaultError(f"{kind.marker} takes no positional argument, got {args!r}: write {kind.limit}=...")
    for name in arguments:
        if name not in allowed:
            raise CaseFaultError(f"{kind.marker} has no argument {name!r}; it takes {', '.join(allowed)}")


def _need_limit(kind: GateKind, arguments: Mapping[str, Any]) -> None:
    if kind.limit not in arguments:
        raise CaseFaultError(f"{kind.marker} needs {kind.limit}=, a number or a mapping by format")


def read_bound(
    kind: GateKind, args: tuple[Any, ...], arguments: Mapping[str, Any], *, format_name: str, emulated: bool
) -> Bound:
    """The bound of images that a marker states for a format.

    Args:
        kind: the gate.
        args: the marker's positional arguments; there must be none.
        arguments: its keyword arguments.
        format_name: "nvfp4".
        emulated: whether the arm is emulated; then the key "nvfp4-emulated" serves before "nvfp4".

    Raises:
        CaseFaultError: unknown or missing argument, no bound for the format, or a bound that decides nothing.
    """
    _check_arguments(kind, args, arguments)
    _need_limit(kind, arguments)
    mean = _number(kind, kind.limit, arguments[kind.limit], format_name, emulated=emulated)
    if "worst" in arguments:
        worst = _number(kind, "worst", arguments["worst"], format_name, emulated=emulated)
        _check_order(kind, mean, worst)
        return Bound(mean=mean, worst=worst)
    return Bound(mean=mean, worst=None if kind.higher_is_better else default_worst(kind, mean))


def default_worst(kind: GateKind, mean: float) -> float:
    """The bound of the worst image or video where the marker states none, at most the gate's largest.

    Of LPIPS max(2 m, m + 0.15), as published practice has it; of flicker 2 m; of audio m + 6 dB, twice the amplitude.

    >>> default_worst(GATES["lpips"], 0.10)
    0.25
    >>> default_worst(GATES["lpips"], 0.47)
    0.8
    >>> default_worst(GATES["audio"], 4.0)
    10.0
    """
    slack = {"lpips": max(mean, 0.15), "audio": 6.0}.get(kind.name, mean)
    return min(mean + slack, kind.largest)


def _check_order(kind: GateKind, mean: float, worst: float) -> None:
    if (worst > mean) if kind.higher_is_better else (worst < mean):
        raise CaseFaultError(
            f"{kind.marker}: worst={worst} is stricter than {kind.limit}={mean}; "
            "the worst image cannot be better than the mean"
        )


def _number(
    kind: GateKind, argument: str, stated: object, format_name: str, *, emulated: bool, largest: float | None = None
) -> float:
    most = kind.largest if largest is None else largest
    where = f"{kind.marker}({argument}=)"
    if isinstance(stated, Mapping):
        keys = (f"{format_name}{EMULATED_SUFFIX}", format_name) if emulated else (format_name,)
        found = next((key for key in keys if key in stated), None)
        if found is None:
            raise CaseFaultError(
                f"{where} states no bound for format {format_name!r}; it has "
                f"{', '.join(map(repr, stated)) or 'none'}: add {format_name!r} or leave it out of --mxq-formats"
            )
        stated, where = stated[found], f"{kind.marker}({argument}={{{found!r}: ...}})"
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        raise CaseFaultError(f"{where} must be a number, got {stated!r} ({type(stated).__name__})")
    value = float(stated)
    if not isfinite(value) or not 0 < value <= most:
        raise CaseFaultError(f"{where} must be above 0 and at most {most:g}, got {stated!r}")
    return value


def check_mapping_keys(kind: GateKind, arguments: Mapping[str, Any], formats: tuple[str, ...]) -> None:
    """Refuse a key of a bound mapping that names no registered format (a typo there would gate nothing).

    Raises:
        CaseFaultError: naming the key and the formats that exist.
    """
    allowed = {*formats, *(name + EMULATED_SUFFIX for name in formats)}
    for argument, stated in arguments.items():
        for key in stated if isinstance(stated, Mapping) else ():
            if key not in allowed:
                raise CaseFaultError(
                    f"{kind.marker}({argument}=) has a bound for {key!r}, which is no format; "
                    f"formats: {', '.join(formats)} (each also as '<format>{EMULATED_SUFFIX}')"
                )
