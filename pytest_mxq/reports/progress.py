"""The progress of long work: one line that is rewritten on a terminal, a line every 30 seconds elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

PAUSE_SECONDS = 30.0
"""Between two lines in a pipe and in CI."""

STAGE_PAUSE_SECONDS = 5.0
"""Before the line of a stage that may last for minutes, such as loading; short runs have one such line."""


def make_progress(config: pytest.Config) -> Progress:
    """Return what shows progress; nothing is shown in an xdist worker and under ``-q``."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if reporter is None or reporter.verbosity < 0 or hasattr(config, "workerinput"):
        return Progress(lambda _text: None, pause=float("inf"))
    uncaptured = nullcontext if capture is None else capture.global_and_fixture_disabled
    if reporter.isatty and not os.environ.get("CI"):
        return Progress(_rewriting(reporter, uncaptured), pause=0.0)
    return Progress(_writing(reporter, uncaptured), pause=PAUSE_SECONDS)


class Progress:
    """Says what is done of the work at hand, and for how long: called between its parts, never while one is timed.

    Args:
        show: shows a text; an empty one takes it away.
        pause: seconds between two texts of the same work.
        now: tells the time in seconds.
    """

    def __init__(self, show: Callable[[str], None], *, pause: float, now: Callable[[], float] = monotonic) -> None:
        self._show = show
        self._pause = pause
        self._now = now
        self._label = ""
        self._started = now()
        self._shown = float("-inf")
        self._until: float | None = None

    def begin(self, seconds: float | None) -> None:
        """Note how long the work of a gate is going to take, all its parts together; None: nothing tells."""
        self._until = None if seconds is None else self._now() + seconds

    def __call__(self, label: str, done: int, total: int) -> None:
        """Tell how far it is.

        Args:
            label: the work, such as "flux.1-dev nvfp4: image".
            done: parts that are done.
            total: all parts; 0 where their number is not known, and the work ends when the next begins.
        """
        now = self._now()
        if label != self._label:
            self._label, self._started = label, now
        if total and done >= total:
            self._label = ""
            self._show("")
        elif now - self._shown >= (self._pause if total else min(self._pause, STAGE_PAUSE_SECONDS)):
            self._shown = now
            left = None if self._until is None or self._until <= now else self._until - now
            self._show(_text(label, done, total, now - self._started, left))


def _text(label: str, done: int, total: int, elapsed: float, gate: float | None = None) -> str:
    """Return one line: which part is at work, how long it has taken, and how long it and its gate may take.

    >>> _text("flux.1-dev nvfp4: image", 6, 24, 90.0)
    'flux.1-dev nvfp4: image 7/24, 1:30 elapsed, about 4:30 left'
    """
    part = f" {done + 1}/{total}" if total else ""
    left = f", about {clock(elapsed * (total - done) / done)} left" if done and total else ""
    whole = "" if gate is None else f"; gate: about {clock(gate)} left"
    return f"{label}{part}{f', {clock(elapsed)} elapsed' if done else ''}{left}{whole}"


def clock(seconds: float) -> str:
    """Return minutes and seconds, and hours where there are any.

    >>> clock(125), clock(3725)
    ('2:05', '1:02:05')
    """
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _rewriting(reporter: Any, uncaptured: Callable[[], Any]) -> Callable[[str], None]:
    def show(text: str) -> None:
        with uncaptured():
            reporter.rewrite(f" {text}" if text else "", erase=True)

    return show


def _writing(reporter: Any, uncaptured: Callable[[], Any]) -> Callable[[str], None]:
    def show(text: str) -> None:
        if text:
            with uncaptured():
                reporter.ensure_newline()
                reporter.write_line(f"mxq: {text}")
                reporter.flush()

    return show
