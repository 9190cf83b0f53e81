"""The fake backend scores any gate by what the gate says of its scale, and by what the test says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_mxq.baselines.identity import Identity
from pytest_mxq.gates.base import AccuracyGate, Scale
from pytest_mxq.testing import FakeOutputs, FakeScorer
from pytest_mxq.testing.fakes import fake_image

IDENTITY = Identity(
    model="demo",
    weights="folder:0",
    prompts=("a cat",),
    seed=0,
    batch_size=1,
    images_per_prompt=1,
    width=16,
    height=16,
    execution="eager",
    calls=({},),
)


def outputs(shift: int) -> FakeOutputs:
    return FakeOutputs(images=(fake_image("a cat", shift),), positions=(0,), faults=(), identity=IDENTITY)


def own(*, higher_is_better: bool) -> AccuracyGate:
    """A gate that the backend has never heard of."""
    scale = Scale(higher_is_better=higher_is_better)
    return AccuracyGate(name="own", summary="a gate of a test", largest=50.0, scale=scale, score=lambda *_: [])


@pytest.mark.parametrize(
    ("higher_is_better", "behaviour", "value"),
    [
        (False, {}, 0.01),
        (False, {"units": {"own": 1000}}, 10.0),
        (False, {"units": {"other": 1000}}, 0.01),
        (True, {}, 49.5),
        (True, {"units": {"own": 1000}}, 40.0),
    ],
)
def test_a_gate_is_scored_by_its_direction_its_largest_bound_and_the_unit_of_the_test(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    higher_is_better: bool,
    behaviour: dict[str, Any],
    value: float,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "behaviour.json").write_text(json.dumps(behaviour))
    gate = own(higher_is_better=higher_is_better)
    assert FakeScorer().score(gate, outputs(0), outputs(10)) == [pytest.approx(value)]
    assert FakeScorer().score(gate, outputs(0), outputs(0)) == [50.0 if higher_is_better else 0.0]
