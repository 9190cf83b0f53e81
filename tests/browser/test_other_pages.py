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
from pytest_mxq.reports.media_copies import write_wav, write_webm
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
    window = show(written(tmp_path, report(replace(RED, scores=scores, outputs=(shown,)))))
    page = window.page
    videos = page.locator("video")
    window.wait_until("[...document.querySelectorAll('video')].every(video => video.readyState >= 2)")
    box = page.locator(".frames svg").bounding_box()
    page.locator(".frames svg").click(position={"x": box["width"] * 0.75, "y": 20})
    window.wait_until(
        "[...document.querySelectorAll('video')].every(video => !video.seeking && video.currentTime > 1.4)"
    )
    times = videos.evaluate_all("all => all.map(video => video.currentTime)")
    assert times == pytest.approx([1.5, 1.5], abs=0.05)
    videos.first.evaluate("video => video.play()")
    window.wait_until("!document.querySelectorAll('video')[1].paused")


def test_a_dot_beyond_the_worst_opens_its_pair_and_says_that_it_is_compressed(show: Show, tmp_path: Path) -> None:
    verdict = judged([0.2, 0.5, 0.3], Bound(mean=0.13, worst=0.45))
    outputs = []
    for index, (output, kind) in enumerate(zip(verdict.outputs, ("jpg", "png", "jpg"), strict=True)):
        files = {name: f"{index}-{name}.{kind}" for name in ("reference", "quantized")}
        for name in files.values():
            Image.new("RGB", (48 + index, 32)).save(tmp_path / name)
        outputs.append(replace(output, **files))  # type: ignore[arg-type]
    page = show(written(tmp_path, report(replace(verdict, outputs=tuple(outputs)))), width=400).page
    assert page.locator(".picks .pick").count() == 0
    page.locator('.strip .dot[data-index="0"]').click()
    image = page.locator(".pane.quantized img")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 48
    assert page.locator(".compare .said").inner_text() == outputs[0].prompt
    assert page.locator(".stage").evaluate("stage => stage.getBoundingClientRect().top") < 900
    page.keyboard.press("4")
    assert page.locator(".both").inner_text().endswith("of compressed copies")
    page.locator('.strip .dot[data-index="1"]').click()
    assert not page.locator(".both .copied").is_visible()


def test_of_two_recordings_one_plays_and_goes_on_where_the_other_stood(show: Show, tmp_path: Path) -> None:
    tone = np.sin(np.arange(32_000) / 20, dtype=np.float32)[None]
    video = Video(frames=np.zeros((1, 8, 8, 3), np.uint8), frame_rate=8.0, audio=tone, sample_rate=8_000)
    files: dict[str, str] = {}
    for arm in ("reference", "quantized"):
        files |= {arm: f"{arm}.png", f"{arm}_audio": f"{arm}.wav"}
        Image.new("RGB", (48, 32)).save(tmp_path / f"{arm}.png")
        write_wav(tmp_path / f"{arm}.wav", video)
    scores = summarize([0.9], higher_is_better=False)
    shown = JudgedOutput(prompt="a", seed=0, **files)  # type: ignore[arg-type]
    window = show(written(tmp_path, report(replace(RED, scores=scores, outputs=(shown,)))))
    window.press("j")
    players = window.page.locator(".players.audio audio")
    assert players.count() == 2
    players.nth(0).evaluate("audio => audio.play()")
    window.wait_until("document.querySelector('audio').currentTime > 0.3")
    players.nth(1).evaluate("audio => audio.play()")
    window.wait_until("document.querySelectorAll('audio')[1].currentTime > 0.3")
    assert players.evaluate_all("all => all.map(audio => audio.paused)") == [True, False]
    assert window.violations() == []
