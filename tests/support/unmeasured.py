"""Tests of whole gates without coverage: what they run is measured in the tests of each part, at half of the time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def without_coverage() -> Iterator[None]:
    """Pause coverage in this process, and start none in those that it starts.

    On Python 3.11 and 3.12 coverage traces every line of torch and diffusers too, only to leave it out: a generated
    image costs nearly twice as much.
    """
    coverage = sys.modules.get("coverage")
    measuring = coverage.Coverage.current() if coverage else None
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
            patch.delenv(name, raising=False)
        if measuring:
            measuring.stop()
        yield
        if measuring:
            measuring.start()
