"""What the page shows of a cell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from page_examples import cell, judged

from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.verdict import Drift
from pytest_mxq.reports.page_cells import view_cell

BOUND = Bound(mean=0.5, worst=None)


@pytest.mark.parametrize(
    ("gate", "drift", "noise"),
    [
        ("lpips", (), 0.25),  # as stored at refresh, on the scale of LPIPS
        ("lpips", (Drift(gate="lpips", value=0.125, limit=0.5),), 0.25),
        ("own", (Drift(gate="lpips", value=0.125, limit=0.5),), None),
        ("own", (Drift(gate="lpips", value=0.5, limit=0.5), Drift(gate="own", value=0.125, limit=0.5)), 0.125),
        ("own", (Drift(gate="own", value=None, limit=0.5),), None),
    ],
)
def test_the_noise_of_bf16_is_shown_on_the_scale_of_the_judged_gate(
    gate: str, drift: tuple[Drift, ...], noise: float | None
) -> None:
    verdict = judged([0.1, 0.2], BOUND, where=cell(gate))
    assert verdict.reference is not None
    reference = replace(verdict.reference, drift=drift, noise_gate="lpips", noise_repeat=0.25)
    view = view_cell(replace(verdict, reference=reference), [], {}, "anchor")
    assert view.strip is not None
    labels = [line.label for line in view.strip.lines if line.kind == "noise"]
    assert labels == ([] if noise is None else [f"BF16 against BF16 {verdict.show(noise)}"])
