"""The gates that exist, the arguments of their markers, and the bound that applies to a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pytest_mxq.errors import CaseFaultError

EMULATED_SUFFIX = "-emulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateKind:
    """One gate: its marker is ``mxq_<name>``.

    Attributes:
        name: "lpips".
        limit: the marker's argument that holds the bound: "max" or "min".
        higher_is_better: direction of the comparison.
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
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What one gate demands of one format: of the mean, and of the worst picture (None: not bounded)."""

    mean: float
    worst: float | None


def read_bound(
    kind: GateKind, args: tuple[Any, ...], arguments: Mapping[str, Any], *, format_name: str, emulated: bool
) -> Bound:
    """The bound that a marker states for a format.

    Args:
        kind: the gate.
        args: the marker's positional arguments; there must be none.
        arguments: its keyword arguments.
        format_name: "nvfp4".
        emulated: whether the arm is emulated; then the key "nvfp4-emulated" serves before "nvfp4".

    Raises:
        CaseFaultError: unknown or missing argument, no bound for the format, or a bound that decides nothing.
    """
    allowed = (kind.limit, "worst")
    if args:
        raise CaseFaultError(f"{kind.marker} takes no positional argument, got {args!r}: write {kind.limit}=...")
    for name in arguments:
        if name not in allowed:
            raise CaseFaultError(f"{kind.marker} has no argument {name!r}; it takes {', '.join(allowed)}")
    if kind.limit not in arguments:
        raise CaseFaultError(f"{kind.marker} needs {kind.limit}=, a number or a mapping by format")
    mean = _number(kind, kind.limit, arguments[kind.limit], format_name, emulated=emulated)
    if "worst" in arguments:
        worst = _number(kind, "worst", arguments["worst"], format_name, emulated=emulated)
        _check_order(kind, mean, worst)
        return Bound(mean=mean, worst=worst)
    return Bound(mean=mean, worst=default_worst(mean) if kind.name == "lpips" else None)


def default_worst(mean: float) -> float:
    """The bound of the worst picture's LPIPS where the marker states none: max(2 m, m + 0.15), at most 0.80.

    >>> default_worst(0.10)
    0.25
    >>> default_worst(0.47)
    0.8
    """
    return min(max(2 * mean, mean + 0.15), 0.80)


def _check_order(kind: GateKind, mean: float, worst: float) -> None:
    if (worst > mean) if kind.higher_is_better else (worst < mean):
        raise CaseFaultError(
            f"{kind.marker}: worst={worst} is stricter than {kind.limit}={mean}; "
            "the worst picture cannot be better than the mean"
        )


def _number(kind: GateKind, argument: str, stated: object, format_name: str, *, emulated: bool) -> float:
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
    if not isfinite(value) or not 0 < value <= kind.largest:
        raise CaseFaultError(f"{where} must be above 0 and at most {kind.largest:g}, got {stated!r}")
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
