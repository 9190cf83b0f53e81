import json
from pathlib import Path

from report_examples import make_cell, make_report, make_verdict

from pytest_mxq.reports.json_report import Journal, write_json
from pytest_mxq.reports.records import Report


def statuses(folder: Path) -> tuple[str, int]:
    document = json.loads((folder / "report.json").read_text())
    return document["status"], len(document["verdicts"])


def test_the_start_replaces_an_earlier_report_and_its_journal(tmp_path: Path) -> None:
    for name in ("report.json", "report.jsonl", f".{'0' * 32}.json"):
        (tmp_path / name).write_text("earlier")
    Journal(tmp_path, (write_json,)).start(make_report(status="running"))
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert statuses(tmp_path) == ("running", 0)


def test_every_writer_gets_the_report_at_the_start_meanwhile_and_at_the_end(tmp_path: Path) -> None:
    seen: list[str] = []

    def note(folder: Path, report: Report) -> None:
        assert folder == tmp_path
        seen.append(f"{report.status} {len(report.verdicts)}")

    journal = Journal(tmp_path, (note, note))
    journal.start(make_report(status="running"))
    journal.plan([make_cell()])
    journal._next_updates = {note: 0.0}
    journal.update(lambda: make_report(make_verdict(), status="running"))
    journal.finish(make_report(make_verdict()))
    assert seen[::2] == seen[1::2] == ["running 0", "running 1", "finished 1"]


def test_an_update_waits_for_what_the_last_one_cost_and_the_end_does_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path, (write_json,))
    journal.start(make_report(status="running"))
    journal._next_updates = {write_json: float("inf")}
    journal.update(lambda: make_report(make_verdict(), status="running"))
    assert statuses(tmp_path) == ("running", 0)
    journal.finish(make_report(make_verdict()))
    assert statuses(tmp_path) == ("finished", 1)


def test_a_fault_of_one_writer_is_kept_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = Journal(tmp_path / "file", (write_json,))
    journal.start(make_report(status="running"))
    journal.verdict(make_verdict())
    assert journal.fault is not None
