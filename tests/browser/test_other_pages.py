"""Pages of synthetic reports in a browser: hostile texts, many cells, images within, pages that pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from page_examples import HOSTILE, ascii_id, cell, history_of, hostile, judged, measured, night, report, timed, unjudged
from page_window import Window
from PIL import Image

from pytest_mxq.baselines.video import Video
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.scores import summarize
from pytest_mxq.gates.verdict import JudgedOutput
from pytest_mxq.reports.html import write_page
from pytest_mxq.reports.media_copies import write_webm
from pytest_mxq.reports.records import Report

Show: TypeAlias = Callable[..., Window]
MEGABYTE = 1_000_000
RED = judged([0.2, 0.5], Bound(mean=0.13, worst=0.45))


def written(folder: Path, whole: Report, *, runs: int = 0, embed: bool = False) -> str:
    write_page(folder, whole, history_of(whole, runs) if runs else {}, embed=embed)
    return (folder / "index.html").as_uri()


@pytest.mark.parametrize("text", [*HOSTILE, "long " * 2000], ids=ascii_id)
def test_hostile_texts_run_nothing_and_break_nothing(show: Show, tmp_path: Path, text: str) -> None:
    whole = hostile(text)
    [red, *_] = whole.verdicts
    bare = tuple(replace(output, reference=None, quantized=None, lpips_map=None) for output in red.outputs)
    address = written(tmp_path, replace(whole, verdicts=(replace(red, outputs=bare), *whole.verdicts[1:])))
    window = show(address, width=400)
    window.press("j")
    for summary in window.page.locator("details:not([open]) > summary").all():
        if summary.is_visible():
            summary.click()
    window.page.mouse.move(200, 300)
    assert window.page.evaluate("typeof pwned") == "undefined"
    assert window.page.locator("img[src=x], svg[onload]").count() == 0
    assert window.overflow == 0
    for button in window.page.locator("[data-filter]").all():
        button.click()
    assert show(f"{address}{window.hash}").hash == window.hash


def test_a_night_of_three_models_with_fifty_runs_is_below_2_mb(show: Show, tmp_path: Path) -> None:
    window = show(written(tmp_path, night(), runs=50))
    assert (tmp_path / "index.html").stat().st_size < 2 * MEGABYTE
    assert len(window.visible_cells()) == 45


def test_a_night_is_accessible_and_fits(show: Show, tmp_path: Path) -> None:
    whole = replace(night(models=1, formats=2, count=6), problems=("a problem",), cautions=("a caution",))
    window = show(written(tmp_path, whole, runs=12), width=400)
    window.page.evaluate("document.querySelectorAll('details.cell').forEach(details => { details.open = true; })")
    window.page.wait_for_timeout(200)
    assert window.overflow == 0
    assert window.violations() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_kind_of_verdict_can_be_read(show: Show, tmp_path: Path, scheme: str) -> None:
    kinds = [
        replace(RED, cell=cell(case=f"case_{outcome.name.lower()}"), outcome=outcome, cautions=("a caution",))
        for outcome in Outcome
    ]
    whole = report(*kinds, timed(), measured(), unjudged(Outcome.ERROR, "broken", where=cell("ssim")))
    window = show(written(tmp_path, whole, runs=12), scheme=scheme)
    window.page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    window.page.wait_for_timeout(200)
    assert window.violations() == []


def test_a_page_without_verdicts_and_one_that_passes_are_whole(show: Show, tmp_path: Path) -> None:
    empty = show(written(tmp_path / "a", report()))
    assert empty.page.inner_text("h1") == "Nothing was judged"
    assert empty.violations() == []
    passing = show(written(tmp_path / "b", report(measured())), width=400)
    assert passing.page.inner_text("h1") == "The gate passed"
    assert passing.open_cells() == []
    passing.press("j", "1", "b", "n")
    assert passing.violations() == []


def test_images_within_the_page_are_shown(show: Show, tmp_path: Path) -> None:
    for part, colour in (("reference", "red"), ("quantized", "blue")):
        Image.new("RGB", (48, 32), colour).save(tmp_path / f"{part} #1.png")
    shown = JudgedOutput(prompt="a", seed=0, reference="reference #1.png", quantized="quantized #1.png")
    address = written(tmp_path, report(replace(RED, outputs=(shown, *RED.outputs[1:]))), embed=True)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    page = show(address).page
    for part in ("reference", "quantized"):
        assert (
            page.locator(f".pane.{part} img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 48
        )


def test_a_stale_case_is_accepted_by_the_command_that_refreshes_it(show: Show, tmp_path: Path) -> None:
    stale = [unjudged(Outcome.STALE, "torch 2.10 -> 2.11", where=cell(gate)) for gate in ("lpips", "psnr")]
    page = show(written(tmp_path, report(*stale))).page
    for box in page.locator("summary").all():
        if box.evaluate("summary => summary.parentElement.matches('.cell:not([open])')"):
            box.click()
    for box in page.locator(".accept input").all():
        box.check()
    expected = "pytest 'tests/gates/test_flux.py::test_flux[bf16-refresh]' --mxq-refresh"
    assert page.inner_text(".accepting pre") == expected


def test_videos_play_in_step_and_a_click_on_the_curve_seeks(show: Show, tmp_path: Path) -> None:
    frames = np.zeros((16, 32, 48, 3), dtype=np.uint8)
    frames[8:] = 200
    names = ("reference", "quantized")
    for name in names:
        write_webm(tmp_path / f"{name}.webm", Video(frames=frames, frame_rate=8.0))
        Image.new("RGB", (48, 32)).save(tmp_path / f"{name}.png")
    scores = summarize([0.1] * 15 + [0.9], higher_is_better=False, frames=16)
    files = {name: f"{name}.png" for name in names} | {f"{name}_video": f"{name}.webm" for name in names}
    shown = JudgedOutput(prompt="a", seed=0, frame=15, **files)  # type: ignore[arg-type]
    page = show(written(tmp_path, report(replace(RED, scores=scores, outputs=(shown,))))).page
    videos = page.locator("video")
    page.wait_for_function("[...document.querySelectorAll('video')].every(video => video.readyState >= 2)")
    box = page.locator(".frames svg").bounding_box()
    page.locator(".frames svg").click(position={"x": box["width"] * 0.75, "y": 20})
    page.wait_for_function(
        "[...document.querySelectorAll('video')].every(video => !video.seeking && video.currentTime > 1.4)"
    )
    times = videos.evaluate_all("all => all.map(video => video.currentTime)")
    assert times == pytest.approx([1.5, 1.5], abs=0.05)
    videos.first.evaluate("video => video.play()")
    page.wait_for_function("!document.querySelectorAll('video')[1].paused")
