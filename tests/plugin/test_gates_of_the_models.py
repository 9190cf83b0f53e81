"""The gates that the repository ships for the three models: they plan on any machine, and skip with good reasons."""

from pathlib import Path

import pytest
from gate_project import GateDirectory

from pytest_mxq.session import runtime

GATES = Path(__file__).parents[1] / "gates"
FILES = ("test_flux.py", "test_qwen_image.py", "test_ltx2.py")


@pytest.fixture
def b200(gates: GateDirectory) -> GateDirectory:
    gates.on_blackwell()
    return gates


def written(name: str) -> str:
    """Under a name of its own: this process may have imported the original."""
    return name.replace("test_", "test_shipped_")


def write_all(gates: GateDirectory) -> None:
    (gates.path / "test_it.py").unlink()
    for name in FILES:
        gates.write((GATES / name).read_text(), written(name))


def test_without_a_gpu_every_gate_is_skipped_with_one_of_few_reasons(gates: GateDirectory) -> None:
    write_all(gates)
    gates.emulated().assert_outcomes(skipped=46)
    reasons = {
        record["sentence"].split(" at batch size")[0].split(", found")[0] for record in gates.report()["verdicts"]
    }
    assert reasons == {
        *(f"the emulated images of {model}" for model in ("flux.1-dev", "qwen-image")),
        "the emulated videos of ltx-2",
        *(f"{name} needs compute capability 10.0" for name in ("mxfp8", "nvfp4")),
    }
    assert gates.backend_log() == []


def test_on_a_b200_every_gate_is_judged(b200: GateDirectory) -> None:
    write_all(b200)
    b200.run("--mxq-formats=mxfp8,nvfp4", "--mxq-reference=live")
    records = b200.report()["verdicts"]
    assert len(records) == 46
    assert {record["outcome"] for record in records} <= {"pass", "regression", "marginal"}, [
        (record["outcome"], record["sentence"]) for record in records
    ]


def test_on_an_h100_with_random_weights_speed_and_memory_run_where_they_fit(b200: GateDirectory) -> None:
    b200.pretend("H100")
    write_all(b200)
    b200.run("--mxq-formats=float8", "--mxq-weights=random", "--mxq-reference=live")
    records = b200.report()["verdicts"]
    ran = {(r["cell"]["model"], r["cell"]["case"]) for r in records if r["outcome"] != "skipped"}
    assert {model for model, _ in ran} == {"flux.1-dev", "qwen-image", "ltx-2"}
    skipped = {r["sentence"].split(" at batch")[0] for r in records if r["outcome"] == "skipped"}
    assert skipped == {
        "--mxq-weights=random: outputs of random weights mean nothing; speed and memory gates alone run",
        "both arms of ltx-2",
    }


@pytest.mark.parametrize("name", FILES)
def test_every_gate_has_a_bound_for_the_published_formats_and_float8(gates: GateDirectory, name: str) -> None:
    write_all(gates)
    result = gates.run("--mxq-formats=mxfp8,nvfp4,float8", written(name))
    result.assert_outcomes(skipped=len(gates.report()["verdicts"]))


def test_a_refresh_of_videos_needs_pyav_and_says_so_before_anything_is_generated(
    b200: GateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda _name: None)
    write_all(b200)
    result = b200.run("--mxq-refresh", "--mxq-models=ltx-2")
    result.assert_outcomes(failed=4, deselected=8)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert {record["outcome"] for record in b200.report()["verdicts"]} == {"environment"}
    result.stdout.fnmatch_lines(
        ["*model 'ltx-2' generates video, which PyAV stores: pip install 'pytest-mxq[[]video[]]'"]
    )
    assert b200.backend_log() == []
