"""Read what a gate's marker demands of one format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from pytest_mxq.errors import CaseFaultError

EMULATED_SUFFIX = "-emulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What an accuracy gate demands of one format: of the mean, and of the worst output (None: not bounded)."""

    mean: float
    worst: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerArguments:
    """The arguments of one gate's marker, read for one format.

    Attributes:
        marker: name of the marker.
        positional: its positional arguments; a gate's marker takes none.
        named: its keyword arguments.
        format_name: "nvfp4".
        emulated: whether the arm is emulated; then the key "nvfp4-emulated" serves before "nvfp4".
    """

    marker: str
    positional: tuple[Any, ...]
    named: Mapping[str, Any]
    format_name: str
    emulated: bool = False

    def check_names(self, allowed: tuple[str, ...]) -> None:
        """Refuse positional and unknown arguments.

        Raises:
            CaseFaultError: naming the argument and those that exist.
        """
        if self.positional:
            raise CaseFaultError(
                f"{self.marker} takes no positional argument, got {self.positional!r}: write {allowed[0]}=..."
            )
        for name in self.named:
            if name not in allowed:
                raise CaseFaultError(f"{self.marker} has no argument {name!r}; it takes {', '.join(allowed)}")

    def require(self, name: str) -> None:
        """Refuse a marker without an argument that it cannot do without.

        Raises:
            CaseFaultError: naming it.
        """
        if name not in self.named:
            raise CaseFaultError(f"{self.marker} needs {name}=, a number or a mapping by format")

    def number(self, name: str, *, largest: float, default: float | None = None) -> float:
        """Return the number that an argument states for the format.

        Args:
            name: the argument.
            largest: the largest value that makes sense; beyond it a bound could not fail, or not pass.
            default: what serves where the argument is absent; None: it must be there.

        Raises:
            CaseFaultError: there is no number for the format, or it decides nothing (0, negative, NaN, infinite,
                above ``largest``).
        """
        if default is None:
            self.require(name)
        stated, where = self.named.get(name, default), f"{self.marker}({name}=)"
        if isinstance(stated, Mapping):
            key = self._key(stated, where)
            stated, where = stated[key], f"{self.marker}({name}={{{key!r}: ...}})"
        if isinstance(stated, bool) or not isinstance(stated, int | float):
            raise CaseFaultError(f"{where} must be a number, got {stated!r} ({type(stated).__name__})")
        value = float(stated)
        if not isfinite(value) or not 0 < value <= largest:
            raise CaseFaultError(f"{where} must be above 0 and at most {largest:g}, got {stated!r}")
        return value

    def _key(self, stated: Mapping[str, Any], where: str) -> str:
        name = self.format_name
        keys = (f"{name}{EMULATED_SUFFIX}", name) if self.emulated else (name,)
        found = next((key for key in keys if key in stated), None)
        if found is None:
            raise CaseFaultError(
                f"{where} states no bound for format {name!r}; it has {', '.join(map(repr, stated)) or 'none'}: "
                f"add {name!r} or leave it out of --mxq-formats"
            )
        return found


def check_format_keys(marker: str, named: Mapping[str, Any], formats: tuple[str, ...]) -> None:
    """Refuse a key of a bound mapping that names no registered format (a typo there would gate nothing).

    Raises:
        CaseFaultError: naming the key and the formats that exist.
    """
    allowed = {*formats, *(name + EMULATED_SUFFIX for name in formats)}
    for argument, stated in named.items():
        for key in stated if isinstance(stated, Mapping) else ():
            if key not in allowed:
                raise CaseFaultError(
                    f"{marker}({argument}=) has a bound for {key!r}, which is no format; "
                    f"formats: {', '.join(formats)} (each also as '<format>{EMULATED_SUFFIX}')"
                )
