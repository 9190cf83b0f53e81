"""How far two sets of outputs are apart on a gate's scale: reference drift, and the noise of BF16 against BF16."""

from __future__ import annotations

from math import isnan, nan
from typing import TYPE_CHECKING

from pytest_mxq.evaluation.protocols import O, Scorer

if TYPE_CHECKING:
    from pytest_mxq.gates.base import AccuracyGate


def bit_identical(one: O, other: O) -> bool:
    """Tell whether all images, and all audio, are bit-identical.

    Raises:
        ImageError: the images differ in size or number.
    """
    return len(one.identical_positions(other)) == len(one.positions)


def farthest(scorer: Scorer[O], gate: AccuracyGate, reference: O, other: O) -> float | None:
    """Return the value of the outputs that are farthest apart, NaN where any is; None where all are bit-identical."""
    if bit_identical(reference, other):
        return None
    values = scorer.score(gate, reference, other)
    worst = min if gate.scale.higher_is_better else max
    return nan if any(map(isnan, values)) else worst(values)
