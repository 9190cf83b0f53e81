"""The parameter of one item: which batch size, format and gate it is. Its id is written and read here alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from pytest_mxq.errors import MxqError

REFRESH, NO_GATE, NO_FORMATS, NOTHING = "refresh", "no-gate", "no-formats", "nothing"

# From the right, since what stands before it is the user's own: a format and a gate hold no hyphen, and a batch size
# stands last, where no gate can look like one.
_ID = re.compile(r"(?:^|-)(?P<format>[a-z0-9._]+)-(?P<gate>[a-z][a-z0-9_]*)(?:-b(?P<batch>[1-9][0-9]*))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateParam:
    """The parameter of one item.

    Attributes:
        format: the format; "bf16" at a refresh, "any" for a test that cannot be gated.
        gate: the gate, or `REFRESH`.
        batch_size: which of a list of batch sizes; None: the marker states one.
        seen: the gates that were seen when the test was parametrized; a marker that comes later would gate nothing.
    """

    format: str
    gate: str
    batch_size: int | None = None
    seen: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The item's id: "nvfp4-lpips", "nvfp4-lpips-b4", "bf16-refresh"."""
        tail = "" if self.batch_size is None else f"-b{self.batch_size}"
        return f"{self.format}-{self.gate}{tail}"

    @classmethod
    def from_id(cls, text: str) -> GateParam:
        """Return the parameter that an id ends in, whatever a user's own parameters stand before it.

        Raises:
            MxqError: it ends in no such id.
        """
        found = _ID.search(text)
        if found is None:
            raise MxqError(f"{text!r} does not end in '<format>-<gate>' or '<format>-<gate>-b<batch size>'")
        batch = found["batch"]
        return cls(format=found["format"], gate=found["gate"], batch_size=int(batch) if batch else None)

    @classmethod
    def from_nodeid(cls, nodeid: str, *, formats: Collection[str], gates: Collection[str]) -> GateParam | None:
        """Return the parameter of a nodeid that a worker reports; None where the item is no gate of these kinds."""
        planned = planned_nodeid(nodeid)
        if not planned.endswith("]"):
            return None
        bracket = planned.find("[", planned.find("::"))  # a folder's name may hold one
        try:
            param = cls.from_id(planned[bracket + 1 :].removesuffix("]"))
        except MxqError:
            return None
        known = param.format in formats and param.gate in gates
        return param if known or (param.format, param.gate) == (REFRESH_PARAM.format, REFRESH_PARAM.gate) else None

    def user_id(self, callspec_id: str) -> str:
        """Return what an item's parameters hold beside this one: "wide" of "wide-nvfp4-lpips-b4"."""
        if callspec_id == self.id:
            return ""
        if callspec_id.endswith(f"-{self.id}"):
            return callspec_id.removesuffix(f"-{self.id}")
        # Another plugin parametrized the test after us.
        before, found, after = f"-{callspec_id}".rpartition(f"-{self.id}-")
        return "-".join(part for part in (before.removeprefix("-"), after) if part) if found else callspec_id


REFRESH_PARAM = GateParam(format="bf16", gate=REFRESH)
EMPTY_PARAM = GateParam(format="any", gate=NOTHING)
"""Placeholder of a test that is left with no gate; it is deselected."""


def refresh_nodeid(nodeid: str, *, formats: Collection[str], gates: Collection[str]) -> str:
    """Return the nodeid of the refresh of a gate's case; any other nodeid, and any path, as it is.

    >>> refresh_nodeid("test_x.py::test_x[wide-nvfp4-lpips-b4]", formats=["nvfp4"], gates=["lpips"])
    'test_x.py::test_x[wide-bf16-refresh-b4]'
    """
    test, bracket, rest = nodeid.partition("[") if "::" in nodeid else (nodeid, "", "")
    names = (f"(?:{'|'.join(map(re.escape, kinds))})" for kinds in (formats, gates))
    gate = re.compile(rf"(?:^|(?<=-)){'-'.join(names)}(?=-|\]$)")
    found = list(gate.finditer(rest))
    if not found:
        return nodeid
    start, end = found[-1].span()
    return f"{test}{bracket}{rest[:start]}{REFRESH_PARAM.id}{rest[end:]}"


def planned_nodeid(nodeid: str) -> str:
    """Return a nodeid as it was when the item was planned: without the @group that xdist's loadgroup appends."""
    if nodeid.endswith("]"):
        return nodeid
    test, grouped, _ = nodeid.rpartition("]@")
    return f"{test}]" if grouped else nodeid
