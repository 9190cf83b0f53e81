"""The progress of timed rounds, told between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TypeAlias

Inspect: TypeAlias = Callable[[], str | None]


@contextmanager
def showing_rounds(
    progress: Callable[[str, int, int], None], label: str, inspect: Inspect, rounds: int
) -> Iterator[Inspect]:
    """Give what judges a round by the machine and then tells the progress: it is asked when no clock runs.

    Args:
        progress: is told.
        label: the work.
        inspect: judges a round by the machine.
        rounds: how many there are at most; voided ones come on top.
    """
    numbers = count(1)

    def inspected() -> str | None:
        found = inspect()
        progress(label, min(next(numbers), rounds - 1), rounds)
        return found

    progress(label, 0, rounds)
    try:
        yield inspected
    finally:
        progress(label, rounds, rounds)
