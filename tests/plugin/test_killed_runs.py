import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gate_project import GATE_TEST, GateDirectory
from killed_runs import __file__ as script

from pytest_mxq.session.termination import interrupt_on_sigterm


def test_reports_say_the_truth_after_a_kill_and_after_sigterm_at_20_points_of_a_run(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, script, str(tmp_path), "20"], capture_output=True, text=True, check=True)
    counts = json.loads(done.stdout)
    assert counts["whole"] == {"finished": 1}
    assert set(counts["SIGKILL"]) <= {"running", "finished"}
    assert set(counts["SIGTERM"]) <= {"interrupted", "running", "finished"}
    assert counts["SIGKILL"]["running"] >= 5
    assert counts["SIGTERM"]["interrupted"] >= 5


def test_the_report_of_a_running_run_names_what_is_planned_and_holds_what_was_judged(gates: GateDirectory) -> None:
    gates.emulated()
    copy = "    import shutil\n    shutil.copy('mxq-report/report.json', 'seen.json')\n    return mxq_pipeline"
    gates.write(GATE_TEST.replace("    return mxq_pipeline", copy))
    gates.emulated("--mxq-gates=lpips")
    seen = json.loads((gates.path / "seen.json").read_text())
    assert seen["status"] == "running"
    assert [cell["format"] for cell in seen["planned"]] == ["mxfp8", "nvfp4"]
    assert [verdict["cell"]["format"] for verdict in seen["verdicts"]] == ["mxfp8"]
    assert gates.report()["status"] == "finished"


def test_a_run_that_collects_nothing_replaces_an_earlier_report_too(gates: GateDirectory) -> None:
    gates.emulated()
    gates.write("import does_not_exist")
    assert gates.emulated().ret == pytest.ExitCode.INTERRUPTED
    assert (gates.report()["status"], gates.report()["verdicts"]) == ("interrupted", [])


def test_a_stopped_run_is_interrupted_and_what_was_not_judged_did_not_run(gates: GateDirectory) -> None:
    gates.write(GATE_TEST.replace("    return", "    pytest.exit('enough', returncode=0)\n    return"))
    assert gates.emulated().ret != 0
    assert gates.report()["status"] == "interrupted"
    assert set(gates.outcomes().values()) == {"not-run"}


def test_a_run_that_stops_at_its_first_failure_is_finished(gates: GateDirectory) -> None:
    gates.behave(shift={"mxfp8": 50})
    gates.emulated("-x")
    assert gates.report()["status"] == "finished"
    assert list(gates.outcomes().values()) == ["regression", "not-run", "not-run", "not-run"]


def test_collecting_alone_leaves_the_report_of_an_earlier_run(gates: GateDirectory) -> None:
    gates.emulated()
    before = gates.report_file.read_bytes()
    gates.emulated("--collect-only")
    assert gates.report_file.read_bytes() == before


def test_sigterm_interrupts_and_a_second_one_has_its_usual_effect() -> None:
    restore = interrupt_on_sigterm()
    try:
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        restore()


def test_a_forked_child_ends_by_sigterm_as_it_would_without_us() -> None:
    restore = interrupt_on_sigterm()
    try:
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    finally:
        restore()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_somebody_else_s_handler_of_sigterm_stays() -> None:
    def theirs(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        interrupt_on_sigterm()()
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_that_is_killed_while_its_conftest_is_imported_leaves_no_earlier_result(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    gates.emulated()
    conftest = gates.path / "conftest.py"
    conftest.write_text(f"import os\nos._exit(9)\n{conftest.read_text()}")
    assert gates.run_apart("--mxq-formats=mxfp8", "--mxq-emulate").ret == 9
    report = gates.typed_report()
    assert (report.status, report.verdicts) == ("running", ())
    assert "did not finish" in (gates.path / "mxq-report/index.html").read_text()
    assert "did not finish" in (gates.path / "mxq-report/summary.md").read_text()
    assert not (gates.path / "mxq-report/report.jsonl").exists()


@pytest.mark.parametrize("options", [("--help",), ("--collect-only", "--mxq-formats=mxfp8"), ("-k", "nothing")])
def test_a_run_that_gates_nothing_leaves_the_report_while_its_conftest_is_imported(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    gates.emulated()
    before = gates.report_file.read_bytes()
    conftest = gates.path / "conftest.py"
    conftest.write_text(f"import os\nos._exit(9)\n{conftest.read_text()}")
    gates.run_apart(*options)
    assert gates.report_file.read_bytes() == before
