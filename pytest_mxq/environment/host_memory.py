"""Free host memory: of the machine, or of the container that the process runs in."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CONTROL_GROUP = Path("/sys/fs/cgroup")  # of a container, where the system has version 2 of control groups


def available_bytes() -> int | None:
    """Return how much can be allocated without swapping, bytes; None where the system does not tell.

    Of a container it is its limit less what cannot be dropped; the pages of files that were read can be.
    """
    free = _numbers(MEMINFO).get("MemAvailable:")  # kB
    answers = [] if free is None else [free * 1024]
    limit = _text(CONTROL_GROUP / "memory.max").strip()
    if limit.isdecimal():
        used = _numbers(CONTROL_GROUP / "memory.stat")
        answers.append(max(0, int(limit) - used.get("anon", 0) - used.get("shmem", 0)))
    return min(answers, default=None)


def _numbers(path: Path) -> dict[str, int]:
    """Return the first number of each line by the line's first word."""
    words = (line.split() for line in _text(path).splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
