from types import SimpleNamespace
from typing import Any

import pytest

from pytest_mxq.reports.progress import PAUSE_SECONDS, Progress, make_progress


class Shown:
    """What a progress shows, by a clock of its own."""

    def __init__(self, pause: float) -> None:
        self.texts: list[str] = []
        self.seconds = 0.0
        self.progress = Progress(self.texts.append, pause=pause, now=lambda: self.seconds)

    def after(self, seconds: float, label: str, done: int, total: int) -> None:
        self.seconds += seconds
        self.progress(label, done, total)


def test_a_terminal_shows_each_part_with_what_it_took_and_what_is_left() -> None:
    shown = Shown(pause=0)
    shown.after(0, "flux.1-dev: loading", 0, 0)
    for done in range(3):
        shown.after(10, "flux.1-dev nvfp4: image", done, 3)
    shown.after(10, "flux.1-dev nvfp4: image", 3, 3)
    assert shown.texts == [
        "flux.1-dev: loading",
        "flux.1-dev nvfp4: image 1/3",
        "flux.1-dev nvfp4: image 2/3, 0:10 elapsed, about 0:20 left",
        "flux.1-dev nvfp4: image 3/3, 0:20 elapsed, about 0:10 left",
        "",
    ]


def test_what_is_left_of_the_gate_is_told_until_its_estimate_has_passed() -> None:
    shown = Shown(pause=0)
    shown.progress.begin(100.0)
    shown.after(20, "flux.1-dev nvfp4: loading", 0, 0)
    shown.after(10, "flux.1-dev nvfp4: image", 0, 3)
    shown.after(75, "flux.1-dev nvfp4: image", 1, 3)
    shown.progress.begin(None)
    shown.after(1, "flux.1-dev mxfp8: image", 0, 3)
    assert [text.rpartition("; ")[2] for text in shown.texts[:2]] == ["gate: about 1:20 left", "gate: about 1:10 left"]
    assert not [text for text in shown.texts[2:] if "gate" in text]


def test_a_pipe_gets_a_line_every_thirty_seconds() -> None:
    shown = Shown(pause=PAUSE_SECONDS)
    for done in range(100):
        shown.after(1, "demo nvfp4: image", done, 100)
    assert [text.partition(",")[0] for text in shown.texts] == [f"demo nvfp4: image {n}/100" for n in (1, 31, 61, 91)]


def test_a_stage_that_may_last_for_minutes_is_told_in_a_pipe_when_it_begins() -> None:
    shown = Shown(pause=PAUSE_SECONDS)
    shown.after(0, "flux.1-dev: loading", 0, 0)
    shown.after(8, "flux.1-dev nvfp4: quantizing", 0, 0)
    shown.after(1, "flux.1-dev nvfp4: compiling and warming up", 0, 0)
    assert shown.texts == ["flux.1-dev: loading", "flux.1-dev nvfp4: quantizing"]


def config(*, isatty: bool, verbosity: int = 0, **fields: Any) -> Any:
    written: list[str] = []
    reporter = SimpleNamespace(
        isatty=isatty,
        verbosity=verbosity,
        rewrite=lambda text, erase: written.append(f"rewrite{text}"),
        write_line=written.append,
        ensure_newline=lambda: None,
        flush=lambda: None,
    )
    plugins = {"terminalreporter": reporter}
    return SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin=plugins.get), written=written, **fields)


@pytest.mark.parametrize(
    ("isatty", "ci", "expected"),
    [
        (True, "", ["rewrite demo: image 1/2", "rewrite"]),
        (True, "true", ["mxq: demo: image 1/2"]),
        (False, "", ["mxq: demo: image 1/2"]),
    ],
    ids=["terminal", "CI", "pipe"],
)
def test_a_terminal_rewrites_one_line_and_a_pipe_gets_lines(
    monkeypatch: pytest.MonkeyPatch, isatty: bool, ci: str, expected: list[str]
) -> None:
    monkeypatch.setenv("CI", ci)
    made = config(isatty=isatty)
    progress = make_progress(made)
    progress("demo: image", 0, 2)
    progress("demo: image", 2, 2)
    assert made.written == expected


@pytest.mark.parametrize(
    "made", [config(isatty=True, verbosity=-1), config(isatty=True, workerinput={})], ids=["-q", "worker"]
)
def test_nothing_is_shown_under_q_and_in_a_worker(made: Any) -> None:
    make_progress(made)("demo: image", 0, 2)
    assert made.written == []
