from pathlib import Path

from report_examples import make_cell, make_report, make_verdict

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.github import MAX_SUMMARY_BYTES, StepSummary, error_commands, step_summaries

ACTIONS = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "/work"}


def test_the_first_ten_failures_are_annotated_at_their_files() -> None:
    verdicts = [make_verdict(Outcome.PASS), *(make_verdict(number=number) for number in range(1, 20))]
    found = list(error_commands(verdicts, Path("/work/sub"), ACTIONS))
    assert len(found) == 10
    assert found[0] == "::error file=sub/tests/test_it.py,title=REGRESSION demo nvfp4 lpips::mean 0.0500 > 0.0200"


def test_no_text_begins_a_command_or_a_property_of_its_own() -> None:
    cell = make_cell(model="a,line=1:b\r\n::error::x", nodeid="a,b:c.py::test")
    found = list(error_commands([make_verdict(cell=cell, sentence="5 %\n::add-mask::x")], Path("/work"), ACTIONS))
    assert len(found) == 1
    assert "\n" not in found[0]
    assert found[0].startswith("::error file=a%2Cb%3Ac.py,title=REGRESSION a%2Cline=1%3Ab%0D%0A%3A%3Aerror%3A%3Ax")
    assert found[0].endswith("::5 %25%0A::add-mask::x")


def test_nothing_is_annotated_outside_of_github_actions() -> None:
    assert list(error_commands([make_verdict()], Path("/work"), {"CI": "true"})) == []


def test_the_summary_stands_between_what_others_wrote_and_is_replaced_as_the_run_goes_on(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("of an earlier command\n")
    [write] = step_summaries({"GITHUB_STEP_SUMMARY": str(page)})
    write(tmp_path, make_report(planned=(make_cell(),), status="running"))
    assert "did not finish" in page.read_text()
    page.write_text(page.read_text() + "of another program\n")
    write(tmp_path, make_report(make_verdict()))
    text = page.read_text()
    assert text.startswith("of an earlier command\n\n")
    assert text.endswith("of another program\n")
    assert ("1 REGRESSION" in text, "did not finish" in text) == (True, False)


def test_two_runs_of_one_step_have_a_summary_each(tmp_path: Path) -> None:
    for _ in range(2):
        StepSummary(tmp_path / "page.md")(tmp_path, make_report(make_verdict()))
    assert (tmp_path / "page.md").read_text().count("1 REGRESSION") == 2


def test_a_full_page_is_left_as_it_is_and_no_page_is_no_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_bytes(b"x" * (MAX_SUMMARY_BYTES - 10))
    StepSummary(page)(tmp_path, make_report(make_verdict()))
    assert page.stat().st_size == MAX_SUMMARY_BYTES - 10
    assert step_summaries({}) == []
