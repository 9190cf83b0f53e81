import json
import os
from pathlib import Path

import pytest
from gate_project import GateDirectory

SUITE = Path(__file__).parents[2] / "conftest.py"


@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile"])
def test_verdicts_cross_xdist_and_the_controller_alone_writes_the_report(gates: GateDirectory, dist: str) -> None:
    gates.behave(shift={"nvfp4": 50})
    result = gates.run_apart("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "-n2", f"--dist={dist}")
    result.assert_outcomes(failed=1, passed=3)
    assert gates.outcomes() == {
        "mxfp8-lpips": "pass",
        "mxfp8-ssim": "pass",
        "nvfp4-lpips": "regression",
        "nvfp4-ssim": "pass",
    }
    result.stdout.fnmatch_lines(["  nvfp4 (emulated)  lpips  REGRESSION*", "REGRESSION *nvfp4-lpips*"])
    lines = [json.loads(line)["event"] for line in (gates.path / "mxq-report/report.jsonl").read_text().splitlines()]
    assert lines == ["planned"] * 4 + ["verdict"] * 4


GROUPED = """
import pytest

@pytest.mark.parametrize("x", ["a-mxfp8-lpips", "mxfp8-speedup", "b@g", "c]"])
@pytest.mark.xdist_group("gpu[0]")
def test_plain(x):
    pass

@pytest.mark.mxq("demo", prompts=2)
@pytest.mark.mxq_lpips(max=0.02)
@pytest.mark.mxq_speedup(min=1.0)
@pytest.mark.xdist_group("gpu[0]")
def test_gate(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""


def test_groups_of_loadgroup_leave_no_gate_as_not_run_and_no_other_test_as_planned(gates: GateDirectory) -> None:
    # pytest-xdist appends "@gpu[0]" to the nodeids of a group (under pytest 9.2 it does not: pytest-xdist#1386).
    gates.write(GROUPED)
    result = gates.run_apart("--mxq-formats=mxfp8", "--mxq-emulate", "-n2", "--dist=loadgroup")
    result.assert_outcomes(passed=5, skipped=1)
    assert gates.outcomes() == {"mxfp8-lpips": "pass", "mxfp8-speedup": "skipped"}
    assert [cell.gate for cell in gates.typed_report().planned] == ["lpips", "speedup"]


def test_groups_of_loadgroup_do_not_hide_that_a_gpu_is_shared(gates: GateDirectory) -> None:
    gates.pretend("B200")
    gates.write(GROUPED)
    result = gates.run_apart("--mxq-formats=mxfp8", "-n2", "--dist=loadgroup")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "2 xdist workers share one GPU" in result.stdout.str() + result.stderr.str()


def test_a_test_that_is_no_gate_may_have_the_id_of_one_that_is_timed(gates: GateDirectory) -> None:
    gates.pretend("B200")
    gates.write(GROUPED)
    gates.run_apart("--mxq-formats=mxfp8", "--mxq-gates=lpips", "-n2").assert_outcomes(passed=5)
    assert gates.outcomes() == {"mxfp8-lpips": "pass"}


def test_strict_holds_under_xdist(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh")
    result = gates.run_apart("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "--mxq-strict", "-n2", "-kmxfp8")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["--mxq-strict: 2 planned gates were deselected*"])
    assert gates.outcomes()["nvfp4-ssim"] == "not-run"


def test_a_crashed_worker_leaves_a_not_run_verdict(gates: GateDirectory) -> None:
    path = gates.path / "test_it.py"
    path.write_text(path.read_text().replace("    return mxq", "    import os\n    os._exit(3)\n    return mxq"))
    result = gates.run_apart("--mxq-formats=mxfp8", "--mxq-emulate", "-n1")
    assert result.ret != 0
    assert set(gates.outcomes().values()) == {"not-run"}


def test_the_order_holds_under_random_order(gates: GateDirectory) -> None:
    result = gates.run_apart("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "-p", "randomly", "-p", "randomly")
    assert result.ret == 0
    arms = [line for line in gates.backend_log() if line.startswith("generate") and "bf16" not in line]
    assert arms == ["generate demo test_gate mxfp8", "generate demo test_gate nvfp4"]


THREADS = """
import os, sys
from pathlib import Path

def test_share():
    assert "torch" not in sys.modules
    Path(os.environ["PYTEST_XDIST_WORKER"]).write_text(os.environ["OMP_NUM_THREADS"])
"""


@pytest.mark.parametrize("asked", [None, "7"])
def test_this_suite_s_workers_share_the_cores_unless_asked_otherwise(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    (gates.path / "conftest.py").write_text(SUITE.read_text())
    gates.write(THREADS)
    gates.write(THREADS, "test_another.py")
    gates.run_apart("-n2", "--dist=loadfile").assert_outcomes(passed=2)
    share = asked or str(max(1, (os.cpu_count() or 1) // 2))
    assert [(gates.path / worker).read_text() for worker in ("gw0", "gw1")] == [share, share]
