"""Saves of a baseline that are killed at chosen points, and what they leave.

A point is a line of `pytest_mxq.baselines` or of filelock that runs from the first write on. As a script it prints one
JSON line of counts: `python killed_saves.py FOLDER POINTS`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from baseline_examples import CASE, DEVICE, NEW, OLD, make_draft, make_images, stored_shades

from pytest_mxq.baselines.store import BaselineStore

_TRACED = (f"{os.sep}pytest_mxq{os.sep}baselines{os.sep}", f"{os.sep}filelock{os.sep}")


class _Tracer:
    """Counts the lines that run from `BaselineStore._write` on, and kills the process at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self.lines = 0
        self._is_writing = False
        self._kill_at = kill_at

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        self._is_writing |= frame.f_code.co_name == "_write" and "store.py" in frame.f_code.co_filename
        return self._line if any(part in frame.f_code.co_filename for part in _TRACED) else None

    def _line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and self._is_writing:
            if self.lines == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.lines += 1
        return self._line


def count_lines(folder: Path) -> int:
    """Return how many lines a save runs from its first write on."""
    tracer = _Tracer(None)
    _save_new(folder, tracer)
    return tracer.lines


def kill_at(folder: Path, line: int) -> Counter[str]:
    """Kill a save of new images over old ones at a line, and save once more.

    Returns:
        Counts of one point: whose images were found ("old", "new" or "broken"), "killed", files left by the kill
        ("hidden_after_kill"), and files that the next save left over ("left_over").
    """
    store = BaselineStore(folder, media=None, device=DEVICE)
    store.save(make_draft(), make_images(OLD))
    pid = os.fork()
    if pid == 0:
        _save_new(folder, _Tracer(line))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    found = _found(store)
    hidden = len(_hidden(folder))
    saved = store.save(make_draft(), make_images(NEW))
    named = {store.manifest_path("demo", CASE).name, *(output.file for output in saved.outputs)}
    left_over = [path for path in folder.rglob("*") if path.is_file() and path.name not in named]
    return Counter(
        {
            found: 1,
            "killed": int(os.WIFSIGNALED(status)),
            "hidden_after_kill": hidden,
            "left_over": len(left_over),
            "new_after_next_save": int(_found(store) == "new"),
        }
    )


def measure(folder: Path, points: int) -> dict[str, int]:
    """Kill saves at points spread evenly over all lines; return the counts of all of them."""
    BaselineStore(folder, media=None, device=DEVICE).save(make_draft(), make_images(OLD))
    lines = count_lines(folder)
    total: Counter[str] = Counter()
    for point in range(points):
        total += kill_at(folder, point * lines // points)
    names = ("killed", "old", "new", "broken", "hidden_after_kill", "left_over", "new_after_next_save")
    return {"lines": lines, "points": points} | {name: total[name] for name in names}


def _save_new(folder: Path, tracer: _Tracer) -> None:
    store = BaselineStore(folder, media=None, device=DEVICE)
    sys.settrace(tracer)
    try:
        store.save(make_draft(), make_images(NEW))
    finally:
        sys.settrace(None)


def _found(store: BaselineStore) -> str:
    try:
        shades = stored_shades(store)
    except Exception:  # noqa: BLE001  whatever it is, the baseline is broken
        return "broken"
    return "old" if shades == OLD else "new" if shades == NEW else "broken"


def _hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file()]


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201
