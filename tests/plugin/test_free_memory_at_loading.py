"""A GPU that others have filled: found out before a model is loaded, and no verdict on the format."""

import pytest
from gate_project import SPEED_TEST, GateDirectory

BOTH_GATES = SPEED_TEST.replace('"demo"', '"flux.1-dev"').replace(
    "@pytest.mark.mxq_memory", "@pytest.mark.mxq_lpips(max=0.1)\n@pytest.mark.mxq_memory"
)


@pytest.fixture
def b200(gates: GateDirectory) -> GateDirectory:
    gates.on_blackwell(BOTH_GATES)
    return gates


def sentences(gates: GateDirectory) -> dict[str, str]:
    records = gates.report()["verdicts"]
    return {record["cell"]["gate"]: f"{record['outcome']}: {record['sentence'].split(':')[0]}" for record in records}


def test_a_gate_whose_model_no_longer_fits_ends_as_environment_and_nothing_is_loaded(b200: GateDirectory) -> None:
    b200.behave(free=40.0)
    b200.run("--mxq-formats=mxfp8", "--mxq-reference=live")
    both = "environment: both arms of flux.1-dev at batch size 1 need about 48 GiB, 40.0 of 180 GiB are free on NVIDIA B200"
    assert sentences(b200) == {
        "lpips": "pass: mean 0.0100 <= 0.1000, worst 0.0100 <= 0.2500",
        "speedup": both,
        "memory": both,
    }
    assert not [line for line in b200.backend_log() if line.startswith(("live", "memory"))]


def test_a_refresh_is_not_tried_either(b200: GateDirectory) -> None:
    b200.behave(free=20.0)
    b200.run("--mxq-refresh").assert_outcomes(failed=1)
    (said,) = sentences(b200).values()
    assert said.startswith("environment: the BF16 calls of flux.1-dev at batch size 1 need about 36 GiB, 20.0 of 180")
    assert b200.backend_log() == []
    assert not list((b200.path / "baselines").rglob("*.json"))


@pytest.mark.parametrize("free", [47.0, None])
def test_enough_free_memory_or_a_loaded_model_is_judged(b200: GateDirectory, free: float | None) -> None:
    b200.behave(free=free, seconds={"mxfp8": 0.5})
    b200.run("--mxq-formats=mxfp8", "--mxq-reference=live").assert_outcomes(passed=3)
    records = b200.report()["verdicts"]
    assert {record["cell"]["nodeid"]: record["outcome"] for record in records} == {
        f"test_it.py::test_speed[mxfp8-{gate}]": "pass" for gate in ("lpips", "speedup", "memory")
    }
    assert all(record["observed"] is not None for record in records)
