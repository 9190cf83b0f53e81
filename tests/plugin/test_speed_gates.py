"""Gates of speed on a pretended B200: what is decided, what is shown, what pytest-benchmark gets."""

import json

import pytest
from gate_project import GATE_TEST, SPEED_TEST, GateDirectory
from speed_project import FAST, run


def test_a_fast_arm_passes_with_an_interval_and_a_slow_one_is_a_regression(b200: GateDirectory) -> None:
    result = run(b200)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "demo/test_speed nvfp4: whole calls, BF16 2.000 s -> 1.300 s, n=* ?*, slowed down in 0%, no reference workload"
        ]
    )
    b200.behave(seconds={**FAST, "nvfp4": 1.53})
    result = run(b200, "-v")
    result.assert_outcomes(failed=1, passed=3)
    result.stdout.fnmatch_lines(
        [
            "*test_speed?nvfp4-speedup? REGRESSION*",
            "  nvfp4   speedup  REGRESSION  1.307x*",
            "demo nvfp4 speedup   1.307x < 1.400x   [[]1.2*, 1.3*[]] each bound 95 %   BF16 2.000 s -> 1.530 s*",
            "  BF16      *  1.998 to 2.002 s",
            "  quantized *  1.52* to 1.53* s",
            "  machine   0 rounds voided, slowed down in 0%, power cap in 50%; first calls *",
            "  baseline  live (0 stored timing sessions of this hardware and software, 3 needed)",
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
    written = b200.path / "out.json"  # pytest-benchmark 4 opens it when options are read
    assert not written.exists() or not written.read_bytes()  # nobody called it


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


def test_rounds_and_seconds_can_be_limited(b200: GateDirectory) -> None:
    b200.write(SPEED_TEST.replace('"nvfp4": 1.40}', '"nvfp4": 1.40}, max_rounds=8, max_seconds=60'))
    run(b200, "--mxq-gates=speedup").assert_outcomes(passed=2)
    assert "limits 8 60.0" in b200.backend_log()
