"""Whether stored sessions decide a speedup: they do where BF16 in short calls is as fast as when they were stored."""

import pytest
from gate_project import GateDirectory
from speed_project import FAST, manifest, refresh, run

SPEED = "--mxq-gates=speedup"


@pytest.fixture
def stored(b200: GateDirectory) -> GateDirectory:
    """Three sessions, with short calls of 0.300, 0.301 and 0.302 s."""
    for seconds in (0.300, 0.301, 0.302):
        b200.behave(seconds=FAST, short=seconds)
        refresh(b200, 1)
    return b200


def said(gates: GateDirectory) -> list[tuple[str, str, str]]:
    return [(v["outcome"], v["reference"]["mode"], v["reference"]["reason"]) for v in gates.report()["verdicts"]]


def test_auto_takes_stored_sessions_where_the_machine_is_as_fast_as_then(stored: GateDirectory) -> None:
    assert [session["short_seconds"] for session in manifest(stored)["sessions"]] == [
        [seconds] * 4 for seconds in (0.300, 0.301, 0.302)
    ]
    stored.behave(seconds=FAST, short=0.303)
    result = run(stored, SPEED)
    reason = "3 sessions, same hardware and software; BF16 in 4 steps takes 0.303 s, +0.7% from the stored sessions"
    assert said(stored) == [("pass", "stored", reason)] * 2
    assert [line for line in stored.backend_log() if line.startswith(("live", "stored"))] == [
        "stored mxfp8 and short calls of bf16",
        "stored nvfp4 and short calls of bf16",
    ]
    result.stdout.fnmatch_lines(["*whole calls, *BF16 in 4 steps takes 0.303 s, +0.7% from the stored sessions"])


@pytest.mark.parametrize(("now", "change"), [(0.305, "+1.3%"), (0.297, "-1.3%")])
def test_auto_times_live_where_the_machine_is_faster_or_slower(stored: GateDirectory, now: float, change: str) -> None:
    """The quantized arm is as fast as ever and BF16 has become slower: against stored sessions it would fail."""
    stored.behave(seconds={"bf16": 2.2, "mxfp8": 1.76, "nvfp4": 1.43}, short=now)
    run(stored, SPEED).assert_outcomes(passed=2)
    reason = f"BF16 in 4 steps takes {now:.3f} s, {change} from the stored sessions"
    assert said(stored) == [("pass", "live", reason)] * 2


def test_a_faster_machine_never_turns_a_regression_into_a_pass(stored: GateDirectory) -> None:
    """Against stored sessions of 2.0 s the arm would be fast enough; BF16 takes 1.8 s now."""
    stored.behave(seconds={"bf16": 1.8, "mxfp8": 1.7, "nvfp4": 1.4}, short=0.27)
    run(stored, SPEED).assert_outcomes(failed=2)
    assert {outcome for outcome, _, _ in said(stored)} == {"regression"}


def test_stored_sessions_that_were_asked_for_do_not_decide_on_a_machine_that_has_changed(stored: GateDirectory) -> None:
    stored.behave(seconds=FAST, short=0.310)
    run(stored, SPEED, "--mxq-reference=stored").assert_outcomes(failed=2)
    verdicts = stored.report()["verdicts"]
    assert {verdict["outcome"] for verdict in verdicts} == {"environment"}
    assert "BF16 in 4 steps takes 0.310 s, +3.0% from the stored sessions" in verdicts[0]["sentence"]


def test_sessions_without_short_calls_decide_only_where_they_are_asked_for(b200: GateDirectory) -> None:
    b200.behave(seconds=FAST)
    refresh(b200, 3)
    run(b200, SPEED)
    reason = "stored sessions without short calls of BF16 cannot tell whether the machine is as fast as then"
    assert said(b200) == [("pass", "live", reason)] * 2
    run(b200, SPEED, "--mxq-reference=stored")
    assert said(b200) == [("pass", "stored", "3 sessions, same hardware and software")] * 2


def test_two_sessions_are_too_few(b200: GateDirectory) -> None:
    b200.behave(seconds=FAST, short=0.3)
    refresh(b200, 2)
    run(b200, SPEED)
    reason = "2 stored timing sessions of this hardware and software, 3 needed"
    assert said(b200) == [("pass", "live", reason)] * 2


def test_short_calls_that_were_disturbed_decide_nothing(stored: GateDirectory) -> None:
    stored.behave(seconds=FAST)
    run(stored, SPEED)
    disturbed = "short calls of BF16 were disturbed and cannot tell whether the machine is as fast as then"
    assert said(stored) == [("pass", "live", disturbed)] * 2
    run(stored, SPEED, "--mxq-reference=stored").assert_outcomes(failed=2)
    verdicts = stored.report()["verdicts"]
    assert {verdict["outcome"] for verdict in verdicts} == {"environment"}
    assert verdicts[0]["sentence"].startswith(disturbed)


def test_sessions_of_other_work_do_not_decide(stored: GateDirectory) -> None:
    stored.behave(seconds=FAST, short=0.301, work={"bf16": 5, "mxfp8": 5, "nvfp4": 5})
    run(stored, SPEED)
    assert {(outcome, mode) for outcome, mode, _ in said(stored)} == {("pass", "live")}
    assert "did other work than BF16 of" in said(stored)[0][2]


def test_the_plan_says_that_stored_sessions_may_decide(stored: GateDirectory) -> None:
    result = run(stored, SPEED, "--mxq-plan")
    result.stdout.fnmatch_lines(["*3 stored timing sessions, if short calls of BF16 are as fast as then*"])
