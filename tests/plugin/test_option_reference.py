import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from gate_project import GATE_TEST, GateDirectory, flat
from manifest_examples import resealed

from pytest_mxq.gates.outcome import Outcome


def manifest(gates: GateDirectory) -> Path:
    return gates.path / "baselines" / "cpu-x86-64" / "demo" / "test_gate.json"


def alter(gates: GateDirectory, **changes: Any) -> None:
    document = json.loads(manifest(gates).read_text())
    for dotted, value in changes.items():
        *parents, name = dotted.split("__")
        target = document
        for parent in parents:
            target = target[parent]
        target[name] = value
    manifest(gates).write_text(json.dumps(resealed(document)))


@pytest.fixture
def stored(gates: GateDirectory) -> GateDirectory:
    gates.run("--mxq-refresh").assert_outcomes(passed=1)
    (gates.path / "backend.log").unlink()
    return gates


def modes(gates: GateDirectory) -> set[str]:
    return {record["reference"]["mode"] for record in gates.report()["verdicts"] if record["reference"]}


def test_auto_uses_the_stored_images_where_hardware_software_and_drift_check_agree(stored: GateDirectory) -> None:
    stored.emulated().assert_outcomes(passed=4)
    assert modes(stored) == {"stored"}
    assert stored.backend_log().count("generate demo test_gate bf16") == 0
    assert stored.backend_log().count("generate demo test_gate bf16 drift check") == 1
    assert stored.report()["verdicts"][0]["reference"]["drift"] == [{"gate": "lpips", "value": None, "limit": 0.005}]
    assert stored.report()["verdicts"][0]["reference"]["noise_compiled"] == 0.001


def test_auto_goes_live_where_there_is_no_baseline(gates: GateDirectory) -> None:
    result = gates.emulated()
    result.stdout.fnmatch_lines(["*demo/test_gate: no stored baseline; reference live*"])
    assert modes(gates) == {"live"}


def test_auto_goes_live_where_the_software_differs_and_the_header_names_it(stored: GateDirectory) -> None:
    alter(stored, fingerprint__hard__torch="1.0")
    result = stored.emulated()
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*reference live: the baseline is of other hardware or software: torch 1.0 -> *"])
    assert modes(stored) == {"live"}
    assert stored.backend_log().count("generate demo test_gate bf16") == 1


def test_stored_calls_a_baseline_of_other_software_stale_never_a_regression(stored: GateDirectory) -> None:
    alter(stored, fingerprint__hard__torch="1.0")
    stored.behave(shift={"mxfp8": 100, "nvfp4": 100})
    stored.emulated("--mxq-reference=stored").assert_outcomes(failed=4)
    assert set(stored.outcomes().values()) == {"stale"}


def test_a_moved_bf16_is_live_in_auto_and_stale_in_stored(stored: GateDirectory) -> None:
    for image in manifest(stored).parent.rglob("*.png"):
        image.unlink()
    stored.behave(shift={"mxfp8": 10, "nvfp4": 10})
    document = json.loads(manifest(stored).read_text())
    store_shifted_images(stored, document)
    stored.emulated("--mxq-reference=stored").assert_outcomes(failed=4)
    assert set(stored.outcomes().values()) == {"stale"}
    [drift] = stored.report()["verdicts"][0]["reference"]["drift"]
    assert drift == {"gate": "lpips", "value": pytest.approx(0.03), "limit": 0.005}
    stored.emulated().assert_outcomes(passed=4)
    assert modes(stored) == {"live"}


def store_shifted_images(gates: GateDirectory, document: dict[str, Any], shift: int = 30) -> None:
    """Write images some steps of red away from what BF16 generates now, as a valid baseline."""
    import hashlib

    from pytest_mxq.testing.fakes import fake_image

    for entry in document["outputs"]:
        path = manifest(gates).parent / "test_gate" / entry["file"]
        fake_image(entry["prompt"], shift).save(path)
        entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest(gates).write_text(json.dumps(resealed(document)))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("drift_limit=lambda bound: bound.mean / 4, usual_drift_limit=0.5", "stale"),
        ("drift_limit=lambda bound: bound.mean / 4", "regression"),
    ],
    ids=["tells every test's drift", "tells that of its own tests"],
)
def test_a_gate_of_ones_own_tells_reference_drift_as_lpips_does(
    stored: GateDirectory, limits: str, expected: str
) -> None:
    source = Path(__file__).parents[2] / "examples" / "own_gate" / "conftest.py"
    conftest = stored.path / "conftest.py"
    own = source.read_text().replace("drift_limit=lambda bound: bound.mean / 4", limits)
    conftest.write_text(f"{own}\n{conftest.read_text()}")
    stored.behave(units={"mae": 1000}, shift={"mxfp8": 30})
    store_shifted_images(stored, json.loads(manifest(stored).read_text()), shift=1)
    stored.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-reference=stored", "--mxq-gates=lpips")
    [verdict] = stored.typed_report().verdicts
    assert verdict.outcome.value == expected
    assert verdict.reference is not None
    lpips, *others = verdict.reference.drift
    assert (lpips.gate, lpips.limit, [drift.gate for drift in others]) == (
        "lpips",
        0.005,
        ["mae"] * (expected == "stale"),
    )
    assert [(drift.value, drift.limit) for drift in others] == [(1.0, 0.5)] * (expected == "stale")


def test_live_generates_bf16_in_this_run_and_does_not_look_at_the_baseline(stored: GateDirectory) -> None:
    manifest(stored).write_text("{ not json")
    stored.emulated("--mxq-reference=live").assert_outcomes(passed=4)
    assert modes(stored) == {"live"}


def test_a_missing_baseline_fails_in_stored_and_says_how_to_make_it(gates: GateDirectory) -> None:
    result = gates.emulated("--mxq-reference=stored")
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(["*missing*", "    next *::test_gate * --mxq-refresh"])
    assert gates.backend_log() == []


def test_a_case_that_changed_since_its_refresh_is_stale_in_every_mode_and_the_field_is_named(
    stored: GateDirectory,
) -> None:
    stored.write(GATE_TEST.replace("mxq_pipeline(mxq_prompt)", "mxq_pipeline(mxq_prompt, num_inference_steps=4)"))
    result = stored.emulated()
    result.assert_outcomes(failed=4)
    assert fnmatch(flat(result), "* stale *num_inference_steps 8 -> 4*refresh*")
    assert set(stored.outcomes().values()) == {"stale"}


def test_other_weights_are_stale(stored: GateDirectory) -> None:
    stored.behave(weights="folder:1")
    stored.emulated().assert_outcomes(failed=4)
    assert "weights" in stored.report()["verdicts"][0]["sentence"]


def test_an_unknown_reference_is_refused(gates: GateDirectory) -> None:
    assert gates.emulated("--mxq-reference=old").ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("truncate", "*truncated*"),
        ("hash", "*sha256*"),
        ("size", "*"),
        ("newer", "*schema_version 3*upgrade*"),
        ("nan", "*noise_floor.repeat is nan*finite*"),
        ("missing image", "*.png*"),
    ],
)
def test_a_damaged_baseline_is_an_error_by_name_and_stays_as_it_is(
    stored: GateDirectory, damage: str, said: str
) -> None:
    image = next(manifest(stored).parent.rglob("*.png"))
    text = manifest(stored).read_text()
    match damage:
        case "truncate":
            manifest(stored).write_text(text[: len(text) // 2])
        case "hash":
            image.write_bytes(image.read_bytes()[:-1] + b"x")
        case "size":
            alter(stored, outputs=[{**entry, "width": 17} for entry in json.loads(text)["outputs"]])
        case "newer":
            alter(stored, schema_version=3)
        case "nan":
            alter(stored, noise_floor__repeat=float("nan"))
        case "missing image":
            image.unlink()
    before = sorted((path, path.read_bytes()) for path in manifest(stored).parent.rglob("*.*") if path.is_file())
    result = stored.emulated()
    result.assert_outcomes(failed=4)
    assert fnmatch(flat(result), f"* error {said}")
    assert set(stored.outcomes().values()) == {"error"}
    after = sorted((path, path.read_bytes()) for path in manifest(stored).parent.rglob("*.*") if path.is_file())
    assert before == after


def test_other_layers_of_other_software_are_judged_live_not_called_stale(stored: GateDirectory) -> None:
    alter(stored, fingerprint__hard__diffusers="0.1", selections__mxfp8__sha256="0" * 64)
    stored.emulated().assert_outcomes(passed=4)
    assert modes(stored) == {"live"}


def test_another_lpips_is_judged_live(stored: GateDirectory) -> None:
    alter(stored, lpips__version="9")
    stored.emulated("--mxq-gates=lpips").assert_outcomes(passed=2)
    assert modes(stored) == {"live"}
    assert "version='9'" in stored.report()["verdicts"][0]["reference"]["reason"]


OTHER_SIZE = """
import msgspec
from pytest_mxq.testing import FakeBackend

class Larger(FakeBackend):
    def generate(self, case, workload, arm, **options):
        outputs = super().generate(case, workload, arm, **options)
        if (arm.number_format is None) is not ON_BF16:
            return outputs
        return replace(outputs, identity=msgspec.structs.replace(outputs.identity, width=32, height=24))

def pytest_mxq_machine():
    return replace(testing.fake_machine(DEVICE), backend=lambda _progress: Larger())
"""


@pytest.mark.parametrize("mode", ["auto", "live"])
@pytest.mark.parametrize("on_bf16", [False, True])
def test_another_size_on_one_arm_is_an_error_of_the_test_that_names_both(
    gates: GateDirectory, mode: str, *, on_bf16: bool
) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(conftest.read_text() + OTHER_SIZE.replace("ON_BF16", str(on_bf16)))
    gates.run("--mxq-refresh").assert_outcomes(passed=1)
    gates.emulated(f"--mxq-reference={mode}", "--mxq-gates=lpips").assert_outcomes(failed=2)
    (verdict, _) = gates.typed_report().verdicts
    assert verdict.outcome is Outcome.ERROR
    sizes = ("16 x 16", "32 x 24") if on_bf16 else ("32 x 24", "16 x 16")
    assert f"images of {sizes[0]} pixels on the mxfp8 arm and of {sizes[1]} on the BF16 arm" in verdict.sentence
