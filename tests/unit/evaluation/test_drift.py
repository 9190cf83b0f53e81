"""How far outputs are apart on a gate's scale, and whether a drift check allows it."""

from __future__ import annotations

from math import isnan, nan
from typing import Any, cast

import pytest
import torch

from pytest_mxq.backend.output_set import GeneratedOutputs
from pytest_mxq.baselines.identity import Identity
from pytest_mxq.evaluation.drift import bit_identical, farthest
from pytest_mxq.gates.base import AccuracyGate, DriftCheck, Scale
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.metrics.images import ImageError


def outputs(images: torch.Tensor) -> GeneratedOutputs:
    identity = cast("Identity", None)
    positions = tuple(range(len(images)))
    return GeneratedOutputs(images=images, video=None, positions=positions, faults=(), identity=identity)


def gate(values: list[float], *, higher_is_better: bool = False, **fields: Any) -> AccuracyGate:
    """A gate of a project's own that finds these values."""
    scale = Scale(higher_is_better=higher_is_better)
    return AccuracyGate(name="own", summary="a gate", largest=9.0, scale=scale, score=lambda *_: values, **fields)


class Scorer:
    @staticmethod
    def score(gate: AccuracyGate, reference: Any, other: Any) -> list[float]:
        return list(gate.score(reference, other))


def images() -> torch.Tensor:
    return torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(torch.uint8)


def test_bit_identical_means_every_bit_of_every_image() -> None:
    other = images()
    assert bit_identical(outputs(images()), outputs(other))
    other[1, 2, 3, 3] += 1
    assert not bit_identical(outputs(images()), outputs(other))


def test_images_of_different_shapes_are_refused() -> None:
    small, large = (torch.zeros(1, 3, side, side, dtype=torch.uint8) for side in (4, 8))
    with pytest.raises(ImageError, match=r"\(1, 3, 4, 4\) and the others \(1, 3, 8, 8\)"):
        bit_identical(outputs(small), outputs(large))


def test_the_farthest_is_the_worst_by_the_gates_direction() -> None:
    scorer: Any = Scorer()
    one, other = outputs(images()), outputs(images() + 1)
    assert farthest(scorer, gate([0.5, 2.0]), one, other) == 2.0
    assert farthest(scorer, gate([0.5, 2.0], higher_is_better=True), one, other) == 0.5
    assert farthest(scorer, gate([0.5]), one, one) is None
    assert isnan(farthest(scorer, gate([nan, 0.5]), one, other) or 0.0)


@pytest.mark.parametrize(
    ("higher_is_better", "value", "allowed"),
    [
        (False, None, True),
        (False, 1.0, True),
        (False, 1.1, False),
        (False, nan, False),
        (True, 1.1, True),
        (True, 0.9, False),
    ],
)
def test_a_limit_holds_in_the_gates_direction_and_never_for_nan(
    higher_is_better: bool, value: float | None, allowed: bool
) -> None:
    assert DriftCheck(gate=gate([], higher_is_better=higher_is_better), limit=1.0).allows(value) is allowed


def test_a_gate_tells_drift_by_its_bound_or_by_its_usual_limit_where_the_test_lacks_its_marker() -> None:
    bound = Bound(mean=2.0, worst=None)
    assert gate([]).drift_check(bound) is None
    own = gate([], drift_limit=lambda bound: bound.mean / 4)
    assert own.drift_check(bound) == DriftCheck(gate=own, limit=0.5)
    assert own.drift_check(None) is None
    every = gate([], drift_limit=lambda bound: bound.mean / 4, usual_drift_limit=0.1)
    assert every.drift_check(None) == DriftCheck(gate=every, limit=0.1)
