"""Gates of speed and memory on a pretended B200: what is decided, what is shown, what is stored."""

import json
from typing import Any

import pytest
from gate_project import GATE_TEST, SPEED_TEST, GateDirectory

MANIFEST = "baselines/nvidia-b200-sm100/demo/test_speed.json"
FAST = {"bf16": 2.0, "mxfp8": 1.6, "nvfp4": 1.3}


@pytest.fixture
def b200(gates: GateDirectory) -> GateDirectory:
    gates.on_blackwell()
    gates.behave(seconds=FAST)
    return gates


def run(gates: GateDirectory, *options: str) -> pytest.RunResult:
    return gates.run("--mxq-formats=mxfp8,nvfp4", *options)


def refresh(gates: GateDirectory, times: int) -> None:
    for _ in range(times):
        gates.run("--mxq-refresh").assert_outcomes(passed=1)


def manifest(gates: GateDirectory) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((gates.path / MANIFEST).read_text())
    return document


def modes(gates: GateDirectory) -> dict[str, str]:
    return {f"{r['cell']['format']}-{r['cell']['gate']}": r["reference"]["mode"] for r in gates.report()["verdicts"]}


def test_a_fast_arm_passes_with_an_interval_and_a_slow_one_is_a_regression(b200: GateDirectory) -> None:
    result = run(b200)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        ["demo/test_speed nvfp4: whole calls, BF16 2.000 s -> 1.300 s, n=* ?*, slowed down in 0%, no canary"]
    )
    b200.behave(seconds={**FAST, "nvfp4": 1.53})
    result = run(b200, "-v")
    result.assert_outcomes(failed=1, passed=3)
    result.stdout.fnmatch_lines(
        [
            "*test_speed?nvfp4-speedup? REGRESSION*",
            "REGRESSION  demo nvfp4 speedup   1.307x < 1.400x   [[]1.2*, 1.3*[]] each bound 95 %   BF16 2.000 s -> 1.530 s   n=8",
            "  BF16      *  1.998 to 2.002 s",
            "  quantized *  1.52* to 1.53* s",
            "  machine   0 rounds voided, slowed down in 0%, power cap in 50%; first calls 20.0 s and 11.0 s; compiled blocks, default; scope whole calls; no canary",
            "  baseline  live: (no canary is steadier than 1 %, so stored times say nothing of the machine as it is now)",
            "demo   test_speed  nvfp4   speedup  REGRESSION  1.307x*",
        ]
    )


@pytest.mark.parametrize(
    ("seconds", "scatter", "outcome"),
    [(1.43, 0.001, "marginal"), (1.43, 0.15, "inconclusive"), (1.36, 0.001, "pass"), (1.54, 0.001, "regression")],
)
def test_the_four_answers(b200: GateDirectory, seconds: float, scatter: float, outcome: str) -> None:
    b200.behave(seconds={**FAST, "nvfp4": seconds}, scatter=scatter)
    run(b200, "--mxq-gates=speedup")
    assert b200.outcomes()["nvfp4-speedup"] == outcome


def test_the_rule_proven_does_not_pass_within_the_resolution(b200: GateDirectory) -> None:
    b200.write(SPEED_TEST.replace('"nvfp4": 1.40}', '"nvfp4": 1.40}, rule="proven"'))
    b200.behave(seconds={**FAST, "nvfp4": 1.43})
    run(b200, "--mxq-gates=speedup").assert_outcomes(passed=1, failed=1)
    assert b200.outcomes()["nvfp4-speedup"] == "inconclusive"


def test_an_unfit_machine_is_environment_never_a_regression(b200: GateDirectory) -> None:
    b200.behave(seconds={**FAST, "nvfp4": 9.0}, environment="another process on the GPU: 4711")
    run(b200, "--mxq-gates=speedup").assert_outcomes(failed=2)
    assert set(b200.outcomes().values()) == {"environment"}
    assert "4711" in b200.report()["verdicts"][0]["sentence"]


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
    assert len(b200.report()["verdicts"][1]["speed"]["samples"]["sessions"]) == 5


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
    result.stdout.fnmatch_lines(["*MISSING*2 of 2 stored timing sessions*--mxq-refresh-sessions=1*"])
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
    assert "0 of 5 stored timing sessions" in b200.report()["verdicts"][1]["sentence"]
    assert all(f"(the newest that is not: {said})" in verdict["sentence"] for verdict in b200.report()["verdicts"])


def test_sessions_at_another_power_limit_do_not_count(b200: GateDirectory) -> None:
    conftest = b200.path / "conftest.py"
    text = conftest.read_text()
    conftest.write_text(text.replace("facts={}", 'facts={"power_limit_w": "300"}'))
    refresh(b200, 3)
    conftest.write_text(text.replace("facts={}", 'facts={"power_limit_w": "700"}'))
    run(b200, "--mxq-gates=speedup", "--mxq-reference=stored").assert_outcomes(failed=2)
    assert set(b200.outcomes().values()) == {"missing"}


def test_another_driver_is_named_as_what_the_stored_sessions_lack(b200: GateDirectory) -> None:
    conftest = b200.path / "conftest.py"
    text = conftest.read_text()
    for driver, count in (("580.1", 2), ("590.2", 1)):
        conftest.write_text(text.replace("facts={}", f'facts={{"driver": "{driver}"}}'))
        refresh(b200, count)
    run(b200, "--mxq-gates=speedup", "--mxq-reference=stored").assert_outcomes(failed=2)
    said = "1 of 3 stored timing sessions are of this hardware, software and execution (the newest that is not: "
    assert b200.report()["verdicts"][0]["sentence"].startswith(
        f"{said}driver_major 580 -> 590), 3 are needed; add some"
    )
    conftest.write_text(text.replace("facts={}", 'facts={"driver": "600.1"}'))
    run(b200, "--mxq-gates=memory", "--mxq-reference=stored").assert_outcomes(failed=2)
    said = "no stored peak memory of this hardware and software (the newest that is not: driver_major 590 -> 600)"
    assert b200.report()["verdicts"][0]["sentence"] == f"{said}: pytest --mxq-refresh"


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
    log = (b200.path / "sub" / "engine.log").read_text().splitlines()
    assert log.count("session") == 3
    assert log.count("generate demo test_speed bf16") == 1


IN_A_CHILD = 'import os, signal, pytest\nif os.environ.get("PYTEST_MXQ_TIMING_ONLY"):\n    '


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", ["with signal 9"]),
        (
            "Runtime.with_prompts = lambda *_: pytest.skip('no weights')",
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
    result.stdout.fnmatch_lines(["*STALE*the stored baseline is of another call*"])
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
    (b200.path / MANIFEST).write_text(json.dumps(document))
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


def test_too_few_quantized_layers_are_named_before_anything_is_timed(b200: GateDirectory) -> None:
    b200.behave(seconds=FAST, quantized=1)
    run(b200).assert_outcomes(failed=4)
    assert set(b200.outcomes().values()) == {"not-quantized"}
    assert not [line for line in b200.backend_log() if line.startswith("live")]


@pytest.mark.parametrize(
    ("bound", "outcome"),
    [
        ("max_ratio=0.61", "pass"),
        ("max_ratio=0.59", "regression"),
        ("max_gib=12.0", "pass"),
        ("max_gib=11.9", "regression"),
        ("max_weight_ratio=0.5", "pass"),
        ("max_weight_ratio=0.49", "regression"),
        ("max_ratio=0.61, max_gib=11.9", "regression"),
    ],
)
def test_each_bound_of_memory_is_a_bound(b200: GateDirectory, bound: str, outcome: str) -> None:
    b200.write(
        f'import pytest\n@pytest.mark.mxq("demo")\n@pytest.mark.mxq_memory({bound})\n'
        "def test_speed(mxq_pipeline, mxq_prompt):\n    return mxq_pipeline(mxq_prompt)\n"
    )
    b200.run("--mxq-formats=mxfp8")
    assert b200.outcomes() == {"mxfp8-memory": outcome}


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("mxq_speedup()", "mxq_speedup needs min="),
        ("mxq_speedup(min=0)", "mxq_speedup(min=) must be above 0 and at most 100"),
        ('mxq_speedup(min=1.1, rule="sure")', "mxq_speedup(rule=) must be one of not-below, proven"),
        (
            "mxq_speedup(min=1.1, worst=1)",
            "mxq_speedup has no argument 'worst'; it takes min, rule, max_rounds, max_seconds",
        ),
        ("mxq_speedup(min=1.1, max_rounds=7)", "mxq_speedup(max_rounds=) must be an even number from 6 to 200, got 7"),
        ("mxq_speedup(min=1.1, max_seconds=0)", "mxq_speedup(max_seconds=) must be above 0 and at most 7200"),
        ("mxq_memory()", "mxq_memory needs at least one of max_ratio, max_gib, max_weight_ratio"),
        ("mxq_memory(max_ratio=2.5)", "mxq_memory(max_ratio=) must be above 0 and at most 2"),
        ("mxq_memory(max_weight_ratio=1.5)", "mxq_memory(max_weight_ratio=) must be above 0 and at most 1"),
        ('mxq_memory(max_gib={"nvfp4": 3})', "states no bound for format 'mxfp8'"),
    ],
)
def test_a_faulty_bound_is_a_fault_of_its_test(b200: GateDirectory, marker: str, said: str) -> None:
    b200.write(
        f'import pytest\n@pytest.mark.mxq("demo")\n@pytest.mark.{marker}\n'
        "def test_x(mxq_pipeline, mxq_prompt):\n    return mxq_pipeline(mxq_prompt)\n"
    )
    result = b200.run("--mxq-formats=mxfp8")
    result.assert_outcomes(errors=1)
    assert said in result.stdout.str()


def test_speed_is_never_emulated(gates: GateDirectory) -> None:
    gates.write(SPEED_TEST)
    result = gates.emulated("-rs")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(["*found no CUDA device (cpu); speed and memory are never emulated*"])


def test_random_weights_skip_images_and_have_a_baseline_of_their_own(b200: GateDirectory) -> None:
    both = SPEED_TEST.replace('"demo"', '"flux.1-dev"') + GATE_TEST.replace('"demo"', '"flux.1-dev"')
    b200.write(both)
    result = run(b200, "--mxq-weights=random", "-rs")
    result.assert_outcomes(passed=4, skipped=4)
    result.stdout.fnmatch_lines(["*what random weights generate means nothing*"])
    b200.write(SPEED_TEST.replace('"demo"', '"flux.1-dev"'))
    b200.run("--mxq-refresh", "--mxq-weights=random").assert_outcomes(passed=1)
    path = b200.path / "baselines/nvidia-b200-sm100/flux.1-dev/test_speed-random-weights.json"
    assert json.loads(path.read_text())["pictures"] == []


def test_a_model_that_cannot_be_random_skips_with_the_reason(b200: GateDirectory) -> None:
    result = run(b200, "--mxq-weights=random", "-rs")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(["*model 'demo' cannot be built with random weights*"])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--mxq-alpha=0.6", "--mxq-alpha must be a number from 0.0001 to 0.25, got '0.6'"),
        ("--mxq-alpha=x", "--mxq-alpha must be a number"),
        ("--mxq-refresh-sessions=0", "--mxq-refresh-sessions must be a number from 1 to 64"),
    ],
)
def test_a_number_out_of_range_is_refused(b200: GateDirectory, option: str, said: str) -> None:
    result = run(b200, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()


def test_alpha_widens_the_interval(b200: GateDirectory) -> None:
    widths = []
    for alpha in ("0.05", "0.01"):
        run(b200, f"--mxq-alpha={alpha}", "--mxq-gates=speedup")
        widths.append(b200.report()["verdicts"][0]["speed"]["half_width"])
    assert widths[0] < widths[1]


def test_samples_reach_pytest_benchmark(b200: GateDirectory) -> None:
    result = run(b200, "--mxq-gates=speedup", "--benchmark-json=out.json")
    result.assert_outcomes(passed=2)
    benchmarks = json.loads((b200.path / "out.json").read_text())["benchmarks"]
    assert [entry["name"] for entry in benchmarks] == ["test_speed[mxfp8-speedup]", "test_speed[nvfp4-speedup]"]
    samples = b200.report()["verdicts"][0]["speed"]["samples"]["quantized"]
    assert benchmarks[0]["stats"]["data"] == pytest.approx(samples)
    assert benchmarks[0]["extra_info"]["mxq"]["speedup"] == pytest.approx(1.25, rel=0.01)


@pytest.mark.parametrize("options", [("-p", "no:benchmark"), ("--benchmark-disable",), ("--benchmark-skip",)])
def test_without_pytest_benchmark_nothing_changes(b200: GateDirectory, options: tuple[str, ...]) -> None:
    run(b200, *options).assert_outcomes(passed=4)
    b200.write(SPEED_TEST.replace("1.40", "1.90"))
    result = run(b200, *options, "--mxq-gates=speedup")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "regression" in {verdict["outcome"] for verdict in b200.report()["verdicts"]}


def test_a_benchmark_marker_of_the_test_keeps_its_group_and_gets_our_times(b200: GateDirectory) -> None:
    b200.write('import pytest\npytestmark = pytest.mark.benchmark(group="mine")\n' + SPEED_TEST)
    run(b200, "--mxq-gates=speedup", "--benchmark-json=out.json").assert_outcomes(passed=2)
    stored = json.loads((b200.path / "out.json").read_text())["benchmarks"][0]
    assert stored["group"] == "mine"
    assert stored["stats"]["data"] == pytest.approx(b200.report()["verdicts"][0]["speed"]["samples"]["quantized"])


@pytest.mark.filterwarnings(
    "ignore:Not saving anything"
)  # before pytest 8.3 the inner run's filters end too early for it
def test_the_test_s_own_benchmark_fixture_is_left_alone(b200: GateDirectory) -> None:
    b200.write(SPEED_TEST.replace("mxq_pipeline, mxq_prompt", "mxq_pipeline, mxq_prompt, benchmark"))
    run(b200, "--mxq-gates=speedup", "--benchmark-json=out.json", "-W", "ignore").assert_outcomes(passed=2)
    assert not (b200.path / "out.json").exists()  # nobody called it


def test_benchmark_only_leaves_strict_red(b200: GateDirectory) -> None:
    result = run(b200, "--mxq-strict", "--mxq-reference=live", "--benchmark-only")
    assert result.ret != 0


def test_several_workers_on_one_gpu_are_a_usage_error(b200: GateDirectory) -> None:
    result = b200.run_apart("--mxq-formats=mxfp8,nvfp4", "-n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*2 xdist workers share one GPU, and *-n0 or -n1*"])
    b200.run_apart("--mxq-formats=mxfp8,nvfp4", "-n1").assert_outcomes(passed=4)
    assert b200.run_apart("--mxq-refresh", "-n2").ret == pytest.ExitCode.USAGE_ERROR


def test_several_workers_without_a_gpu_skip_speed_and_run_images(gates: GateDirectory) -> None:
    gates.write(SPEED_TEST + GATE_TEST)
    result = gates.run_apart("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "-n2")
    result.assert_outcomes(passed=4, skipped=4)


def with_memory(b200: GateDirectory, gib: float) -> None:
    conftest = b200.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace("180.0", str(gib)))


def test_too_little_memory_skips_before_anything_is_loaded(b200: GateDirectory) -> None:
    with_memory(b200, 40.0)
    b200.write(SPEED_TEST.replace('"demo"', '"flux.1-dev"'))
    run(b200).assert_outcomes(skipped=4)
    said = b200.report()["verdicts"][0]["sentence"]
    assert (
        said
        == "both arms of flux.1-dev at batch size 1 need about 48 GiB, found 40 on NVIDIA B200; no batch size fits on less than 48 GiB"
    )
    assert b200.backend_log() == []
    run(b200, "--mxq-strict").assert_outcomes(errors=4)


def test_too_little_memory_for_images_skips_before_anything_is_loaded(b200: GateDirectory) -> None:
    with_memory(b200, 36.0)
    b200.write(GATE_TEST.replace('"demo", prompts=3', '"flux.1-dev", prompts=3, batch_size=3'))
    run(b200).assert_outcomes(skipped=4)
    said = b200.report()["verdicts"][0]["sentence"]
    assert said.startswith("the images of flux.1-dev at batch size 3 need about 43 GiB, found 36 on NVIDIA B200")
    b200.run("--mxq-refresh").assert_outcomes(skipped=1)
    assert "the BF16 calls of flux.1-dev at batch size 3 need about 40 GiB" in b200.report()["verdicts"][0]["sentence"]
    assert b200.backend_log() == []


def test_rounds_and_seconds_can_be_limited(b200: GateDirectory) -> None:
    b200.write(SPEED_TEST.replace('"nvfp4": 1.40}', '"nvfp4": 1.40}, max_rounds=8, max_seconds=60'))
    run(b200, "--mxq-gates=speedup").assert_outcomes(passed=2)
    assert "limits 8 60.0" in b200.backend_log()
