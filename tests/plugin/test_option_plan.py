"""``--mxq-plan`` says what would run, with its memory, time and baselines, and runs nothing."""

import json
from pathlib import Path

import pytest
from gate_project import GATE_TEST, SPEED_TEST, GateDirectory
from speed_project import FAST, refresh, run

FLUX = SPEED_TEST.replace('"demo"', '"flux.1-dev"')


def rows(result: pytest.RunResult) -> list[list[str]]:
    """The cells of each row of the table, and the total."""
    lines = result.stdout.lines
    start = next(index for index, line in enumerate(lines) if line.split()[:3] == ["case", "format", "gate"])
    end = next(index for index, line in enumerate(lines) if line.startswith("total:"))
    table = [line for line in lines[start + 1 : end] if line.startswith("  ") and not line.startswith("      ")]
    return [*(line.split(maxsplit=7) for line in table), [lines[end]]]


def test_the_order_memory_and_published_time_of_each_gate_and_nothing_runs(b200: GateDirectory) -> None:
    b200.write(FLUX)
    result = b200.run("--mxq-formats=nvfp4,mxfp8", "--mxq-plan")
    assert result.ret == 0
    *cells, (total,) = rows(result)
    assert [row[1:3] for row in cells] == [[f, g] for g in ("memory", "speedup") for f in ("nvfp4", "mxfp8")]
    speed = (3 + 2 * 2 / 28 + 6) * (2.10 + 1.41)
    assert cells[2] == [
        "flux.1-dev/test_speed", "nvfp4", "speedup", "59", "GiB", f"0:{int(speed)}", "published", "latencies  live"
    ]  # fmt: skip
    assert total.startswith("total: 4 would run; about 0:54; at most 59 GiB")
    assert b200.backend_log() == []
    assert not b200.report_file.exists()


def test_the_last_report_tells_the_time_and_stays_as_it_is(b200: GateDirectory) -> None:
    run(b200)
    document = b200.report()
    for verdict, seconds in zip(document["verdicts"], (100, 200, 300, 400), strict=True):
        verdict["seconds"] = seconds
    b200.report_file.write_text(json.dumps(document))
    result = run(b200, "--mxq-plan", "-k", "nvfp4")
    *cells, (total,) = rows(result)
    assert [row[4] for row in cells] == ["5:00", "6:40"]
    assert total == "total: 2 would run; about 11:40"
    assert b200.report() == document


def test_a_report_of_another_device_tells_nothing(b200: GateDirectory) -> None:
    run(b200)
    b200.pretend("H100")
    *_, (total,) = rows(b200.run("--mxq-formats=float8", "--mxq-plan", "--mxq-reference=live"))
    assert "about" not in total


def test_stored_sessions_tell_the_time_of_their_device(b200: GateDirectory) -> None:
    b200.behave(seconds=FAST)
    refresh(b200, 3)
    result = run(b200, "--mxq-plan", "--mxq-reference=stored", "--mxq-gates=speedup")
    *cells, _ = rows(result)
    assert [row[4] for row in cells] == [
        "0:23",
        "0:23",
    ]  # 11 calls of 2 s and two of 2 of 8 steps: nothing is published of the demo's formats
    assert all("session of" in " ".join(row) and row[-1].endswith("stored") for row in cells)


@pytest.mark.parametrize("options", [("--mxq-reference=stored",), ("--mxq-strict",)])
def test_what_lacks_its_baseline_will_be_red(b200: GateDirectory, options: tuple[str, ...]) -> None:
    b200.write(FLUX + GATE_TEST.replace("test_gate", "test_images"))
    result = b200.run("--mxq-formats=nvfp4", "--mxq-plan", *options)
    *cells, (total,) = rows(result)
    missing = {row[2] for row in cells if " ".join(row).endswith("missing: will be red")}
    timed_live = set() if "--mxq-reference=stored" in options else {"speedup"}
    assert missing == {"lpips", "ssim", "memory", "speedup"} - timed_live
    assert result.ret == 0
    assert f"{len(missing)} will be red" in total


def test_every_red_of_the_plan_is_red_in_the_run(b200: GateDirectory) -> None:
    options = ("--mxq-formats=nvfp4", "--mxq-strict")
    *cells, _ = rows(b200.run(*options, "--mxq-plan"))
    planned = {f"nvfp4-{row[2]}" for row in cells if " ".join(row).endswith("will be red")}
    b200.run(*options)
    assert planned == {name for name, outcome in b200.outcomes().items() if outcome == "missing"} != set()


def test_skips_and_faults_are_told_with_their_reason(gates: GateDirectory) -> None:
    faulty = (
        '\n@pytest.mark.mxq("nodel")\n@pytest.mark.mxq_lpips(max=1)\ndef test_f(mxq_pipeline, mxq_prompt):\n    pass\n'
    )
    gates.write(SPEED_TEST + faulty)
    result = gates.run("--mxq-formats=mxfp8", "--mxq-plan")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["*mxfp8*speedup*skipped", "*mxfp8 needs compute capability*", "*mxfp8*lpips*error: will be red", "*fault of*"]
    )


def test_a_refresh_is_planned_with_its_calls_and_allowed_in_ci(
    b200: GateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    b200.write(FLUX)
    *cells, _ = rows(b200.run("--mxq-refresh", "--mxq-plan"))
    calls = 12 + 4 * 2 / 28 + 2 + 2 * 2  # a timed session and its peaks; both images, and the noise floor's twice
    assert cells[0][1:6] == ["bf16", "refresh", "36", "GiB", f"0:{int(calls * 2.10)}"]


def test_models_select_and_nothing_at_all_is_a_plan(b200: GateDirectory) -> None:
    result = run(b200, "--mxq-plan", "--mxq-models=flux.1-dev")
    assert result.ret == 0
    assert rows(result) == [["total: nothing would run"]]


def test_a_failed_collection_is_one(b200: GateDirectory) -> None:
    b200.write("raise ImportError", "test_broken.py")
    assert run(b200, "--mxq-plan").ret == pytest.ExitCode.INTERRUPTED


def test_workers_are_not_started(b200: GateDirectory) -> None:
    pytest.importorskip("xdist")
    result = run(b200, "--mxq-plan", "-n", "2")
    assert len(rows(result)) == 5
    result.stdout.no_fnmatch_line("*2 workers*")


def test_torch_is_not_loaded(b200: GateDirectory) -> None:
    conftest = Path(b200.path / "conftest.py")
    conftest.write_text(
        f"{conftest.read_text()}\nimport sys\n\ndef pytest_unconfigure(config):\n"
        "    open('heavy.txt', 'w').write(' '.join({'torch', 'diffusers', 'numpy'} & set(sys.modules)))\n"
    )
    b200.run_apart("--mxq-formats=nvfp4", "--mxq-plan")
    assert (b200.path / "heavy.txt").read_text() == ""
