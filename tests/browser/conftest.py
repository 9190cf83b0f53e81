"""A browser for the report's page: Debian's chromium, which Playwright drives; without either the tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from page_window import Window


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Window]]:
    """Open pages in windows of their own; afterwards none of them may have met an error or asked the network."""
    windows: list[Window] = []

    def open_window(address: str, *, width: int = 1400, scheme: str = "light") -> Window:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        window = Window(page)
        windows.append(window)
        page.goto(address)
        return window

    yield open_window
    for window in windows:
        window.page.close()
    assert [fault for window in windows for fault in window.faults] == []
