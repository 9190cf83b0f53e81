"""The progress line while outputs are generated."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def make_progress(config: pytest.Config) -> Callable[[str, int, int], None]:
    """Return what shows progress: a line on a terminal; nothing in CI, in a pipe, or in a worker."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if reporter is None or not reporter.isatty or os.environ.get("CI"):
        return lambda _label, _done, _total: None

    def progress(label: str, done: int, total: int) -> None:
        text = f" {label} {done}/{total}" if done < total else ""
        if capture is None:
            reporter.rewrite(text, erase=True)
            return
        with capture.global_and_fixture_disabled():
            reporter.rewrite(text, erase=True)

    return progress
