"""Sections of a measurement: processes of their own with time limits, whose records are appended to one file.

What a section has recorded is on the disk, whatever ends it. While a section measures, the next one's process imports,
and then waits for its turn without having touched the device.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

GO = "go\n"


@dataclass(kw_only=True)
class Recorder:
    """Writes the records of one section, a line of JSON each.

    Attributes:
        section: name of the section.
        path: the file, which is appended to.
    """

    section: str
    path: Path

    def __post_init__(self) -> None:
        self.began = time.perf_counter()

    def record(self, what: str, **values: Any) -> None:
        """Append to the file of records, with the seconds since the section was told to go."""
        at = time.perf_counter() - self.began
        line = json.dumps({"section": self.section, "at": at, "what": what, **values}, default=_plain)
        with self.path.open("a") as file:
            file.write(line + "\n")
        print(line if len(line) < 1500 else line[:1500] + "...", flush=True)


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return all records of a file, in order, without torn lines: a section can be stopped while it writes."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def wait_for_turn() -> None:
    """Return once the section may use the device; called when all is imported. Without a parent it never may."""
    if sys.stdin.readline() != GO:
        sys.exit("the process that starts the sections is gone")


def run_sections(
    limits: Mapping[str, float], command: Callable[[str], list[str]], *, deadline: float = math.inf
) -> Iterator[str]:
    """Run sections one after the other, and say of each how it ended.

    Args:
        limits: seconds that each section may take once it is its turn, by name.
        command: arguments of Python for a section.
        deadline: seconds after which none goes on.
    """
    began, names = time.monotonic(), list(limits)
    upcoming = _start(command(names[0]))
    for name, following in zip(names, [*names[1:], None], strict=True):
        process = upcoming
        if following is not None:
            upcoming = _start(command(following))
        yield _finish(process, name, min(limits[name], deadline - (time.monotonic() - began)))


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, text=True, env=environment)


def _finish(process: subprocess.Popen[str], name: str, limit: float) -> str:
    began, limit = time.monotonic(), max(limit, 1.0)
    if process.stdin is not None:
        try:
            process.stdin.write(GO)
            process.stdin.close()
        except BrokenPipeError:
            pass
    try:
        status = str(process.wait(limit))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        status = f"stopped after {limit:.0f} s"
    return f"=== {name}: exit status {status}, {time.monotonic() - began:.1f} s"
