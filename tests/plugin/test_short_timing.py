"""Speedups from short calls: asked for by the marker or by the run, refused where it cannot be, said in the verdict."""

import math

import pytest
from gate_project import SPEED_TEST, GateDirectory
from speed_project import FAST, refresh

from pytest_mxq.gates.speedup import SpeedFacts

FLUX = SPEED_TEST.replace('"demo"', '"flux.1-dev"')
SHORT = FLUX.replace("mxq_speedup(", 'mxq_speedup(steps="short", ')
SPEED = ("--mxq-formats=mxfp8", "--mxq-gates=speedup")


@pytest.fixture
def flux(b200: GateDirectory) -> GateDirectory:
    """A model of 28 steps."""
    b200.write(FLUX)
    return b200


def last_session(gates: GateDirectory) -> str:
    return [line for line in gates.backend_log() if line.startswith("live")][-1]


def judged(gates: GateDirectory, *options: str) -> SpeedFacts:
    gates.run(*SPEED, *options)
    (verdict,) = gates.typed_report().verdicts
    assert verdict.speed is not None
    return verdict.speed


def test_the_marker_can_want_short_calls_and_the_verdict_says_so(flux: GateDirectory) -> None:
    whole = judged(flux)
    flux.write(SHORT)
    short = judged(flux)
    assert last_session(flux) == "live mxfp8 in short calls"
    assert short.half_width == pytest.approx(math.hypot(whole.half_width, 0.01), rel=0.02)
    assert "from calls of 4 and 12 steps to 28 (model error 1.0 %)" in flux.report()["verdicts"][0]["sentence"]


@pytest.mark.parametrize("way", ["option", "ini"])
def test_the_run_can_want_them_and_the_marker_keeps_the_last_word(flux: GateDirectory, way: str) -> None:
    options = ("--mxq-timing=short",) if way == "option" else ()
    if way == "ini":
        flux.pytester.makeini("[pytest]\nmxq_timing = short\n")
    assert judged(flux, *options).samples.extrapolation is not None
    flux.write(FLUX.replace("mxq_speedup(", 'mxq_speedup(steps="full", '))
    assert judged(flux, *options).samples.extrapolation is None


def test_a_model_of_few_steps_is_refused_to_its_marker_and_timed_whole_for_the_run(b200: GateDirectory) -> None:
    assert judged(b200, "--mxq-timing=short").samples.extrapolation is None
    b200.write(SPEED_TEST.replace("mxq_speedup(", 'mxq_speedup(steps="short", '))
    b200.run(*SPEED)
    assert b200.outcomes() == {"mxfp8-speedup": "error"}
    assert "Recipe(steps=" in b200.report()["verdicts"][0]["sentence"]


def test_what_the_line_missed_at_the_refresh_widens_the_interval(flux: GateDirectory) -> None:
    flux.behave(seconds=FAST, predicted=2.06)
    refresh(flux, 1)
    extrapolation = judged(flux, "--mxq-timing=short").samples.extrapolation
    assert extrapolation is not None
    assert extrapolation.model_error == pytest.approx(math.log(2.06 / 2.0), rel=0.02)


def test_stored_sessions_are_compared_with_whole_calls(flux: GateDirectory) -> None:
    refresh(flux, 3)
    facts = judged(flux, "--mxq-timing=short", "--mxq-reference=stored")
    assert (facts.mode, facts.samples.extrapolation) == ("stored", None)


def test_the_plan_counts_short_calls(flux: GateDirectory) -> None:
    result = flux.run(*SPEED, "--mxq-plan", "--mxq-timing=short")
    calls = (4 * 12 + 4 + 6 * 16) / 28
    result.stdout.fnmatch_lines([f"*mxfp8*speedup*0:{int(calls * (2.10 + 1.75))}*"])


def test_another_length_is_refused(flux: GateDirectory) -> None:
    flux.write(SHORT.replace('"short"', '"half"'))
    flux.run(*SPEED)
    assert "must be one of short, full" in flux.report()["verdicts"][0]["sentence"]
