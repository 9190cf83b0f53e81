"""Memory gates call two steps where BF16 shows that its peak is the one of a full call, and say so."""

from typing import Any

import pytest
from gate_project import SPEED_TEST, GateDirectory
from speed_project import FAST, manifest, refresh, run

MEMORY = "--mxq-gates=memory"


def memory_calls(gates: GateDirectory) -> set[str]:
    """What was measured since the log was looked at last."""
    found = {line for line in gates.backend_log() if line.startswith("memory")}
    (gates.path / "backend.log").unlink()
    return found


def short_calls(gates: GateDirectory) -> list[Any]:
    """What compared the short calls with full ones, verdict by verdict."""
    return [record["memory"]["short_calls"] for record in gates.report()["verdicts"]]


def test_a_refresh_stores_both_peaks_and_gates_call_two_steps(b200: GateDirectory) -> None:
    refresh(b200, 1)
    (session,) = manifest(b200)["sessions"]
    assert session["short"]["peak_gib"] == session["peak_gib"] == 20.0
    assert session["short"]["work"]["denoiser_calls"] == {"transformer": 2}
    run(b200, MEMORY)
    assert memory_calls(b200) == {"memory mxfp8 in 2 steps", "memory nvfp4 in 2 steps"}
    assert short_calls(b200) == [{"steps": 2, "short_gib": 20.0, "full_gib": 20.0}] * 2
    assert all("in 2 steps" in record["sentence"] for record in b200.report()["verdicts"])


def test_peaks_of_other_height_mean_full_calls(b200: GateDirectory) -> None:
    b200.behave(seconds=FAST, short_peak={"bf16": 18.0})
    refresh(b200, 1)
    run(b200, MEMORY)
    assert memory_calls(b200) == {"memory mxfp8", "memory nvfp4"}
    record = b200.report()["verdicts"][0]
    assert record["memory"]["bf16_peak_gib"] == 20.0
    assert "in full calls" in record["sentence"]


def test_a_short_quantized_call_is_compared_with_a_short_one_of_bf16(b200: GateDirectory) -> None:
    b200.behave(seconds=FAST, short_peak={"bf16": 19.95})
    refresh(b200, 1)
    run(b200, MEMORY)
    assert b200.report()["verdicts"][0]["memory"]["bf16_peak_gib"] == 19.95


def test_a_workload_that_takes_its_own_steps_is_measured_in_full(b200: GateDirectory) -> None:
    b200.behave(seconds=FAST, fixed_steps=True)
    refresh(b200, 1)
    assert "short" not in manifest(b200)["sessions"][0]
    for options in ((), ("--mxq-reference=live",)):
        run(b200, MEMORY, *options)
        assert {"memory mxfp8", "memory nvfp4"} <= memory_calls(b200)
        assert short_calls(b200) == [None] * 2


@pytest.mark.parametrize(("short", "calls"), [(20.0, "memory mxfp8 in 2 steps"), (15.0, "memory mxfp8")])
def test_without_a_baseline_bf16_of_this_run_shows_it(b200: GateDirectory, short: float, calls: str) -> None:
    b200.behave(seconds=FAST, short_peak={"bf16": short})
    run(b200, MEMORY)
    assert calls in memory_calls(b200)
    assert short_calls(b200)[0]["short_gib"] == short


def test_the_marker_can_want_full_calls(b200: GateDirectory) -> None:
    refresh(b200, 1)
    b200.write(SPEED_TEST.replace("mxq_memory(", 'mxq_memory(steps="full", '))
    run(b200, MEMORY)
    assert memory_calls(b200) == {"memory mxfp8", "memory nvfp4"}


def test_less_work_than_in_a_short_call_of_bf16_is_an_error(b200: GateDirectory) -> None:
    refresh(b200, 1)
    b200.behave(seconds=FAST, work={"mxfp8": 4})
    run(b200, MEMORY)
    assert b200.outcomes() == {"mxfp8-memory": "error", "nvfp4-memory": "pass"}
    assert "denoiser calls: transformer 2 -> 1" in b200.report()["verdicts"][0]["sentence"]


def test_other_steps_than_at_the_refresh_are_seen_though_calls_are_short(b200: GateDirectory) -> None:
    refresh(b200, 1)
    b200.write(SPEED_TEST.replace("mxq_pipeline(mxq_prompt)", "mxq_pipeline(mxq_prompt, num_inference_steps=4)"))
    run(b200, MEMORY)
    assert set(b200.outcomes().values()) == {"stale"}
