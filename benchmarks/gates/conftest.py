"""Says after the gates how much of the run was generation: calls of the pipeline at their settled speed."""

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest

START = time.perf_counter()
CALLS: dict[int, list[float]] = {}


def timing(call: Any) -> Any:
    """Time every call of a pipeline from outside; the synchronisation adds nothing, since another one follows."""

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        start = time.perf_counter()
        result = call(self, *args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        CALLS.setdefault(id(self.pipe), []).append(time.perf_counter() - start)
        return result

    return timed


@pytest.fixture(autouse=True, scope="session")
def generation_is_counted() -> Iterator[None]:
    from pytest_mxq.pipelines.generate import BoundPipeline, TimedPipeline

    with pytest.MonkeyPatch.context() as patch:
        for kind in (BoundPipeline, TimedPipeline):
            patch.setattr(kind, "__call__", timing(kind.__call__))
        yield


def pytest_terminal_summary(terminalreporter: Any) -> None:
    wall = time.perf_counter() - START
    settled = sum(len(seconds) * median(seconds) for seconds in CALLS.values())
    first = sum(seconds[0] for seconds in CALLS.values())
    calls = sum(map(len, CALLS.values()))
    if calls:
        terminalreporter.write_line(
            f"generation: {calls} calls, {settled:.1f} s at settled speed of {wall:.1f} s wall "
            f"({1 - settled / wall:.0%} is not generation); first calls of {len(CALLS)} arms {first:.1f} s"
        )
