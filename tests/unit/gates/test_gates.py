"""What every gate keeps to, built in or of a project's own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_mxq.errors import CaseFaultError, MxqError
from pytest_mxq.gates import MARKERS, built_in_gates
from pytest_mxq.gates.base import COMPILED_CALLS, GENERATED_OUTPUTS, AccuracyGate, Gate, MemoryUse, Needs, Scale
from pytest_mxq.gates.bounds import Bound, MarkerArguments
from pytest_mxq.gates.memory import MemoryGate
from pytest_mxq.gates.speedup import SpeedGate
from pytest_mxq.testing import check_gate

LIMITS = {
    "lpips": 0.1,
    "ssim": 0.9,
    "psnr": 30.0,
    "msssim": 0.9,
    "lpips_vgg": 0.1,
    "dists": 0.1,
    "flicker": 0.1,
    "audio": 6.0,
    "speedup": 1.2,
    "memory": 0.7,
}


def own(name: str, **changes: Any) -> AccuracyGate:
    """A gate of a project's own."""
    fields: dict[str, Any] = {
        "summary": "a gate of a test",
        "largest": 2.0,
        "scale": Scale(higher_is_better=False),
        "score": lambda _reference, _other: [0.0],
    }
    return AccuracyGate(name=name, **{**fields, **changes})


def arguments(gate: Gate, *positional: Any, **named: Any) -> MarkerArguments:
    return MarkerArguments(marker=gate.marker, positional=positional, named=named, format_name="nvfp4")


def test_the_markers_that_an_idle_run_declares_are_those_of_the_gates() -> None:
    assert tuple(gate.marker for gate in built_in_gates()) == MARKERS


def test_every_gate_is_called_otherwise() -> None:
    names = [gate.name for gate in built_in_gates()]
    assert sorted(names) == sorted(LIMITS)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("gate", built_in_gates(), ids=lambda gate: gate.name)
def test_every_built_in_gate_passes_the_check_of_registered_gates(gate: Gate) -> None:
    check_gate(gate, limit=LIMITS[gate.name])


@pytest.mark.parametrize("gate", built_in_gates(), ids=lambda gate: gate.name)
def test_every_gate_says_in_one_line_what_its_marker_takes(gate: Gate) -> None:
    assert "\n" not in gate.marker_line
    for name in (gate.limit, *gate.arguments):
        assert f"{name}=" in gate.marker_line.partition(":")[0]
    assert gate.marker_line.endswith(gate.summary)


@pytest.mark.parametrize("gate", built_in_gates(), ids=lambda gate: gate.name)
def test_every_gate_refuses_what_its_marker_does_not_take(gate: Gate) -> None:
    with pytest.raises(
        CaseFaultError, match=f"{gate.marker} takes no positional argument, got .*: write {gate.limit}="
    ):
        gate.read_bound(arguments(gate, 0.1))
    with pytest.raises(CaseFaultError, match=f"{gate.marker} has no argument 'bound'; it takes {gate.limit}, "):
        gate.read_bound(arguments(gate, **{gate.limit: LIMITS[gate.name], "bound": 1}))
    with pytest.raises(CaseFaultError, match=f"{gate.marker} needs "):
        gate.read_bound(arguments(gate))


def test_gates_of_outputs_and_of_calls_need_what_they_say() -> None:
    assert {gate.name for gate in built_in_gates() if gate.needs is COMPILED_CALLS} >= {"speedup", "memory"}
    for gate in built_in_gates():
        assert gate.needs is (GENERATED_OUTPUTS if isinstance(gate, AccuracyGate) else COMPILED_CALLS), gate.name


@pytest.mark.parametrize("name", ["", "my-gate", "Mine", "2nd", "_x", "a b", "lpips\n", "é", "a/b", "a.b", "b4"])
def test_a_name_that_is_not_allowed_is_shown_with_the_rule(name: str) -> None:
    with pytest.raises(MxqError, match=r"not allowed: lower-case letters, digits and '_', a letter first") as caught:
        own(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["refresh", "nothing"])
def test_a_name_that_stands_for_no_gate_in_test_ids_is_reserved(name: str) -> None:
    with pytest.raises(MxqError, match=f"gate name '{name}' is reserved, as are refresh, nothing"):
        own(name)


@pytest.mark.parametrize("kind", [AccuracyGate, SpeedGate, MemoryGate])
@pytest.mark.parametrize("stated", ["limit", "arguments"])
def test_a_gate_s_direction_and_what_its_marker_takes_are_facts_of_its_scale_and_class(kind: Any, stated: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{stated}'"):
        kind(name="vtwo", summary="", scale=Scale(higher_is_better=False), **{stated: "ratio"})
    assert own("up", scale=Scale(higher_is_better=True)).limit == "min"
    assert own("down", scale=Scale(higher_is_better=False)).limit == "max"


def test_a_gate_of_speed_or_memory_whose_scale_is_turned_around_cannot_be_made() -> None:
    with pytest.raises(MxqError, match="gate 'slow': of a speedup, higher is better"):
        SpeedGate(name="slow", summary="", largest=2.0, scale=Scale(higher_is_better=False))
    with pytest.raises(MxqError, match="gate 'vram': of memory, lower is better"):
        MemoryGate(name="vram", summary="", scale=Scale(higher_is_better=True))


@pytest.mark.parametrize("worst", [0.05, float("nan"), float("-inf")])
def test_a_default_of_the_worst_bound_that_decides_nothing_is_refused(worst: float) -> None:
    gate = own("mae", default_worst=lambda _mean: worst)
    with pytest.raises(CaseFaultError, match=r"mxq_mae: default_worst\(0.1\) is .*, stricter than the mean's bound"):
        gate.read_bound(arguments(gate, max=0.1))


@pytest.mark.parametrize("name", ["niqe", "vmaf_score", "lpips2"])
def test_an_allowed_name_makes_the_marker(name: str) -> None:
    gate = own(name)
    assert gate.marker == f"mxq_{name}"
    assert gate.marker_line == f"mxq_{name}(max=, worst=): a gate of a test"
    check_gate(gate, limit=1.5)


@pytest.mark.parametrize(
    ("values", "said"),
    [([], "no values"), ([0.1], "1 values for 2 images"), ([0.1, "0.2"], "'0.2', no number"), ([0.1, 0.2], None)],
)
def test_the_check_scores_outputs_where_it_is_given_some(values: list[Any], said: str | None) -> None:
    gate, outputs = own("mae", score=lambda _reference, _other: values), SimpleNamespace(positions=(0, 1), noun="image")
    with nullcontext() if said is None else pytest.raises(AssertionError, match=said):
        check_gate(gate, limit=0.5, outputs=(outputs, outputs))


def test_the_check_finds_a_gate_whose_bound_is_not_read() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Careless(AccuracyGate):
        def read_bound(self, arguments: MarkerArguments) -> Bound:
            stated = arguments.named[self.limit]
            return Bound(mean=stated["nvfp4"] if isinstance(stated, dict) else stated, worst=None)

    fields = {name: getattr(own("careless"), name) for name in ("name", "summary", "largest", "scale", "score")}
    with pytest.raises(AssertionError, match="careless: the bound 0 is not refused"):
        check_gate(Careless(**fields), limit=0.5)


def test_a_gate_that_reads_no_bound_cannot_be_made() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Boundless(Gate):
        @property
        def needs(self) -> Needs:
            return Needs(memory=MemoryUse.OUTPUTS, native=False, trained_weights=True, exclusive_device=False)

        @property
        def arguments(self) -> tuple[str, ...]:
            return ()

    make: Any = Boundless
    with pytest.raises(TypeError, match="read_bound"):
        make(name="boundless", summary="", scale=Scale(higher_is_better=False))


@pytest.mark.parametrize(
    ("higher_is_better", "value", "limit", "holds"),
    [
        (True, 1.0, 1.0, True),
        (True, 0.99, 1.0, False),
        (False, 1.0, 1.0, True),
        (False, 1.01, 1.0, False),
        (True, float("inf"), 1.0, False),
        (False, float("-inf"), 1.0, False),
        (True, float("nan"), 1.0, False),
        (False, float("nan"), 1.0, False),
    ],
)
def test_nothing_holds_that_is_not_a_finite_number(
    *, higher_is_better: bool, value: float, limit: float, holds: bool
) -> None:
    assert Scale(higher_is_better=higher_is_better).holds(value, limit) is holds


@pytest.mark.parametrize(
    ("value", "shown"), [(0.1234567, "0.1235 dB"), (0.00001234, "1.2e-05 dB"), (0.0, "0.0000 dB"), (-3.0, "-3.0000 dB")]
)
def test_a_small_number_keeps_two_digits(value: float, shown: str) -> None:
    assert Scale(higher_is_better=True, unit=" dB").show(value) == shown


def test_the_markers_are_known_without_importing_a_gate() -> None:
    code = (
        "import sys; from pytest_mxq.gates import MARKERS, built_in_gates; assert MARKERS;"
        "assert not [name for name in sys.modules if name.startswith('pytest_mxq.gates.')];"
        "built_in_gates(); sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
