import json
from fnmatch import fnmatch
from pathlib import Path

import msgspec
import pytest
from gate_project import GATE_TEST, GateDirectory, flat
from PIL import Image

from pytest_mxq.baselines.manifest import decode, encode


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


def stored_bytes(gates: GateDirectory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (gates.path / "baselines").rglob("*") if path.is_file()}


def test_a_refresh_that_finds_what_is_stored_writes_nothing(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh")
    document = json.loads(manifest(gates).read_text())
    age(gates)
    before = stored_bytes(gates)
    gates.run("--mxq-refresh").stdout.fnmatch_lines(["demo/test_gate: unchanged, nothing was written: *"])
    assert stored_bytes(gates) == before
    assert json.loads(manifest(gates).read_text())["created"] != document["created"]


def age(gates: GateDirectory, **changes: object) -> None:
    """Store the baseline under another date, with some fields changed."""
    old = decode(manifest(gates).read_bytes(), where="here")
    manifest(gates).write_bytes(encode(msgspec.structs.replace(old, created="2020-01-01T00:00:00+00:00", **changes)))


def test_a_refresh_after_a_change_of_the_selection_alone_is_written_and_says_that_the_images_stayed(
    gates: GateDirectory,
) -> None:
    gates.run("--mxq-refresh")
    age(gates, selections={})
    gates.run("--mxq-refresh").stdout.fnmatch_lines(["images: bit-identical to the old ones"])
    assert not list((gates.path / "mxq-report").rglob("refresh-*.png"))


OTHER_IMAGES = GATE_TEST.replace("return mxq_pipeline(mxq_prompt)", "return mxq_pipeline('other ' + mxq_prompt)")


def test_changed_images_are_shown_old_and_new_with_their_distance_under_their_old_names(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh")
    before = stored_bytes(gates)
    gates.write(OTHER_IMAGES)
    result = gates.run("--mxq-refresh")
    result.stdout.fnmatch_lines(["images: 3 of 3 changed, LPIPS old -> new: mean 0.*, worst 0.*"])
    assert list(stored_bytes(gates)) == list(before)
    paths = [gates.path / "mxq-report" / path for path in gates.report()["verdicts"][0]["comparisons"]]
    assert sorted(paths) == sorted((gates.path / "mxq-report").rglob("refresh-*-old-new-difference.png"))
    with Image.open(paths[0]) as sheet:
        assert sheet.size == (3 * 16 + 2 * 8, 16)


def test_sheets_of_an_earlier_refresh_do_not_stay(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh")
    gates.write(OTHER_IMAGES)
    gates.run("--mxq-refresh")
    gates.write(OTHER_IMAGES.replace("'other '", "('a' if 'striped' in mxq_prompt else 'other ')"))
    gates.run("--mxq-refresh")
    assert len(list((gates.path / "mxq-report").rglob("refresh-*.png"))) == 1


@pytest.mark.parametrize("gate_id", ["nvfp4-lpips", "mxfp8-ssim"])
def test_a_refresh_takes_the_id_that_a_failure_prints(gates: GateDirectory, gate_id: str) -> None:
    gates.write(GATE_TEST + GATE_TEST.replace("test_gate", "test_other"))
    gates.run(f"test_it.py::test_gate[{gate_id}]", "--mxq-refresh").assert_outcomes(passed=1)
    assert manifest(gates).exists()
    assert len(list(manifest(gates).parent.glob("*.json"))) == 1


def test_ids_of_several_gates_of_one_case_refresh_it_once_also_under_xdist(gates: GateDirectory) -> None:
    ids = ["test_it.py::test_gate[nvfp4-lpips]", "test_it.py::test_gate[nvfp4-ssim]"]
    gates.run_apart(*ids, "--mxq-refresh", "-n1").assert_outcomes(passed=1)


def test_refresh_says_what_changed_old_to_new(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh")
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
    assert fnmatch(flat(result), "*degenerate*nothing was stored*image 0: constant*")
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
