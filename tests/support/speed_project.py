"""A project with gates of speed and memory on a pretended B200."""

from __future__ import annotations

import gc
import json
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest
    from gate_project import GateDirectory

MANIFEST = "baselines/nvidia-b200-sm100/demo/test_speed.json"
FAST = {"bf16": 2.0, "mxfp8": 1.6, "nvfp4": 1.3}


def run(gates: GateDirectory, *options: str) -> pytest.RunResult:
    result = gates.run("--mxq-formats=mxfp8,nvfp4", *options)
    # pytest-benchmark leaves the file of --benchmark-json open: the interpreter would warn of it in any later test.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()
    return result


def refresh(gates: GateDirectory, times: int) -> None:
    for _ in range(times):
        gates.run("--mxq-refresh").assert_outcomes(passed=1)


def manifest(gates: GateDirectory) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((gates.path / MANIFEST).read_text())
    return document


def modes(gates: GateDirectory) -> dict[str, str]:
    return {f"{r['cell']['format']}-{r['cell']['gate']}": r["reference"]["mode"] for r in gates.report()["verdicts"]}
