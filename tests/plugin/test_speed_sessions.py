"""Stored timing sessions: what a refresh adds, and which of them a gate uses."""

import json
from fnmatch import fnmatch

import pytest
from gate_project import GATE_TEST, SPEED_TEST, GateDirectory, flat
from manifest_examples import resealed
from speed_project import FAST, MANIFEST, manifest, modes, refresh, run


def test_a_refresh_adds_a_session_with_peak_and_keeps_the_newest_eight(b200: GateDirectory) -> None:
    refresh(b200, 10)
    sessions = manifest(b200)["sessions"]
    assert len(sessions) == 8
    assert len(sessions[0]["seconds"]) == 8
    assert sessions[0]["peak_gib"] == 20.0
    assert sessions[0]["fingerprint"]["hard"]["inductor"] == "0123"


def test_auto_times_speed_beside_bf16_and_takes_the_stored_peak(b200: GateDirectory) -> None:
    refresh(b200, 5)
    run(b200).assert_outcomes(passed=4)
    assert modes(b200) == {
        "mxfp8-memory": "stored",
        "mxfp8-speedup": "live",
        "nvfp4-memory": "stored",
        "nvfp4-speedup": "live",
    }
    assert len(b200.report()["verdicts"][0]["speed"]["samples"]["sessions"]) == 5


def test_the_spread_of_the_stored_sessions_widens_a_live_interval(b200: GateDirectory) -> None:
    run(b200, "--mxq-gates=speedup")
    narrow = b200.report()["verdicts"][0]["speed"]["half_width"]
    for number in range(5):
        b200.behave(seconds={**FAST, "bf16": 2.0 * (1 + 0.03 * number)})
        refresh(b200, 1)
    b200.behave(seconds=FAST)
    run(b200, "--mxq-gates=speedup")
    verdict = b200.report()["verdicts"][0]
    assert verdict["speed"]["half_width"] > 2 * narrow
    assert verdict["speed"]["process_sd_source"] == "from 5 stored sessions"
    assert f"process sd {100 * verdict['speed']['process_sd']:.1f} % (from 5 stored sessions)" in verdict["sentence"]


def test_stored_holds_one_session_against_three_and_says_how_to_get_them(b200: GateDirectory) -> None:
    refresh(b200, 2)
    result = run(b200, "--mxq-gates=speedup", "--mxq-reference=stored")
    result.assert_outcomes(failed=2)
    assert "2 of 2 stored timing sessions" in flat(result)
    result.stdout.fnmatch_lines(["*missing*", "    next *::test_speed * --mxq-refresh"])
    assert not [line for line in b200.backend_log() if line.startswith(("arm", "stored"))]
    refresh(b200, 1)
    run(b200, "--mxq-gates=speedup", "--mxq-reference=stored").assert_outcomes(passed=2)
    assert b200.report()["verdicts"][0]["speed"]["mode"] == "stored"


def test_strict_times_speed_live_and_wants_a_stored_peak(b200: GateDirectory) -> None:
    run(b200, "--mxq-strict").assert_outcomes(failed=2, passed=2)
    assert b200.outcomes()["mxfp8-memory"] == "missing"
    run(b200, "--mxq-strict", "--mxq-reference=live").assert_outcomes(passed=4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inductor": "4567"}, "inductor 0123 -> 4567"),
        (
            {"execution": "compiled blocks, reduce-overhead"},
            "execution compiled blocks, default -> compiled blocks, reduce-overhead",
        ),
    ],
)
def test_sessions_of_another_configuration_or_execution_do_not_count(
    b200: GateDirectory, change: dict[str, str], said: str
) -> None:
    refresh(b200, 5)
    b200.behave(seconds=FAST, **change)
    run(b200, "--mxq-reference=stored").assert_outcomes(failed=4)
    assert set(b200.outcomes().values()) == {"missing"}
    assert "0 of 5 stored timing sessions" in b200.report()["verdicts"][0]["sentence"]
    assert all(f"(the newest that is not: {said})" in verdict["sentence"] for verdict in b200.report()["verdicts"])


def test_sessions_at_another_power_limit_do_not_count(b200: GateDirectory) -> None:
    b200.pretend("B200", facts={"power_limit_w": "300"})
    refresh(b200, 3)
    b200.pretend("B200", facts={"power_limit_w": "700"})
    run(b200, "--mxq-gates=speedup", "--mxq-reference=stored").assert_outcomes(failed=2)
    assert set(b200.outcomes().values()) == {"missing"}


def test_another_driver_is_named_as_what_the_stored_sessions_lack(b200: GateDirectory) -> None:
    for driver, count in (("580.1", 2), ("590.2", 1)):
        b200.pretend("B200", facts={"driver": driver})
        refresh(b200, count)
    run(b200, "--mxq-gates=speedup", "--mxq-reference=stored").assert_outcomes(failed=2)
    said = "1 of 3 stored timing sessions are of this hardware, software and execution (the newest that is not: "
    assert b200.report()["verdicts"][0]["sentence"].startswith(
        f"{said}driver_major 580 -> 590), 3 are needed; add some"
    )
    b200.pretend("B200", facts={"driver": "600.1"})
    run(b200, "--mxq-gates=memory", "--mxq-reference=stored").assert_outcomes(failed=2)
    said = "no stored peak memory of this hardware and software (the newest that is not: driver_major 590 -> 600)"
    assert b200.report()["verdicts"][0]["sentence"] == f"{said}; refresh it"


def test_further_sessions_run_in_processes_of_their_own_and_generate_nothing(
    b200: GateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (b200.path / "sub").mkdir()
    (b200.path / "sub" / "behaviour.json").write_text((b200.path / "behaviour.json").read_text())
    monkeypatch.chdir(b200.path / "sub")
    result = b200.run("--mxq-refresh", "--mxq-refresh-sessions=3", "--mxq-baselines=../baselines", "..")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["2 further timing sessions added"])
    assert len(manifest(b200)["sessions"]) == 3
    log = (b200.path / "sub" / "backend.log").read_text().splitlines()
    assert log.count("session") == 3
    assert log.count("generate demo test_speed bf16") == 1


IN_A_CHILD = 'import os, signal, pytest\nif os.environ.get("PYTEST_MXQ_TIMING_ONLY"):\n    '


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", ["with signal 9"]),
        (
            "pytest_runtest_setup = lambda item: pytest.skip('no weights')",
            ["with exit code 0", "stdout:", "1 skipped: no weights"],
        ),
        ("raise RuntimeError('no such board')", ["with exit code 4", "stderr:", "no such board"]),
    ],
)
def test_a_session_that_was_not_added_is_not_counted(b200: GateDirectory, child: str, said: list[str]) -> None:
    conftest = b200.path / "conftest.py"
    conftest.write_text(f"{conftest.read_text()}\n{IN_A_CHILD}{child}\n")
    b200.run("--mxq-refresh", "--mxq-refresh-sessions=3").assert_outcomes(failed=1)
    [verdict] = b200.report()["verdicts"]
    assert verdict["outcome"] == "error"
    for text in ["0 of 2 further timing sessions added; the next one failed: its process added none and ended", *said]:
        assert text in verdict["sentence"]
    assert len(manifest(b200)["sessions"]) == 1


def test_the_sessions_before_one_that_failed_are_counted(b200: GateDirectory) -> None:
    conftest = b200.path / "conftest.py"
    first = "open('first', 'x') if not os.path.exists('first') else os._exit(7)"
    conftest.write_text(f"{conftest.read_text()}\n{IN_A_CHILD}{first}\n")
    b200.run("--mxq-refresh", "--mxq-refresh-sessions=3").assert_outcomes(failed=1)
    assert "1 of 2 further timing sessions added; the next one failed" in b200.report()["verdicts"][0]["sentence"]
    assert len(manifest(b200)["sessions"]) == 2


def test_a_session_of_another_call_is_not_added(b200: GateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    refresh(b200, 1)
    b200.write(SPEED_TEST.replace("mxq_pipeline(mxq_prompt)", "mxq_pipeline(mxq_prompt, num_inference_steps=4)"))
    monkeypatch.setenv("PYTEST_MXQ_TIMING_ONLY", "1")
    result = b200.run("--mxq-refresh")
    result.assert_outcomes(failed=1)
    assert fnmatch(flat(result), "*stale*the stored baseline is of another call*")
    assert len(manifest(b200)["sessions"]) == 1


def test_a_refresh_on_an_unfit_machine_stores_nothing_and_starts_no_children(b200: GateDirectory) -> None:
    b200.behave(seconds=FAST, environment="thermal slowdown")
    b200.run("--mxq-refresh", "--mxq-refresh-sessions=3").assert_outcomes(failed=1)
    assert b200.backend_log().count("session") == 1
    assert not (b200.path / "baselines/nvidia-b200-sm100/demo/test_speed.json").exists()


def test_sessions_outlive_a_damaged_image(b200: GateDirectory) -> None:
    refresh(b200, 3)
    next((b200.path / "baselines").rglob("*.png")).unlink()
    refresh(b200, 1)
    assert len(manifest(b200)["sessions"]) == 4


def test_a_case_without_timing_has_nothing_to_store_with_random_weights(b200: GateDirectory) -> None:
    b200.write(GATE_TEST.replace('"demo"', '"flux.1-dev"'))
    result = b200.run("--mxq-refresh", "--mxq-weights=random", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*the test has no gate of speed or memory*"])


def test_fewer_steps_never_look_like_a_speedup(b200: GateDirectory) -> None:
    refresh(b200, 5)
    b200.write(SPEED_TEST.replace("mxq_pipeline(mxq_prompt)", "mxq_pipeline(mxq_prompt, num_inference_steps=4)"))
    run(b200, "--mxq-reference=stored").assert_outcomes(failed=4)
    assert set(b200.outcomes().values()) == {"stale"}
    assert "num_inference_steps 8 -> 4" in b200.report()["verdicts"][0]["sentence"]


TWO_CALLS = SPEED_TEST.replace("    return", "    mxq_pipeline(mxq_prompt)\n    return")


@pytest.mark.parametrize(
    ("before", "after", "said"), [(TWO_CALLS, SPEED_TEST, "2 -> 1"), (SPEED_TEST, TWO_CALLS, "1 -> 2")]
)
def test_half_the_calls_never_look_like_a_speedup(b200: GateDirectory, before: str, after: str, said: str) -> None:
    b200.write(before)
    refresh(b200, 5)
    run(b200, "--mxq-reference=stored").assert_outcomes(passed=4)
    b200.write(after)
    run(b200, "--mxq-reference=stored").assert_outcomes(failed=4)
    assert set(b200.outcomes().values()) == {"stale"}
    assert all(f"another case: calls: {said};" in verdict["sentence"] for verdict in b200.report()["verdicts"])


def test_fewer_calls_of_the_denoiser_than_stored_are_an_error(b200: GateDirectory) -> None:
    refresh(b200, 5)
    assert manifest(b200)["sessions"][0]["work"]["denoiser_calls"] == {"transformer": 8}
    b200.behave(seconds=FAST, work={"mxfp8": 4})
    run(b200, "--mxq-reference=stored").assert_outcomes(failed=2, passed=2)
    assert b200.outcomes() == {
        "mxfp8-memory": "error",
        "mxfp8-speedup": "error",
        "nvfp4-memory": "pass",
        "nvfp4-speedup": "pass",
    }
    assert "transformer 8 -> 4" in b200.report()["verdicts"][0]["sentence"]


def test_fewer_calls_of_the_denoiser_than_bf16_of_this_run_save_no_memory(b200: GateDirectory) -> None:
    b200.behave(seconds=FAST, work={"mxfp8": 4})
    run(b200, "--mxq-gates=memory", "--mxq-reference=live").assert_outcomes(failed=1, passed=1)
    assert b200.outcomes()["mxfp8-memory"] == "error"


def test_a_refresh_drops_the_sessions_of_other_work(b200: GateDirectory) -> None:
    refresh(b200, 2)
    b200.behave(seconds=FAST, work={"bf16": 4})
    refresh(b200, 1)
    assert [session["work"]["denoiser_calls"] for session in manifest(b200)["sessions"]] == [{"transformer": 4}]


def test_sessions_that_do_not_say_what_work_they_did_count(b200: GateDirectory) -> None:
    refresh(b200, 5)
    document = manifest(b200)
    for session in document["sessions"]:
        del session["work"]
    (b200.path / MANIFEST).write_text(json.dumps(resealed(document)))
    run(b200, "--mxq-reference=stored").assert_outcomes(passed=4)


def test_a_refresh_drops_the_sessions_of_other_calls(b200: GateDirectory) -> None:
    b200.write(TWO_CALLS)
    refresh(b200, 2)
    assert [len(session["calls"]) for session in manifest(b200)["sessions"]] == [2, 2]
    b200.write(SPEED_TEST)
    refresh(b200, 1)
    assert [len(session["calls"]) for session in manifest(b200)["sessions"]] == [1]


def test_sessions_that_do_not_say_what_they_called_are_read_and_count_for_nothing(b200: GateDirectory) -> None:
    refresh(b200, 5)
    document = manifest(b200)
    for session in document["sessions"]:
        del session["calls"]
    (b200.path / MANIFEST).write_text(json.dumps(resealed(document)))
    run(b200, "--mxq-reference=stored").assert_outcomes(failed=4)
    assert set(b200.outcomes().values()) == {"missing"}
    assert all("an older pytest-mxq stored it" in verdict["sentence"] for verdict in b200.report()["verdicts"])
    refresh(b200, 1)
    assert len(manifest(b200)["sessions"]) == 1


def test_a_refresh_without_timing_keeps_sessions_of_the_same_case_alone(b200: GateDirectory) -> None:
    untimed = SPEED_TEST.replace(
        '@pytest.mark.mxq_speedup(min={"mxfp8": 1.15, "nvfp4": 1.40})', "@pytest.mark.mxq_ssim(min=0.9)"
    )
    untimed = "".join(line for line in untimed.splitlines(keepends=True) if "mxq_memory" not in line)
    refresh(b200, 2)
    b200.write(untimed)
    refresh(b200, 1)
    assert len(manifest(b200)["sessions"]) == 2
    b200.behave(seconds=FAST, weights="folder:1")
    refresh(b200, 1)
    assert "sessions" not in manifest(b200) or not manifest(b200)["sessions"]
