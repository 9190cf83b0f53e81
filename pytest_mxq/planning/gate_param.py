"""The parameter of one item: which batch size, format and gate it is. Its id is written and read here alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from pytest_mxq.errors import MxqError
from pytest_mxq.gates.base import RESERVED_NAMES

REFRESH, NOTHING = RESERVED_NAMES
NO_GATE, NO_FORMATS = "no-gate", "no-formats"

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


def planned_gate(nodeid: str, *, formats: Collection[str], gates: Collection[str]) -> tuple[str, GateParam] | None:
    """Return a gate's nodeid as it was planned, and its parameter; None where a nodeid is no gate's of these kinds.

    xdist's loadgroup appends "@group" after planning, and a group's name may hold what ends a nodeid. A parameter of
    the user's own may look like a gate's, so this is a guess; what a worker planned is not.

    >>> planned_gate("t.py::t[mxfp8-lpips]@gpu[0]", formats=["mxfp8"], gates=["lpips"])[0]
    't.py::t[mxfp8-lpips]'
    """
    ends = [match.start() + 1 for match in re.finditer(r"\](?:@|\Z)", nodeid)]
    for planned in (nodeid[:end] for end in reversed(ends)):
        param = _param_of(planned.removeprefix(f"{without_params(planned)}[").removesuffix("]"))
        if param is None:
            continue
        known = param.format in formats and param.gate in gates
        if known or (param.format, param.gate) == (REFRESH_PARAM.format, REFRESH_PARAM.gate):
            return planned, param
    return None


def _param_of(ids: str) -> GateParam | None:
    try:
        return GateParam.from_id(ids)
    except MxqError:
        return None


def file_of(nodeid: str) -> str:
    """Return the file that a nodeid stands in, relative to the project's root.

    >>> file_of("tests[1]/test_x.py::TestX::test_x[a::b]")
    'tests[1]/test_x.py'
    """
    return nodeid.partition("::")[0]


def without_params(nodeid: str) -> str:
    """Return a nodeid without the ids of its parameters; a folder's name may hold a bracket.

    >>> without_params("tests[1]/test_x.py::TestX::test_x[a[0]-nvfp4-lpips]")
    'tests[1]/test_x.py::TestX::test_x'
    """
    path = file_of(nodeid)
    return path + nodeid[len(path) :].partition("[")[0]


def refresh_nodeid(nodeid: str, *, formats: Collection[str], gates: Collection[str]) -> str:
    """Return the nodeid of the refresh of a gate's case; any other nodeid, and any path, as it is.

    >>> refresh_nodeid("test_x.py::test_x[wide-nvfp4-lpips-b4]", formats=["nvfp4"], gates=["lpips"])
    'test_x.py::test_x[wide-bf16-refresh-b4]'
    """
    test = without_params(nodeid)
    ids = nodeid[len(test) :]
    names = (f"(?:{'|'.join(map(re.escape, kinds))})" for kinds in (formats, gates))
    gate = re.compile(rf"(?<=[\[-]){'-'.join(names)}(?=-|\]$)")
    found = list(gate.finditer(ids)) if "::" in nodeid else []
    if not found:
        return nodeid
    start, end = found[-1].span()
    return f"{test}{ids[:start]}{REFRESH_PARAM.id}{ids[end:]}"
