"""One session of a case times all its formats beside one BF16; what is wrong with one is not another's."""

import pytest
from gate_project import SPEED_TEST, GateDirectory
from speed_project import FAST, refresh, run

FLUX = SPEED_TEST.replace('"demo"', '"flux.1-dev"')
SPEED = "--mxq-gates=speedup"


@pytest.fixture
def flux(b200: GateDirectory) -> GateDirectory:
    """Two formats of a model that says what memory it needs, on a B200 that has enough for both."""
    b200.write(FLUX)
    return b200


def sessions(gates: GateDirectory) -> list[str]:
    return [line for line in gates.backend_log() if line.startswith("live")]


def test_both_formats_are_timed_in_one_session_and_say_so(flux: GateDirectory) -> None:
    run(flux, SPEED).assert_outcomes(passed=2)
    assert sessions(flux) == ["live mxfp8 nvfp4"]
    one, another = flux.typed_report().verdicts
    assert one.speed is not None
    assert another.speed is not None
    assert one.speed.samples.bf16 == another.speed.samples.bf16
    assert (one.speed.samples.beside, another.speed.samples.beside) == (("nvfp4",), ("mxfp8",))
    assert "in the same rounds as nvfp4" in one.sentence


def test_the_limit_of_time_grows_with_the_arms(flux: GateDirectory) -> None:
    run(flux, SPEED)
    assert "limits 20 450.0" in flux.backend_log()


def test_a_format_alone_is_timed_and_judged_as_before(flux: GateDirectory) -> None:
    run(flux, SPEED)
    together = {v.cell.format: v.speed for v in flux.typed_report().verdicts}
    flux.run("--mxq-formats=nvfp4", SPEED)
    (alone,) = flux.typed_report().verdicts
    assert sessions(flux)[1:] == ["live nvfp4"]
    assert "limits 20 300.0" in flux.backend_log()
    assert alone.speed is not None
    other = together["nvfp4"]
    assert other is not None
    assert (alone.speed.speedup, alone.speed.lower, alone.speed.upper) == (other.speedup, other.lower, other.upper)
    assert "in the same rounds" not in alone.sentence


def test_formats_that_fail_together_are_timed_alone(flux: GateDirectory) -> None:
    flux.behave(seconds=FAST, alone=["nvfp4"])
    run(flux, SPEED).assert_outcomes(passed=2)
    assert sessions(flux) == ["live mxfp8 nvfp4", "live mxfp8", "live nvfp4"]


def test_a_machine_unfit_for_one_session_gets_one_for_each_format(flux: GateDirectory) -> None:
    flux.behave(seconds=FAST, environment="hot")
    run(flux, SPEED)
    assert flux.outcomes() == {"mxfp8-speedup": "environment", "nvfp4-speedup": "environment"}
    assert sessions(flux) == ["live mxfp8 nvfp4", "live mxfp8", "live nvfp4"]


def test_arms_that_do_not_fit_beside_each_other_are_timed_alone(flux: GateDirectory) -> None:
    flux.pretend("B200", total_memory_gib=58.0)
    run(flux, SPEED)
    assert sessions(flux) == ["live mxfp8", "live nvfp4"]


def test_a_model_that_does_not_say_what_it_needs_is_timed_format_by_format(b200: GateDirectory) -> None:
    run(b200, SPEED)
    assert sessions(b200) == ["live mxfp8", "live nvfp4"]


def test_a_deselected_format_is_not_timed(flux: GateDirectory) -> None:
    run(flux, SPEED, "-k", "nvfp4")
    assert sessions(flux) == ["live nvfp4"]


def test_cases_have_sessions_of_their_own_behind_all_else_of_the_model(flux: GateDirectory) -> None:
    flux.write(FLUX + FLUX.replace("test_speed", "test_other"))
    run(flux)
    cells = [(v.cell.case, v.cell.format, v.cell.gate) for v in flux.typed_report().verdicts]
    assert [gate for _, _, gate in cells] == ["memory"] * 4 + ["speedup"] * 4
    assert [case for case, _, _ in cells[4:]] == ["test_speed"] * 2 + ["test_other"] * 2
    assert sessions(flux) == ["live mxfp8 nvfp4"] * 2


def test_stored_sessions_need_no_session_of_bf16(flux: GateDirectory) -> None:
    refresh(flux, 3)
    run(flux, SPEED, "--mxq-reference=stored")
    assert sessions(flux) == []


def test_the_plan_counts_bf16_once(flux: GateDirectory) -> None:
    result = run(flux, SPEED, "--mxq-plan")
    result.stdout.fnmatch_lines(["*mxfp8*speedup*0:35*", "*nvfp4*speedup*0:12*"])
