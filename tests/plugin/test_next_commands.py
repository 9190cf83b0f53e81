"""The next command of a verdict leads out of it: each is run as it is advised, and the gate is judged afterwards."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from gate_project import SPEED_TEST, GateDirectory
from manifest_examples import resealed
from speed_project import FAST

STORED = ("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-reference=stored")


def manifest(gates: GateDirectory) -> Path:
    return next((gates.path / "baselines").rglob("test_gate*.json"))


def git(gates: GateDirectory, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=gates.path, check=True, capture_output=True)


def next_command(gates: GateDirectory) -> str:
    (command,) = {record["next_command"] for record in gates.report()["verdicts"]}
    return str(command)


def follow(gates: GateDirectory) -> pytest.RunResult:
    """Run the pytest arguments of the advised refresh."""
    words = shlex.split(next_command(gates))
    return gates.run(*words[words.index("pytest") + 1 :])


@pytest.fixture
def stored(gates: GateDirectory) -> GateDirectory:
    gates.run("--mxq-refresh").assert_outcomes(passed=1)
    (gates.path / "backend.log").unlink()
    return gates


def change(gates: GateDirectory, kind: str) -> None:
    test = gates.path / "test_it.py"
    text = test.read_text()
    match kind:
        case "missing":
            manifest(gates).unlink()
        case "seed":
            test.write_text(text.replace("prompts=3", "prompts=3, seed=7"))
        case "prompts":
            test.write_text(text.replace("prompts=3", "prompts=2"))
        case "batch size":
            test.write_text(text.replace("prompts=3", "prompts=3, batch_size=2"))
        case "weights":
            gates.behave(weights="folder:1")
        case "software":
            document = json.loads(manifest(gates).read_text())
            document["fingerprint"]["hard"]["torch"] = "1.0"
            manifest(gates).write_text(json.dumps(resealed(document)))
        case "image":
            image = next(manifest(gates).parent.rglob("*.png"))
            image.write_bytes(image.read_bytes()[:40])


OUTCOMES = {"missing": "missing", "image": "error"}
KINDS = ["missing", "seed", "prompts", "batch size", "weights", "software", "image"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_before_a_model_is_loaded_builds_none_and_its_refresh_leads_out(
    stored: GateDirectory, kind: str
) -> None:
    change(stored, kind)
    result = stored.run(*STORED)
    result.assert_outcomes(failed=2)
    assert set(stored.outcomes().values()) == {OUTCOMES.get(kind, "stale")}
    assert stored.backend_log() == []
    (header,) = [line for line in result.stdout.lines if line.startswith("mxq: demo/test_gate: ")]
    assert "same hardware and software" not in header
    words = shlex.split(next_command(stored))
    assert "--mxq-refresh" in words
    assert "test_it.py::test_gate" in words
    assert not {"--mxq-reference=stored", "--mxq-emulate"} & set(words)
    follow(stored).assert_outcomes(passed=1)
    stored.run(*STORED).assert_outcomes(passed=2)


def test_a_baseline_of_other_software_says_how_to_judge_without_it(stored: GateDirectory) -> None:
    change(stored, "software")
    stored.run(*STORED).assert_outcomes(failed=2)
    assert "--mxq-reference=live" in stored.report()["verdicts"][0]["sentence"]
    stored.run(*STORED[:2], "--mxq-reference=live").assert_outcomes(passed=2)


def test_the_refresh_keeps_the_run_s_options_and_refreshes_one_item_of_many(gates: GateDirectory) -> None:
    path = gates.path / "test_it.py"
    marks = "@pytest.mark.parametrize('way', ['a', 'b'])\n@pytest.mark.mxq("
    text = path.read_text().replace("@pytest.mark.mxq(", marks).replace("mxq_prompt)", "mxq_prompt, way)", 1)
    path.write_text(text.replace("prompts=3", "prompts=3, batch_size=[1, 2]"))
    options = ("--mxq-baselines", "elsewhere", "--mxq-models=demo", "--mxq-gates=lpips")
    gates.run("test_it.py::test_gate[b-mxfp8-lpips-b2]", *STORED, *options).assert_outcomes(failed=1)
    follow(gates).assert_outcomes(passed=1)
    assert [path.name for path in (gates.path / "elsewhere").rglob("*.json")] == ["test_gate-b-b2.json"]
    gates.run("test_it.py::test_gate[b-mxfp8-lpips-b2]", *STORED, *options).assert_outcomes(passed=1)


def committed(gates: GateDirectory) -> None:
    git(gates, "init", "-q")
    git(gates, "add", ".")


@pytest.mark.parametrize("damage", ["deleted", "truncated", "folder", "manifest"])
def test_a_damaged_baseline_of_a_checkout_is_restored_by_git(stored: GateDirectory, damage: str) -> None:
    committed(stored)
    image = next(manifest(stored).parent.rglob("*.png"))
    match damage:
        case "deleted":
            image.unlink()
        case "truncated":
            image.write_bytes(image.read_bytes()[:40])
        case "folder":
            shutil.rmtree(image.parent)
        case "manifest":
            manifest(stored).write_text("{")
    stored.run(*STORED).assert_outcomes(failed=2)
    assert set(stored.outcomes().values()) == {"error"}
    assert stored.backend_log() == []
    command = next_command(stored)
    assert command.startswith("git checkout -- baselines/")
    for _ in range(3 if damage == "folder" else 1):  # each run names the first that is missing
        subprocess.run(shlex.split(next_command(stored)), cwd=stored.path, check=True, capture_output=True)
        result = stored.run(*STORED)
    result.assert_outcomes(passed=2)


def test_an_lfs_pointer_says_git_lfs_pull_where_it_holds_the_wanted_content(stored: GateDirectory) -> None:
    image = next(manifest(stored).parent.rglob("*.png"))
    entry = next(e for e in json.loads(manifest(stored).read_text())["outputs"] if e["file"] == image.name)
    whole = image.read_bytes()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n"
    image.write_text(pointer.format(entry["sha256"]))
    stored.run(*STORED).assert_outcomes(failed=2)
    assert next_command(stored) == "git lfs pull"
    assert "the content that the manifest names" in stored.report()["verdicts"][0]["sentence"]
    image.write_text(pointer.format("b" * 64))
    stored.run(*STORED).assert_outcomes(failed=2)
    assert "--mxq-refresh" in next_command(stored)
    assert "to other content" in stored.report()["verdicts"][0]["sentence"]
    image.write_bytes(whole)
    stored.run(*STORED).assert_outcomes(passed=2)


def test_a_renamed_test_moves_its_baseline(stored: GateDirectory) -> None:
    path = stored.path / "test_it.py"
    path.write_text(path.read_text().replace("test_gate", "test_renamed"))
    committed(stored)
    stored.run(*STORED).assert_outcomes(failed=2)
    assert set(stored.outcomes().values()) == {"missing"}
    command = next_command(stored)
    result = stored.run("--mxq-formats=mxfp8", "--mxq-emulate", "--collect-only")
    assert any("no stored baseline; reference live; " in line and command in line for line in result.stdout.lines)
    folder = "baselines/cpu-x86-64/demo"
    assert command == (
        f"git mv {folder}/test_gate.json {folder}/test_renamed.json && git mv {folder}/test_gate {folder}/test_renamed"
    )
    subprocess.run(command, shell=True, cwd=stored.path, check=True, capture_output=True)
    stored.run(*STORED, "--mxq-strict").assert_outcomes(passed=2)


@pytest.mark.parametrize("why", ["its test is there", "another seed", "no checkout"])
def test_a_baseline_that_may_be_another_s_is_not_moved(stored: GateDirectory, why: str) -> None:
    text = (stored.path / "test_it.py").read_text()
    renamed = text.replace("test_gate", "test_renamed")
    if why == "its test is there":
        stored.write(renamed, "test_two.py")
    else:
        stored.write(renamed.replace("prompts=3", "prompts=3, seed=1") if why == "another seed" else renamed)
    if why != "no checkout":
        committed(stored)
    stored.run(*STORED, "-k", "renamed").assert_outcomes(
        failed=2, **({"deselected": 2} if why == "its test is there" else {})
    )
    assert "--mxq-refresh" in next_command(stored)


def test_too_few_timing_sessions_say_how_many_a_refresh_adds(gates: GateDirectory) -> None:
    gates.on_blackwell(SPEED_TEST)
    gates.behave(seconds=FAST)
    options = ("--mxq-formats=mxfp8", "--mxq-gates=speedup", "--mxq-reference=stored")
    gates.run("--mxq-refresh").assert_outcomes(passed=1)
    gates.run(*options).assert_outcomes(failed=1)
    assert gates.outcomes() == {"mxfp8-speedup": "missing"}
    assert "--mxq-refresh-sessions=2" in next_command(gates)
    follow(gates).assert_outcomes(passed=1)
    gates.run(*options)
    assert gates.outcomes()["mxfp8-speedup"] in {"pass", "inconclusive"}


def test_stored_sessions_of_other_weights_build_no_arm(gates: GateDirectory) -> None:
    gates.on_blackwell(SPEED_TEST)
    gates.behave(seconds=FAST)
    gates.run("--mxq-refresh").assert_outcomes(passed=1)
    (gates.path / "backend.log").unlink()
    gates.behave(seconds=FAST, weights="folder:1")
    gates.run("--mxq-formats=mxfp8", "--mxq-gates=memory", "--mxq-reference=stored").assert_outcomes(failed=1)
    assert gates.outcomes() == {"mxfp8-memory": "stale"}
    assert gates.backend_log() == []
    follow(gates).assert_outcomes(passed=1)
    gates.run("--mxq-formats=mxfp8", "--mxq-gates=memory", "--mxq-reference=stored").assert_outcomes(passed=1)


@pytest.mark.parametrize("gate", ["speedup", "memory"])
def test_a_renamed_test_of_speed_and_memory_moves_its_baseline(gates: GateDirectory, gate: str) -> None:
    gates.on_blackwell(SPEED_TEST)
    gates.behave(seconds=FAST)
    gates.run("--mxq-refresh", "--mxq-refresh-sessions=1").assert_outcomes(passed=1)
    gates.write(SPEED_TEST.replace("test_speed", "test_renamed"))
    committed(gates)
    gates.run("--mxq-formats=mxfp8", f"--mxq-gates={gate}", "--mxq-reference=stored").assert_outcomes(failed=1)
    assert gates.outcomes() == {f"mxfp8-{gate}": "missing"}
    assert next_command(gates).startswith("git mv ")
