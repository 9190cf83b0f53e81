"""The page of a real run of the demo with regressions, used in a browser as people use it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from page_window import Window
from PIL import Image, ImageChops
from unmeasured import without_coverage

ROOT = Path(__file__).parents[2]
GATES = """
import pytest


@pytest.mark.mxq("demo", prompts=2, batch_size=2)
@pytest.mark.mxq_lpips(max=0.0001, worst=0.001)
@pytest.mark.mxq_psnr(min=70)
@pytest.mark.mxq_ssim(min=0.5)
def test_demo(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt, num_inference_steps=1)
"""
LPIPS, PSNR, SSIM = (f"demo-test_demo-nvfp4-{gate}" for gate in ("lpips", "psnr", "ssim"))
COMPARE = f"#{LPIPS} .compare"

Show: TypeAlias = Callable[..., Window]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A run in a process of its own, as a user runs it."""
    project = tmp_path_factory.mktemp("demo")
    (project / "pytest.ini").write_text("[pytest]\n")
    (project / "test_demo.py").write_text(GATES)
    options = ("-p", "no:cacheprovider", f"--rootdir={project}", "--mxq-formats=nvfp4", "--mxq-emulate")
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "PYTEST_ADDOPTS"}}
    with without_coverage():
        return subprocess.run(
            [sys.executable, "-m", "pytest", str(project), *options, f"--mxq-report={project / 'mxq-report'}"],
            cwd=project,
            env={**kept, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def folder(done: subprocess.CompletedProcess[str]) -> Path:
    """The run's report."""
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    return Path(done.args[-1].removeprefix("--mxq-report="))


@pytest.fixture
def address(folder: Path) -> str:
    return (folder / "index.html").as_uri()


def read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def test_wrong_bounds_turn_the_run_red_with_images(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    verdicts = json.loads((folder / "report.json").read_text())["verdicts"]
    outcomes = {verdict["cell"]["gate"]: verdict["outcome"] for verdict in verdicts}
    assert outcomes == {"lpips": "regression", "psnr": "regression", "ssim": "pass"}
    assert "\ndemo nvfp4 (emulated) lpips   mean 0." in done.stdout
    assert len(list(folder.rglob("nvfp4/*-sheet.png"))) == 2  # one for each prompt


def test_the_first_screen_answers_without_scrolling(show: Show, address: str) -> None:
    page = show(address).page
    assert page.inner_text("h1") == "2 of 3 gates got worse"
    for selector in ("h1", ".counts", ".red li:last-child", ".matrix tbody tr", ".facts"):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] <= 900, selector
    assert "mean" in page.inner_text(".red li:first-child .sentence")


def test_images_load_and_the_slider_uncovers_the_quantized_one(show: Show, address: str) -> None:
    window = show(address)
    window.wait_until(f"document.querySelector('{COMPARE} .pane.quantized img').naturalWidth > 0")
    panes = window.page.locator(f"{COMPARE} .panes")
    before = panes.screenshot()
    slider = window.page.locator(f"{COMPARE} .slide input")
    slider.focus()
    window.press(*["ArrowRight"] * 20)
    assert slider.input_value() == "70"
    assert panes.screenshot() != before
    window.page.locator(f"{COMPARE} .stage").scroll_into_view_if_needed()
    box = window.page.locator(f"{COMPARE} .stage").bounding_box()
    window.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 50)
    window.page.mouse.down()
    window.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
    window.page.mouse.up()
    assert slider.input_value() == "25"


def test_blink_shows_the_other_arm_with_its_name_while_the_key_is_held(show: Show, address: str) -> None:
    window = show(address)
    window.press("3")
    arm = window.page.locator(f"{COMPARE} .pane.quantized .arm")
    assert not arm.is_visible()
    window.page.keyboard.down("b")
    assert arm.is_visible()
    assert arm.inner_text() == "nvfp4 (emulated)"
    window.page.keyboard.up("b")
    assert not arm.is_visible()
    assert window.page.locator(f"{COMPARE} .pane.reference .arm").inner_text() == "BF16 reference"


def test_the_lpips_map_is_shown_and_hidden(show: Show, address: str) -> None:
    window = show(address)
    pane = window.page.locator(f"{COMPARE} .pane.map")
    window.press("5")
    assert pane.is_visible()
    assert pane.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert pane.locator(".arm").inner_text().startswith("LPIPS map, brightest 0.")
    window.press("2")
    assert not pane.is_visible()


def test_the_difference_is_four_times_that_of_the_files(show: Show, address: str, folder: Path) -> None:
    window = show(address)
    window.press("4")
    source = window.page.locator(f"{COMPARE} .source").first
    names = [str(source.get_attribute(f"data-{part}")) for part in ("reference", "quantized")]
    pair = [read(folder / name) for name in names]
    difference = ImageChops.difference(*pair).point([min(255, 4 * level) for level in range(256)] * 3)
    top = difference.crop((0, 0, difference.width, difference.height // 2))  # the label covers a part below
    levels = list(top.convert("L").tobytes())
    y, x = divmod(levels.index(max(levels)), top.width)
    for part in ("reference", "quantized"):
        window.page.locator(f"{COMPARE} .pane.{part} img").evaluate("image => image.decode()")
    window.page.locator(f"{COMPARE} .stage").scroll_into_view_if_needed()
    shown = Image.open(io.BytesIO(window.page.locator(f"{COMPARE} .panes").screenshot())).convert("RGB")
    scale = shown.width / difference.width
    found, expected = shown.getpixel((int((x + 0.5) * scale), int((y + 0.5) * scale))), difference.getpixel((x, y))
    assert found == pytest.approx(expected, abs=6)


def test_zoom_and_pan_move_both_arms_in_step(show: Show, address: str) -> None:
    window = show(address)
    window.press("2", "+", "+")
    panes = [f"{COMPARE} .pane.{part} img" for part in ("reference", "quantized")]
    box = window.page.locator(f"{COMPARE} .stage").bounding_box()
    window.page.mouse.move(box["x"] + 200, box["y"] + 150)
    window.page.mouse.down()
    window.page.mouse.move(box["x"] + 120, box["y"] + 90)
    window.page.mouse.up()
    moved = [window.style(pane, "transform") for pane in panes]
    assert moved == ["matrix(4, 0, 0, 4, -80, -60)"] * 2
    assert window.style(panes[0], "imageRendering") == "pixelated"
    window.press("0")
    assert window.style(panes[0], "transform") == "matrix(1, 0, 0, 1, 0, 0)"


def test_j_and_k_walk_the_failures_and_open_them(show: Show, address: str) -> None:
    window = show(address)
    seen = []
    for key in ("j", "j", "j", "k"):
        window.press(key)
        seen.append(window.hash.removeprefix("#cell="))
        assert seen[-1] in window.open_cells()
        assert window.page.evaluate("document.activeElement.parentElement.id") == seen[-1]
    assert seen == [LPIPS, PSNR, LPIPS, PSNR]


def test_a_dot_and_a_row_open_their_pair(show: Show, address: str) -> None:
    window = show(address)
    said = window.page.locator(f"{COMPARE} .said")
    first = said.inner_text()
    window.press("n")
    second = said.inner_text()
    assert first != second
    window.page.locator(f"#{LPIPS} .strip .dot").first.click()
    assert said.inner_text() == first
    window.page.locator(f"#{LPIPS} .values .pick").nth(1).press("Enter")
    assert said.inner_text() == second
    assert window.page.locator(f"#{LPIPS} .values tr.current").count() == 1


def test_a_shared_link_shows_what_was_seen(show: Show, address: str) -> None:
    window = show(address)
    window.page.click('.filters [data-value="psnr"]')
    window.press("j", "n", "3")
    copied = window.hash
    image = window.page.locator(f"#{PSNR} .compare").get_attribute("data-image")
    other = show(f"{address}{copied}")
    assert other.visible_cells() == [cell for cell in window.visible_cells() if cell.endswith("psnr")]
    assert PSNR in other.open_cells()
    compare = other.page.locator(f"#{PSNR} .compare")
    assert (compare.get_attribute("data-image"), compare.get_attribute("data-mode")) == (image, "blink")
    assert other.page.locator('.filters [data-value="psnr"]').get_attribute("aria-pressed") == "true"


def test_a_link_to_a_cell_opens_it_though_it_passed(show: Show, address: str) -> None:
    window = show(f"{address}#{SSIM}")
    assert SSIM in window.open_cells()
    assert window.page.locator(f"#{SSIM} .compare img").first.is_visible()


def test_filters_leave_what_they_name(show: Show, address: str) -> None:
    window = show(address)
    window.page.locator('.counts [data-value="pass"]').press("Enter")
    assert window.visible_cells() == [SSIM]
    assert window.page.inner_text(".count") == "1 of 3 shown"
    window.page.locator('.counts [data-value="pass"]').press("Enter")
    assert len(window.visible_cells()) == 3


def test_accepted_cells_become_lines_to_paste(show: Show, address: str) -> None:
    window = show(address)
    window.page.check(f"#{LPIPS} .accept input")
    window.press("j", "j")
    window.page.check(f"#{PSNR} .accept input")
    text = window.page.inner_text(".accepting pre")
    assert 'mxq_lpips(max={"nvfp4-emulated": ' in text
    assert 'mxq_psnr(min={"nvfp4-emulated": ' in text
    window.page.click(".accepting .clear")
    assert not window.page.locator(".accepting").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_is_accessible_and_fits_with_every_part_open(show: Show, address: str, width: int, scheme: str) -> None:
    window = show(address, width=width, scheme=scheme)
    window.page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    window.page.wait_for_timeout(100)
    window.page.check(f"#{LPIPS} .accept input")
    assert window.overflow == 0
    assert window.violations() == []


def test_printing_opens_the_failures(show: Show, address: str) -> None:
    window = show(address)
    window.page.emulate_media(media="print")
    assert len(window.page.pdf()) > 10_000
    assert set(window.open_cells()) == {LPIPS, PSNR}


def test_without_its_script_it_still_shows_the_failures(browser: object, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)  # type: ignore[attr-defined]
    page = context.new_page()
    page.goto(address)
    assert "90 % are not beyond" in page.inner_text(f"#{LPIPS}")
    context.close()


def test_the_report_holds_a_map_and_both_images_of_each_shown_output(folder: Path) -> None:
    verdicts = json.loads((folder / "report.json").read_text())["verdicts"]
    shown = [output for verdict in verdicts for output in verdict["outputs"] if output["quantized"]]
    assert len(shown) == 2 * 2 + 1
    for output in shown:
        sizes = {read(folder / output[part]).size for part in ("reference", "quantized", "lpips_map")}
        assert len(sizes) == 1
