"""The bounds that the gates of this repository state, read from their markers."""

from __future__ import annotations

import runpy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

GATES = Path(__file__).parents[1] / "gates"


def read_marker(marks: Iterable[Any], name: str) -> dict[str, Any]:
    """The arguments of the one marker of a name."""
    (mark,) = (getattr(mark, "mark", mark) for mark in marks if mark.name == name)
    return dict(mark.kwargs)


def marks_of_images(file: str, test: str) -> list[Any]:
    """The markers of a test of images, of one of the gates' files."""
    return list(runpy.run_path(str(GATES / file))[test].pytestmark)


def marks_by_batch_size(file: str, test: str) -> Iterator[tuple[int, list[Any]]]:
    """Each batch size of a test of speed and memory, and its markers."""
    (parametrized,) = runpy.run_path(str(GATES / file))[test].pytestmark
    for parameters in parametrized.args[1]:
        yield parameters.values[0], list(parameters.marks)
