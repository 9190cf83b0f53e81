"""Lets the suite run pytest inside pytest, and in several workers at once."""

import gc
import os

pytest_plugins = ["pytester"]

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Workers that each take all cores wait for each other at every operation, many times as long as they compute.
    # torch reads this when it is first imported, which is later.
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))


def pytest_collection_finish() -> None:
    """Freeze what was imported and collected: else each release of an arm looks through all of it, 0.2 s a time."""
    gc.collect()
    gc.freeze()
