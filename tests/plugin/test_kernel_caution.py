"""Compute capability 12.x: formats that ask for 10.0 run natively there, and the run says that its kernels are others."""

import pytest
from gate_project import GateDirectory

SAID = (
    "mxfp8, nvfp4 on compute capability 12.0 (NVIDIA B200): native, but with other kernels than 10.x, which the published "
    "numbers are of; they differ between releases of torch and torchao, and bounds from 10.x may not hold"
)


def on(gates: GateDirectory, capability: tuple[int, int]) -> None:
    gates.on_blackwell()
    gates.pretend("B200", capability=capability)
    gates.behave(seconds={"mxfp8": 0.5, "nvfp4": 0.5})


@pytest.mark.parametrize("ini", ["[pytest]\n", "[pytest]\nfilterwarnings = error\n"])
def test_gates_run_natively_and_the_caution_is_said_once_and_reported(gates: GateDirectory, ini: str) -> None:
    gates.pytester.makeini(ini)
    on(gates, (12, 0))
    result = gates.run("--mxq-formats=mxfp8,nvfp4")
    result.assert_outcomes(passed=4)
    assert result.stdout.str().count(f"mxq: caution: {SAID}") == 1
    assert result.stdout.str().count("kernels") == 1
    report = gates.report()
    assert report["cautions"] == [SAID]
    assert not any(record["emulated"] for record in report["verdicts"])


@pytest.mark.parametrize(
    ("capability", "options"),
    [
        ((10, 0), ("--mxq-formats=mxfp8,nvfp4",)),
        ((10, 3), ("--mxq-formats=mxfp8,nvfp4",)),
        ((9, 0), ("--mxq-formats=mxfp8,nvfp4",)),
        ((12, 0), ("--mxq-formats=float8",)),
        ((12, 0), ("--mxq-formats=mxfp8", "-k", "nothing")),
        ((12, 0), ("--mxq-refresh",)),
    ],
)
def test_it_is_silent_where_nothing_of_it_runs(
    gates: GateDirectory, capability: tuple[int, int], options: tuple[str, ...]
) -> None:
    on(gates, capability)
    assert "kernels" not in gates.run(*options).stdout.str()
    assert gates.report()["cautions"] == []


def test_under_xdist_the_controller_says_and_reports_it_once(gates: GateDirectory) -> None:
    pytest.importorskip("xdist")
    on(gates, (12, 0))
    result = gates.run_apart("--mxq-formats=mxfp8,nvfp4", "-n1")
    assert result.stdout.str().count(f"note: {SAID}") == 1
    assert gates.report()["cautions"] == [SAID]
