"""Verdicts and reports for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.scores import summarize
from pytest_mxq.gates.verdict import Cell, ReferenceNote, Verdict
from pytest_mxq.reports.records import DeviceFacts, FingerprintFacts, Report, RunSettings

SETTINGS = RunSettings(
    formats=("nvfp4",),
    models=(),
    gates=(),
    reference="auto",
    refresh=False,
    emulate=True,
    strict=False,
    random_weights=False,
    alpha=0.05,
    baselines="baselines",
    media=None,
    sources={},
)


def make_cell(number: int = 0, **fields: str) -> Cell:
    """A cell of LPIPS; its test's name ends in the number."""
    known = {"model": "demo", "case": f"test_{number}", "format": "nvfp4", "gate": "lpips"}
    return Cell(**{"nodeid": f"tests/test_it.py::test_{number}[nvfp4-lpips]", **known, **fields})


def make_verdict(outcome: Outcome = Outcome.REGRESSION, number: int = 0, **fields: Any) -> Verdict:
    """A verdict of LPIPS, by default a regression."""
    known: dict[str, Any] = {
        "cell": make_cell(number),
        "sentence": "mean 0.0500 > 0.0200",
        "scale": LPIPS.scale,
        "observed": 0.05,
        "bound": 0.02,
        "scores": summarize([0.04, 0.06], higher_is_better=False),
        "reference": ReferenceNote(mode="stored", reason="same hardware and software"),
        "next_command": f"pytest 'tests/test_it.py::test_{number}[nvfp4-lpips]' --mxq-formats=nvfp4",
    }
    return Verdict(outcome=outcome, **{**known, **fields})


def make_report(*verdicts: Verdict, **fields: Any) -> Report:
    """A finished report of some verdicts."""
    known: dict[str, Any] = {
        "created": "2026-11-25T03:04:05+00:00",
        "status": "finished",
        "commit": "0123456789ab",
        "settings": SETTINGS,
        "device": DeviceFacts(name="NVIDIA B200", slug="nvidia-b200-sm100", kind="cuda"),
        "fingerprint": FingerprintFacts(hard={"torch": "2.11"}, recorded={}),
        "planned": tuple(verdict.cell for verdict in verdicts),
        "verdicts": verdicts,
        "problems": (),
        "cautions": (),
    }
    return Report(**{**known, **fields})
