import json
from pathlib import Path

import pytest
from gate_project import GATE_TEST, GateDirectory


def manifest(gates: GateDirectory, root: str = "baselines") -> Path:
    return gates.path / root / "cpu-x86-64" / "demo" / "test_gate.json"


def test_refresh_collects_one_item_a_case_and_deselects_every_other_test(gates: GateDirectory) -> None:
    gates.write(GATE_TEST + "\ndef test_ordinary():\n    assert False\n")
    result = gates.run("--mxq-refresh", "-v")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*test_gate?bf16-refresh? PASSED*", "*demo/test_gate: 3 images -> *", "new baseline"])
    assert gates.outcomes() == {"bf16-refresh": "refreshed"}


def test_the_manifest_is_sorted_json_with_images_noise_floor_and_selections(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh", "--mxq-formats=nvfp4")  # every format is recorded, whichever are chosen
    text = manifest(gates).read_text()
    document = json.loads(text)
    assert json.dumps(document, indent=2, sort_keys=True) + "\n" == text
    assert len(document["outputs"]) == 3
    assert sorted(document["selections"]) == ["float8", "mxfp4", "mxfp8", "nvfp4"]
    assert document["selections"]["nvfp4"]["layers"] == {"blocks.*": 4}
    assert document["noise_floor"] == {"repeat": 0.0, "eager_vs_compiled": 0.001, "note": ""}
    assert document["identity"]["calls"][0]["num_inference_steps"] == 8


def test_refresh_says_what_changed_old_to_new(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh")
    gates.run("--mxq-refresh").stdout.fnmatch_lines(["images: bit-identical to the old ones"])
    gates.write(GATE_TEST.replace("mxq_pipeline(mxq_prompt)", "mxq_pipeline(mxq_prompt, num_inference_steps=4)"))
    gates.run("--mxq-refresh").stdout.fnmatch_lines(["*num_inference_steps 8 -> 4*"])


def test_refresh_refuses_in_ci_unless_it_is_allowed(gates: GateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = gates.run("--mxq-refresh")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*CI is set*--mxq-refresh-in-ci*"])
    assert not manifest(gates).exists()
    gates.run("--mxq-refresh", "--mxq-refresh-in-ci").assert_outcomes(passed=1)
    assert manifest(gates).exists()


def test_a_gate_never_writes_a_baseline(gates: GateDirectory) -> None:
    gates.emulated().assert_outcomes(passed=4)
    assert not (gates.path / "baselines").exists()


def test_a_degenerate_bf16_arm_is_not_stored(gates: GateDirectory) -> None:
    gates.behave(faults={"bf16": ["image 0: constant"]})
    result = gates.run("--mxq-refresh")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*DEGENERATE*nothing was stored*image 0: constant*"])
    assert not manifest(gates).exists()


def test_an_unwritable_baseline_directory_is_refused_before_anything_is_built(gates: GateDirectory) -> None:
    (gates.path / "baselines").write_text("a file stands in the way")
    result = gates.run("--mxq-refresh")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert str(gates.path / "baselines") in result.stderr.str()
    assert gates.backend_log() == []


def test_baselines_go_where_the_option_says(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh", "--mxq-baselines=elsewhere").assert_outcomes(passed=1)
    assert manifest(gates, "elsewhere").exists()
    result = gates.emulated("--mxq-baselines=elsewhere", "--mxq-strict")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*demo/test_gate: reference stored*"])


def test_media_go_where_the_option_says_and_are_read_from_there(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh", "--mxq-media=images").assert_outcomes(passed=1)
    assert len(list((gates.path / "images").rglob("*.png"))) == 3
    assert not list((gates.path / "baselines").rglob("*.png"))
    gates.emulated("--mxq-media=images", "--mxq-strict").assert_outcomes(passed=4)
    result = gates.emulated("--mxq-strict")
    result.assert_outcomes(failed=4)


def test_a_case_of_several_batch_sizes_gets_a_baseline_each(gates: GateDirectory) -> None:
    gates.write(GATE_TEST.replace("prompts=3", "prompts=3, batch_size=[1, 2]"))
    result = gates.run("--mxq-refresh", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_gate?bf16-refresh-b1?*", "*test_gate?bf16-refresh-b2?*"])
    names = sorted(path.name for path in manifest(gates).parent.glob("*.json"))
    assert names == ["test_gate-b1.json", "test_gate-b2.json"]
    gates.emulated("--mxq-strict").assert_outcomes(passed=8)
