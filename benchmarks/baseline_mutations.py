"""Mutated manifests, images and videos: how many raise a foreign exception, and the most time and memory of one.

Each thousand is read in a process of its own, so that a crash of a decoder is counted too.

python benchmarks/baseline_mutations.py [--count 20000] [--kinds manifest,image,video] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
CHUNK = 1000
LIMIT_SECONDS = 600.0  # for a thousand: longer than that is a hang


def read_chunk(kind: str, start: int, count: int, out: Path) -> None:
    """Read the mutations of these seeds, and append a line of JSON for each."""
    sys.path.insert(0, str(SUPPORT))
    from mutations import Reader

    with tempfile.TemporaryDirectory() as name, out.open("w") as lines:
        reader = Reader(kind, Path(name))
        for seed in range(-10, 0):  # imports, and memory that a decoder keeps
            reader.read_mutation(seed)
        for seed in range(start, start + count):
            print(json.dumps({"seed": seed, "name": "crash"}), file=lines, flush=True)
            reader.write(seed)
            before = restart_peak()
            outcome = reader.read(seed)
            record = {
                "seed": seed,
                "name": outcome.name,
                "seconds": outcome.seconds,
                "mib": memory("VmHWM") - before,
                "characters": len(outcome.message),
                "message": outcome.message if outcome.is_foreign else "",
            }
            print(json.dumps(record), file=lines)


def restart_peak() -> float:
    """Set the kernel's record of this process's peak memory to what it has now (proc(5)); return that, MiB."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier reads freed would hide what this one takes
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(field: str) -> float:
    """Return a field of /proc/self/status, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def run_chunk(kind: str, start: int, count: int, folder: Path) -> list[dict[str, Any]]:
    out = folder / "records"
    command = [sys.executable, __file__, "--chunk", kind, str(start), str(count), str(out)]
    try:
        subprocess.run(command, check=False, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"{kind} from {start}: no end within {LIMIT_SECONDS:.0f} s")
    records: dict[int, dict[str, Any]] = {}
    for line in out.read_text().splitlines():
        record = json.loads(line)
        records[record["seed"]] = record
    return list(records.values())


def summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
    names = Counter(record["name"] for record in records)
    read = [record for record in records if record["name"] != "crash"]
    slowest = max(read, key=lambda record: record["seconds"])
    largest = max(read, key=lambda record: record["mib"])
    return {
        "mutations": len(records),
        "refused": names.pop("refused", 0),
        "accepted": names.pop("accepted", 0),
        "foreign_exceptions": sum(names.values()),
        "foreign": dict(names),
        "max_seconds": round(slowest["seconds"], 3),
        "max_seconds_seed": slowest["seed"],
        "max_mib": round(largest["mib"], 1),
        "max_mib_seed": largest["seed"],
        "max_message_characters": max(record["characters"] for record in read),
        "foreign_examples": [record for record in records if record["name"] in names][:5],
    }


def measure(kind: str, count: int) -> dict[str, Any]:
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for start in range(0, count, CHUNK):
            records += run_chunk(kind, start, min(CHUNK, count - start), Path(name))
    return summarize(records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--kinds", default="manifest,image,video")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--chunk", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.chunk:
        kind, start, count, out = arguments.chunk
        read_chunk(kind, int(start), int(count), Path(out))
        return
    packages = ("msgspec", "pillow", "av", "numpy")
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPU cores",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }
    for kind in arguments.kinds.split(","):
        result[kind] = measure(kind, arguments.count)
        print(kind, json.dumps(result[kind]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
