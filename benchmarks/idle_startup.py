"""Measure what the installed plugin costs a pytest run that does not ask for it: wall time of whole runs, interleaved.

python benchmarks/idle_startup.py [--runs 20] [--max-ms 10] [--out FILE.json]

Each round runs an empty test once under each of four sets of plugins: all that the environment autoloads, as users have
it, then without this plugin, without pytest-benchmark, without both. A part's cost is the median of a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points, version
from pathlib import Path
from statistics import median
from time import perf_counter

OFF = {"mxq": ("-p", "no:mxq"), "benchmark": ("-p", "no:benchmark")}
# What is turned off, by the name of the set. xdist, cov and the like stay as they are installed.
SETS = {
    "all": (),
    "without_mxq": ("mxq",),
    "without_benchmark": ("benchmark",),
    "without_both": ("mxq", "benchmark"),
}
# The cost of a part: one set minus another.
PARTS = {
    "mxq_ms": ("all", "without_mxq"),
    "mxq_where_benchmark_is_off_ms": ("without_benchmark", "without_both"),
    "benchmark_ms": ("without_mxq", "without_both"),
    "both_ms": ("all", "without_both"),
}


def run_once(folder: Path, off: tuple[str, ...]) -> float:
    """Return the milliseconds of one pytest run of an empty test with these plugins off."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [option for name in off for option in OFF[name]]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    start = perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=kept)
    return 1000 * (perf_counter() - start)


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of every set, round by round, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in SETS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_empty.py").write_text("def test_empty():\n    pass\n")
        (folder / "pytest.ini").write_text("[pytest]\n")
        for _ in range(rounds + 1):
            for key, off in SETS.items():
                times[key].append(run_once(folder, off))
    return {key: values[1:] for key, values in times.items()}


def describe(times: dict[str, list[float]]) -> dict[str, object]:
    """Return the result: versions, medians of the sets, and the medians of the differences that a part costs."""
    plugins = sorted(
        {f"{point.dist.name} {point.dist.version}" for point in entry_points(group="pytest11") if point.dist}
    )
    return {
        "python": platform.python_version(),
        "pytest": version("pytest"),
        "autoloaded": plugins,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "runs": len(times["all"]),
        "medians_ms": {key: round(median(values), 1) for key, values in times.items()},
        "parts": {
            part: round(median(a - b for a, b in zip(times[more], times[less], strict=True)), 1)
            for part, (more, less) in PARTS.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--max-ms", type=float, help="exit with 1 if this plugin costs more")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = describe(measure(arguments.runs))
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    parts = result["parts"]
    assert isinstance(parts, dict)
    return int(arguments.max_ms is not None and parts["mxq_ms"] > arguments.max_ms)


if __name__ == "__main__":
    sys.exit(main())
