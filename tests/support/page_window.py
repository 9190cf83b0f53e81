"""A browser's window that shows the report's page, and what went wrong in it."""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any


class Window:
    """One window.

    Attributes:
        page: Playwright's page.
        faults: errors of the console and of the script, dialogs, and requests that are no file and no data.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", self._note_dialog)
        page.on("request", self._note_request)

    def _note_message(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(message.text)

    def _note_dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.faults.append(f"request: {request.url[:200]}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def wait_until(self, expression: str, seconds: float = 30.0) -> None:
        """Wait until a JavaScript expression is true. Playwright's own polling needs `eval`, which the page forbids."""
        end = monotonic() + seconds
        while not self.page.evaluate(expression):
            assert monotonic() < end, f"not true within {seconds:.0f} s: {expression}"
            sleep(0.02)

    def style(self, selector: str, name: str) -> str:
        value = self.page.eval_on_selector(selector, "(element, name) => getComputedStyle(element)[name]", name)
        return str(value)

    def open_cells(self) -> list[str]:
        """Anchors of the cells that are open."""
        return list(self.page.eval_on_selector_all("details.cell[open]", "all => all.map(cell => cell.id)"))

    def visible_cells(self) -> list[str]:
        """Anchors of the cells that no filter hides."""
        return list(self.page.eval_on_selector_all("details.cell:not([hidden])", "all => all.map(cell => cell.id)"))

    @property
    def hash(self) -> str:
        return str(self.page.evaluate("location.hash"))

    @property
    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def violations(self) -> list[str]:
        """What axe-core finds against the rules of accessibility, as "rule: element"."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]
