"""Each injected fault gives the verdict that docs/trust.md says; each unharmed case passes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gate_bench import Bench, one_thread, without_compiler
from trust_bench import RECIPE, Fault, RememberingBackend, TrustBench
from trust_faults import FAULTS

from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.models.demo import DEMO


@pytest.fixture(scope="module")
def backend() -> Iterator[TorchBackend]:
    with one_thread() as backend:
        yield RememberingBackend("cpu", backend.progress)


@pytest.fixture(scope="module")
def stored(backend: TorchBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bench = Bench(backend, tmp_path_factory.mktemp("stored"))
    with pytest.MonkeyPatch.context() as patch:
        without_compiler(patch)
        for case in (bench.case(RECIPE, prompts=2), replace(bench.case(DEMO, prompts=8, batch_size=8), name="demo")):
            assert bench.refresh(case).outcome is Outcome.REFRESHED
    return bench.root / "baselines"


def row(fault: Fault) -> object:
    marks = [pytest.mark.xfail(strict=True, raises=AssertionError, reason=fault.hole)] if fault.hole else []
    return pytest.param(fault, id=re.sub(r"[^a-z0-9]+", "-", fault.injected.lower()).strip("-"), marks=marks)


@pytest.mark.parametrize("fault", [row(fault) for fault in FAULTS])
def test_an_injected_fault_gives_the_verdict_of_its_row(
    fault: Fault, backend: TorchBackend, stored: Path, tmp_path: Path
) -> None:
    verdict = TrustBench(backend, tmp_path, stored).trial(fault)
    assert verdict.outcome is fault.expected, verdict.sentence
    assert fault.said in " ".join((verdict.sentence, *verdict.cautions))
    if fault.layers is not None:
        assert verdict.evidence is not None
        assert verdict.evidence.run is not None
        assert verdict.evidence.run.ran == fault.layers
