"""The page's text: what it holds, and that no text of a record becomes markup."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from page_examples import (
    BASELINE,
    HOSTILE,
    STORED,
    ascii_id,
    cell,
    history_of,
    hostile,
    judged,
    measured,
    night,
    report,
    timed,
    unjudged,
)
from PIL import Image

from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.verdict import JudgedOutput, Verdict
from pytest_mxq.reports.html import render, visible, write_page
from pytest_mxq.reports.page_model import MAX_MISSING, Page, build_page
from pytest_mxq.reports.publish import write_unfinished_page
from pytest_mxq.reports.records import Report, Status

RED = judged([0.2, 0.5], Bound(mean=0.13, worst=0.45))
GREEN = judged([0.1, 0.1], Bound(mean=0.13, worst=0.45), where=cell(form="mxfp8"))


class Elements(HTMLParser):
    """Every element of a page with its attributes, and all text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        self.text += "" if self._within in {"script", "style"} else data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page_of(*verdicts: Verdict) -> Page:
    return build_page(report(*verdicts), {})


def text_of(whole: Report) -> str:
    return render(build_page(whole, {}), {})


def bodies_of(text: str) -> list[str]:
    """The details that the page holds packed."""
    found = re.search(r'<script type="application/gzip" id="bodies">(.*?)</script>', text, re.DOTALL)
    assert found
    return gzip.decompress(base64.b64decode(found.group(1))).decode().split("\0")


def data_of(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, object] = json.loads(found.group(1))
    return data


@pytest.mark.parametrize(
    ("verdicts", "headline", "group"),
    [
        ([RED, GREEN], "1 of 2 gates got worse", "bad"),
        ([GREEN], "The gate passed", "good"),
        ([RED, unjudged(Outcome.STALE, "torch")], "1 of 2 gates got worse, 1 could not be judged", "bad"),
        ([GREEN, unjudged(Outcome.MISSING, "none")], "Nothing got worse as far as it was judged; 1 could not be judged of 2 gates", "unclear"),
        ([unjudged(Outcome.SKIPPED, "no device")], "Nothing was judged", "skip"),
        ([replace(RED, outcome=Outcome.KNOWN_REGRESSION)], "Nothing new: 1 known of 1 gate", "good"),
        ([], "Nothing was judged", "skip"),
    ],
)  # fmt: skip
def test_the_headline_answers_what_got_worse(verdicts: list[Verdict], headline: str, group: str) -> None:
    page = page_of(*verdicts)
    assert (page.headline, page.group) == (headline, group)


def test_a_problem_of_the_run_is_never_green() -> None:
    page = build_page(report(GREEN, problems=("a gate was run again",)), {})
    assert page.group != "good"
    assert "a gate was run again" in Elements(render(page, {})).text


def test_failures_come_first_and_every_planned_cell_is_there() -> None:
    whole = night()
    page = build_page(whole, {})
    groups = [view.look.rank for view in page.cells]
    assert groups == sorted(groups)
    assert {view.cell for view in page.cells} == {verdict.cell for verdict in whole.verdicts}
    assert [view.cell.format for view in page.red] == ["nvfp4"] * 3
    assert sum(view is not None for row in page.rows for view in row.cells) == len(whole.verdicts)


def test_what_was_not_run_is_said_once_a_reason_with_its_cells() -> None:
    skips = [unjudged(Outcome.SKIPPED, "no device", where=cell(gate)) for gate in ("lpips", "psnr")]
    page = page_of(*skips, unjudged(Outcome.NOT_RUN, "planned, and did not run", where=cell("ssim")))
    assert {(group.reason, len(group.cells)) for group in page.not_run} == {
        ("no device", 2),
        ("planned, and did not run", 1),
    }


def test_cells_of_one_name_have_anchors_of_their_own() -> None:
    page = page_of(GREEN, replace(GREEN, cell=replace(GREEN.cell, nodeid="other.py::x[mxfp8-lpips]")))
    assert len({view.anchor for view in page.cells}) == 2


def test_a_prompt_stands_beside_its_value_and_seed() -> None:
    [view] = page_of(judged([0.1, 0.3, 0.2], Bound(mean=0.5, worst=None), texts=["a", "b", "c"])).cells
    assert [(row.output.prompt, row.output.seed, row.value) for row in view.outputs] == [
        ("b", 1, "0.3000"),
        ("c", 2, "0.2000"),
        ("a", 0, "0.1000"),
    ]


def test_the_environment_is_compared_field_by_field() -> None:
    older = Fingerprint(hard={**BASELINE.hard, "torch": "2.10.0"}, recorded=BASELINE.recorded)
    moved = replace(GREEN, reference=replace(STORED, fingerprint=older))
    [view] = page_of(moved).cells
    assert [(fact.name, fact.stored, fact.here) for fact in view.environment if fact.differs] == [
        ("torch", "2.10.0", "2.11.0"),
        ("driver", "580.82", "580.95"),
        ("host", "runner-3", "runner-7"),
    ]


def test_a_history_is_shown_with_how_long_it_is_red() -> None:
    whole = report(RED, GREEN)
    red, green = build_page(whole, history_of(whole, 12)).cells
    assert red.history is not None
    assert green.history is not None
    assert (len(red.history.chart.dots), red.history.red, green.history.red) == (12, 12, 0)


@pytest.mark.parametrize("verdict", [RED, timed(), measured(), unjudged(Outcome.ERROR, "broken")])
def test_parts_without_data_are_not_there(verdict: Verdict) -> None:
    [view] = page_of(verdict).cells
    present = [view.strip is not None, view.rounds is not None, bool(view.bars)]
    assert present == [verdict.scores is not None, verdict.speed is not None, verdict.memory is not None]
    assert "Compare BF16" not in text_of(report(verdict))


def test_only_failures_show_without_the_script_and_only_so_many() -> None:
    reds = [replace(RED, cell=replace(RED.cell, case=f"case {index}")) for index in range(25)]
    text = text_of(report(*reds, GREEN))
    assert (text.count("data-later="), len(bodies_of(text))) == (6, 6)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii_id)
def test_no_text_of_a_record_becomes_markup(text: str) -> None:
    page = text_of(hostile(text))
    elements = Elements("".join([page, *bodies_of(page)]))
    scripts = elements.all("script")
    assert [script.get("type") for script in scripts] == ["application/gzip", "application/json", None]
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert {attributes.get("src") for attributes in elements.all("img")} == {None}
    links = [attributes["href"] or "" for attributes in elements.all("a")]
    assert all(link.startswith("#") or ":" not in link for link in links)
    for part in (page, *bodies_of(page)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", part)
    assert "49" not in elements.text.replace("494", "")
    assert [entry["model"] for entry in data_of(page)["cells"]] == [text, text]  # type: ignore[attr-defined]
    assert visible(text) in elements.text


def test_a_prompt_of_10_000_letters_is_whole() -> None:
    text = "a long way " * 1000
    assert text.strip() in Elements(text_of(hostile(text))).text


def test_only_the_page_s_own_script_and_style_may_run() -> None:
    [policy] = [meta["content"] or "" for meta in Elements(text_of(report(RED))).all("meta") if meta.get("http-equiv")]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.search(r"script-src 'sha256-[^ ]+'(;|$)", policy)


def with_images(folder: Path, name: str = "a #1?.png") -> Report:
    (folder / "demo").mkdir()
    for part in ("reference", "quantized"):
        Image.new("RGB", (8, 8)).save(folder / "demo" / f"{part} {name}")
    shown = JudgedOutput(prompt="a", seed=0, reference=f"demo/reference {name}", quantized=f"demo/quantized {name}")
    return report(replace(RED, outputs=(shown, *RED.outputs[1:])))


def sources(text: str) -> Iterator[str]:
    for attributes in Elements(text).all("div"):
        yield from (attributes[name] or "" for name in ("data-reference", "data-quantized") if name in attributes)


def test_images_are_files_beside_the_page_by_relative_addresses(tmp_path: Path) -> None:
    write_page(tmp_path, with_images(tmp_path), {}, embed=False)
    text = (tmp_path / "index.html").read_text()
    found = [unquote(source) for source in sources(text)]
    assert found == ["demo/reference a #1?.png", "demo/quantized a #1?.png"]
    assert all((tmp_path / path).is_file() for path in found)
    assert str(tmp_path) not in text
    assert data_of(text)["embedded"] == {}


def test_images_are_within_the_page_where_that_is_asked_for(tmp_path: Path) -> None:
    write_page(tmp_path, with_images(tmp_path), {}, embed=True)
    text = (tmp_path / "index.html").read_text()
    embedded = data_of(text)["embedded"]
    assert isinstance(embedded, dict)
    assert set(embedded) == set(sources(text))
    assert all(value.startswith("data:image/png;base64,") for value in embedded.values())


def test_what_lies_outside_the_report_is_not_embedded(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    shown = JudgedOutput(prompt="a", seed=0, reference="../secret.png", quantized="../secret.png")
    write_page(folder, report(replace(RED, outputs=(shown, *RED.outputs[1:]))), {}, embed=True)
    assert data_of((folder / "index.html").read_text())["embedded"] == {}


def test_the_page_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_page(tmp_path, report(GREEN), {}, embed=False)
    before = (tmp_path / "index.html").read_bytes()

    def full_disk(_descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_page(tmp_path, report(RED), {}, embed=False)
    assert (tmp_path / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_the_page_of_a_run_that_did_not_finish_says_so_and_lists_what_was_not_judged(status: Status) -> None:
    whole = report(GREEN, RED)
    page = build_page(replace(whole, status=status, verdicts=whole.verdicts[:1]), {})
    assert page.group == "bad"
    assert page.headline.startswith("This run did not finish: 1 of 2 gates were judged")
    assert [view.cell for group in page.not_run for view in group.cells] == [RED.cell]


def test_the_page_of_a_run_is_there_before_it_ends(tmp_path: Path) -> None:
    running = replace(report(GREEN, RED), status="running", verdicts=())
    write_unfinished_page(tmp_path, running)
    assert "did not finish: 0 of 2 gates" in (tmp_path / "index.html").read_text(encoding="utf-8")
    write_unfinished_page(tmp_path / "other", report(GREEN))  # of the finished run another function writes it
    assert not (tmp_path / "other").exists()


def test_what_was_planned_and_has_no_verdict_is_named_by_its_case() -> None:
    part = [cell(gate, case="test_elsewhere") for gate in ("lpips", "ssim")]
    page = build_page(replace(report(RED), planned=(RED.cell, *part)), {})
    assert page.missing == (("flux.1-dev test_elsewhere", "nvfp4 lpips, nvfp4 ssim"),)
    assert "Planned, and missing from this report" in render(page, {})
    assert build_page(report(RED), {}).missing == ()


def test_hundreds_of_missing_cases_are_counted() -> None:
    part = [cell(case=f"test_{index}") for index in range(200)]
    page = build_page(replace(report(), planned=tuple(part)), {})
    assert page.missing[-1] == ("and more", f"{200 - MAX_MISSING} cases")


def test_the_first_screen_says_what_the_cases_were_held_against() -> None:
    stored = replace(GREEN, reference=STORED)
    live = replace(RED, cell=cell(case="other"), reference=replace(STORED, mode="live", reason="other hardware"))
    facts = dict(build_page(report(stored, live), {}).facts)
    assert facts["reference"] == "auto: stored for 1 of 2 cases, live for 1 of 2 cases"
    assert not facts["baselines"].endswith("not used")
    facts = dict(build_page(report(live), {}).facts)
    assert (facts["reference"], facts["baselines"][-8:]) == ("auto: live", "not used")


def test_a_case_is_named_where_its_model_has_several() -> None:
    several = report(RED, replace(GREEN, cell=cell(form="mxfp8", case="other")))
    assert "test_flux" in Elements(text_of(several)).text.partition("Every gate")[0]
    assert "test_flux" not in Elements(text_of(report(RED, GREEN))).text.partition("Every gate")[0]


def test_a_wide_matrix_has_the_width_of_the_page() -> None:
    assert '<div class="first wide">' in text_of(night(models=1, formats=3, count=2))
    assert '<div class="first">' in text_of(report(RED))


def test_a_cell_that_was_not_judged_has_no_empty_parts() -> None:
    text = text_of(report(unjudged(Outcome.ERROR, "broken")))
    assert "Is it real?" not in text
    assert '<div class="columns one">' in text
    assert "Is it real?" in text_of(report(RED))
