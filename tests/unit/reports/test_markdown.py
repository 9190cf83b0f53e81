import re
from pathlib import Path

import pytest
from report_examples import make_cell, make_report, make_verdict

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.markdown import MARK, escaped, summary_markdown, write_markdown

HOSTILE = "a|b `c` <img src=x> [t](http://x) @someone #7 **b** &lt; $x$\n| new | row |\u202e\x1b[31m\x00"


def test_a_run_without_failures_is_one_line() -> None:
    text = summary_markdown(make_report(make_verdict(Outcome.PASS), make_verdict(Outcome.SKIPPED, 1)))
    assert text.splitlines()[0] == MARK
    assert len([line for line in text.splitlines() if line]) == 2
    assert "1 pass, 1 skipped on NVIDIA B200" in text


def test_each_failure_has_a_row_with_its_reason_and_its_next_command() -> None:
    verdicts = [make_verdict(Outcome.PASS), make_verdict(number=1), make_verdict(Outcome.STALE, 2, sentence="of then")]
    text = summary_markdown(make_report(*verdicts))
    rows = [line for line in text.splitlines() if line.startswith("| ") and "verdict" not in line]
    assert [row.split(" | ")[2] for row in rows] == ["test&#95;1", "test&#95;2"]
    assert "mean 0.0500 &#62; 0.0200" in rows[0]
    assert "pytest &#x27;tests/test_it.py::test_1[nvfp4-lpips]&#x27; --mxq-formats=nvfp4" in text


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_a_run_that_did_not_finish_says_so_and_what_was_not_judged(status: str) -> None:
    not_run = make_verdict(Outcome.NOT_RUN, 2)
    planned = tuple(make_cell(number) for number in range(3))
    text = summary_markdown(make_report(make_verdict(Outcome.PASS), not_run, status=status, planned=planned))
    assert "did not finish" in text
    assert "1 of 3 planned gates were judged" in text
    assert "test&#95;1" in text
    assert "test&#95;2" in text


def test_a_hostile_text_stays_one_cell_of_one_row() -> None:
    cell = make_cell(model=HOSTILE, case=HOSTILE)
    text = summary_markdown(make_report(make_verdict(cell=cell, sentence=HOSTILE, next_command=HOSTILE)))
    row = next(line for line in text.splitlines() if line.startswith("| REGRESSION"))
    assert row.count("|") == 7
    outside, _, command = text.partition("<pre>")
    assert not re.search(r"<img|@someone|#7|`|\x1b|\x00|\u202e", outside)
    assert not re.search(r"<img|\x1b|\x00|\u202e", command)
    assert len(command.splitlines()) == 4


def test_plain_text_and_paths_are_readable_when_escaped() -> None:
    assert escaped("mean 0.05 at tests/a-b.py::x, 95 %") == "mean 0.05 at tests/a-b.py::x, 95 %"


def test_a_thousand_failures_fit_into_a_comment() -> None:
    verdicts = [make_verdict(number=number, sentence="<" * 1000) for number in range(1000)]
    text = summary_markdown(make_report(*verdicts, problems=("p" * 1000,) * 100))
    assert len(text) < 65_536
    assert "and 975 more" in text


def test_texts_that_are_too_long_for_a_comment_leave_the_headline() -> None:
    verdicts = [make_verdict(number=number, next_command="<" * 20_000) for number in range(3)]
    text = summary_markdown(make_report(*verdicts))
    assert len(text) < 65_536
    assert "3 REGRESSION" in text


def test_a_refresh_says_what_changed_old_to_new() -> None:
    sentence = "demo/test_0: 3 images -> baselines/x.json\nimages: 1 of 3 changed, LPIPS old -> new: mean 0.0100"
    text = summary_markdown(make_report(make_verdict(Outcome.REFRESHED, sentence=sentence)))
    assert "images: 1 of 3 changed, LPIPS old -&gt; new: mean 0.0100\n</pre>" in text


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    write_markdown(tmp_path, make_report(make_verdict()))
    assert [path.name for path in tmp_path.iterdir()] == ["summary.md"]
