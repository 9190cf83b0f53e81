"""How large the report's page is, and how long it takes to write and to open.

A page of synthetic verdicts is written and opened from a folder in Debian's chromium by Playwright. The browser itself
measures how long that takes: from the start of the navigation to the first frame after the page's script has run; the
median of seven windows, each new.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import sync_playwright

from pytest_mxq.reports.html import write_page
from pytest_mxq.reports.records import Report

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
WINDOWS = 7
RUNS = 50
OPENED = (
    """() => new Promise(resolve => requestAnimationFrame(() => setTimeout(() => resolve(performance.now()), 0)))"""
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one page costs."""

    page: str
    cells: int
    megabytes: float
    write_seconds: float
    open_seconds: float
    filter_seconds: float


def measure(browser: Any, name: str, report: Report) -> Figures:
    from page_examples import history_of

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_page(Path(folder), report, history_of(report, RUNS), embed=False)
        written = time.perf_counter() - start
        path = Path(folder, "index.html")
        opened, filtered = zip(*(open_once(browser, path) for _ in range(WINDOWS)), strict=True)
        return Figures(
            page=name,
            cells=len(report.verdicts),
            megabytes=round(path.stat().st_size / 1e6, 2),
            write_seconds=round(written, 2),
            open_seconds=round(median(opened), 3),
            filter_seconds=round(median(filtered), 3),
        )


def open_once(browser: Any, path: Path) -> tuple[float, float]:
    """Return the seconds until a page is open, and those until a filter has been applied."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(path.as_uri())
    opened = page.evaluate(OPENED)
    before = page.evaluate("performance.now()")
    page.evaluate("document.querySelector('[data-filter=format]').click()")
    filtered = page.evaluate(OPENED) - before
    page.close()
    return opened / 1000, filtered / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(SUPPORT))
    from page_examples import night

    pages = {
        f"3 models x 3 formats x 24 prompts x {RUNS} runs": night(),
        f"2,000 cells x 24 prompts x {RUNS} runs": night(cases=45),
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        found = [measure(browser, name, report) for name, report in pages.items()]
        version = browser.version
        browser.close()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    result = {"chromium": version, "machine": machine, "pages": [asdict(figures) for figures in found]}
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
