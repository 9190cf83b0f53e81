"""Gates of memory, bounds and refusals of gates that measure whole calls."""

import json

import pytest
from gate_project import GATE_TEST, SPEED_TEST, GateDirectory, flat
from speed_project import FAST, run


def test_too_few_quantized_layers_are_named_before_anything_is_timed(b200: GateDirectory) -> None:
    b200.behave(seconds=FAST, quantized=1)
    run(b200).assert_outcomes(failed=4)
    assert set(b200.outcomes().values()) == {"not-quantized"}
    assert not [line for line in b200.backend_log() if line.startswith("live")]


@pytest.mark.parametrize(
    ("bound", "outcome", "observed", "limit"),
    [
        ("max_ratio=0.61", "pass", 0.6, 0.61),
        ("max_ratio=0.59", "regression", 0.6, 0.59),
        ("max_gib=12.0", "pass", 12.0, 12.0),
        ("max_gib=11.9", "regression", 12.0, 11.9),
        ("max_weight_ratio=0.5", "pass", 0.5, 0.5),
        ("max_weight_ratio=0.49", "regression", 0.5, 0.49),
        ("max_ratio=0.61, max_gib=11.9", "regression", 12.0, 11.9),
    ],
)
def test_each_bound_of_memory_is_a_bound_and_the_verdict_has_the_one_that_decided(
    b200: GateDirectory, bound: str, outcome: str, observed: float, limit: float
) -> None:
    b200.write(
        f'import pytest\n@pytest.mark.mxq("demo")\n@pytest.mark.mxq_memory({bound})\n'
        "def test_speed(mxq_pipeline, mxq_prompt):\n    return mxq_pipeline(mxq_prompt)\n"
    )
    b200.run("--mxq-formats=mxfp8")
    (verdict,) = b200.typed_report().verdicts
    assert (verdict.outcome, verdict.observed, verdict.bound) == (outcome, observed, limit)


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
        ('mxq_memory(max_gib=3, steps="few")', "mxq_memory(steps=) must be one of short, full; got 'few'"),
        ('mxq_memory(steps="full")', "mxq_memory needs at least one of max_ratio, max_gib, max_weight_ratio"),
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
    assert said in flat(result)


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
    result.stdout.fnmatch_lines(["*outputs of random weights mean nothing*"])
    b200.write(SPEED_TEST.replace('"demo"', '"flux.1-dev"'))
    b200.run("--mxq-refresh", "--mxq-weights=random").assert_outcomes(passed=1)
    path = b200.path / "baselines/nvidia-b200-sm100/flux.1-dev/test_speed-random-weights.json"
    assert json.loads(path.read_text())["outputs"] == []


def test_a_model_that_cannot_be_random_skips_with_the_reason(b200: GateDirectory) -> None:
    result = run(b200, "--mxq-weights=random", "-rs")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(["*model 'demo' cannot be built with random weights*"])


def with_memory(b200: GateDirectory, gib: float) -> None:
    b200.pretend("B200", total_memory_gib=gib)


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
