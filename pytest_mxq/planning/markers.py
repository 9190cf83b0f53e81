"""Which markers of a test count: a parameter's own before the function's, the function's before the class's."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pytest_mxq.errors import CaseFaultError, MxqError
from pytest_mxq.gates.bounds import MarkerArguments, check_format_keys
from pytest_mxq.planning.settings import read_case_settings
from pytest_mxq.registry import check_name

if TYPE_CHECKING:
    import pytest

    from pytest_mxq.gates.base import Gate
    from pytest_mxq.planning.gate_param import GateParam

PIPELINE, PROMPT = "mxq_pipeline", "mxq_prompt"


def is_gate_test(item: pytest.Item) -> bool:
    """Tell whether an item asks for the gated pipeline."""
    return PIPELINE in getattr(item, "fixturenames", ())


def stray_marker(item: pytest.Item) -> str | None:
    """Return the fault of a test with a gate marker that does not use the pipeline: its marker would gate nothing."""
    for marker in item.iter_markers():
        if marker.name == "mxq" or marker.name.startswith("mxq_"):
            return f"the marker {marker.name} gates nothing: the test does not use the fixture {PIPELINE}"
    return None


def closest(item: pytest.Item, name: str) -> pytest.Mark | None:
    """Return the marker of a name that counts for an item; None: it has none."""
    own = [marker for marker in item.own_markers if marker.name == name]
    return own[-1] if own else item.get_closest_marker(name)


def check_own_markers(item: pytest.Function) -> None:
    """Refuse two markers of one name on one test that differ: which of them counted would hang on their order.

    A parameter's own marker takes the place of the function's; a class's and a module's are not the test's own.

    Raises:
        CaseFaultError: naming both.
    """
    callspec: Any = getattr(item, "callspec", None)
    of_parameters = list(callspec.marks) if callspec is not None else []
    replaced = {marker.name for marker in of_parameters}
    of_function = [marker for marker in getattr(item.obj, "pytestmark", ()) if marker.name in replaced]
    first: dict[str, pytest.Mark] = {}
    for marker in item.own_markers:
        if not marker.name.startswith("mxq") or (marker in of_function and marker not in of_parameters):
            continue
        other = first.setdefault(marker.name, marker)
        if (other.args, other.kwargs) != (marker.args, marker.kwargs):
            raise CaseFaultError(f"the test has two markers {marker.name}: {_shown(other)} and {_shown(marker)}")


def _shown(marker: pytest.Mark) -> str:
    arguments = [*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())]
    return f"{marker.name}({', '.join(arguments)})"


def gates_of(definition: pytest.Function, gates: Iterable[Gate]) -> tuple[str, ...]:
    """Return the gates of a test, in the registry's order: of its markers and of its parameters' markers."""
    marked = {marker.name for marker in definition.iter_markers()} | set(_parameter_marks(definition))
    return tuple(gate.name for gate in gates if gate.marker in marked)


def batch_sizes_of(definition: pytest.Function) -> list[int | None]:
    """Return the batch sizes that a test's own marker lists; [None] where it lists none."""
    marker = closest(definition, "mxq")
    stated = marker.kwargs.get("batch_size") if marker else None
    if marker is None or not isinstance(stated, list | tuple):
        return [None]
    try:
        return [choice.batch_size for choice in read_case_settings(marker.args, marker.kwargs)]
    except MxqError:
        return [None]  # raised again, as the test's fault, when its items are planned


def read_marker(item: pytest.Item, gate: Gate, format_name: str, *, emulated: bool) -> MarkerArguments:
    """Return the arguments of a gate's marker, to be read for a format.

    Raises:
        CaseFaultError: the test has no such marker.
    """
    marker = closest(item, gate.marker)
    if marker is None:
        raise CaseFaultError(f"no marker {gate.marker}")
    return MarkerArguments(
        marker=gate.marker, positional=marker.args, named=marker.kwargs, format_name=format_name, emulated=emulated
    )


def check_markers(item: pytest.Item, gates: Iterable[Gate], formats: tuple[str, ...]) -> None:
    """Refuse markers that do not exist, bounds of formats that do not exist, and a test without a gate.

    Raises:
        CaseFaultError: naming the marker or the key, and those that exist.
    """
    by_marker = {gate.marker: gate for gate in gates}
    found = 0
    for marker in item.iter_markers():
        if marker.name in by_marker:
            found += 1
            check_format_keys(marker.name, marker.kwargs, formats)
        elif marker.name.startswith("mxq"):
            try:
                check_name("marker", marker.name, sorted({"mxq", *by_marker}))
            except MxqError as error:
                raise CaseFaultError(str(error)) from None
    if not found:
        raise CaseFaultError(f"no gate: add one of {', '.join(sorted(by_marker))}")


def check_seen(item: pytest.Item, param: GateParam, gates: Iterable[Gate]) -> None:
    """Refuse a gate marker that was not there when the test was parametrized: it has no item of its own.

    Raises:
        CaseFaultError: naming the marker.
    """
    marked = {marker.name for marker in item.iter_markers()}
    for gate in gates:
        if gate.marker in marked and gate.name not in param.seen:
            raise CaseFaultError(
                f"the marker {gate.marker} comes with a parameter that was not seen in time and would gate nothing; "
                "put it on the test itself, or into a list of pytest.param(..., marks=...) of @pytest.mark.parametrize"
            )


def check_test(item: pytest.Function) -> None:
    """Refuse a test whose body cannot be a workload.

    Raises:
        CaseFaultError: it is asynchronous, or it does not use the prompt.
    """
    if inspect.iscoroutinefunction(item.obj):
        raise CaseFaultError("an async test cannot be a workload: the plugin calls the body and needs its outputs")
    if PROMPT not in item.fixturenames:
        raise CaseFaultError(
            f"the test does not use the fixture {PROMPT}: it would generate none of the case's prompts"
        )


def _parameter_marks(definition: pytest.Function) -> Iterator[str]:
    for marker in definition.iter_markers("parametrize"):
        values = marker.args[1] if len(marker.args) > 1 else marker.kwargs.get("argvalues", ())
        for value in values if isinstance(values, Collection) else ():
            yield from (mark.name for mark in getattr(value, "marks", ()))
