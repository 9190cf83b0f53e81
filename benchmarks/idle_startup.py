"""What the installed plugin costs a pytest run that does not ask for it: wall time with it and without it, interleaved.

python benchmarks/idle_startup.py [--runs 20] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter


def run_once(folder: Path, *options: str) -> float:
    """Return the seconds of one pytest run of an empty test, every other third-party plugin off."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    start = perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=environment)
    return perf_counter() - start


def measure(runs: int) -> tuple[list[float], list[float]]:
    """Return the seconds without and with the plugin, pair by pair, after one pair that is not counted."""
    without, with_plugin = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_empty.py").write_text("def test_empty():\n    pass\n")
        (folder / "pytest.ini").write_text("[pytest]\n")
        for _ in range(runs + 1):
            without.append(run_once(folder))
            with_plugin.append(run_once(folder, "-p", "pytest_mxq.plugin"))
    return without[1:], with_plugin[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    without, with_plugin = measure(arguments.runs)
    differences = [1000 * (b - a) for a, b in zip(without, with_plugin, strict=True)]
    result = {
        "python": platform.python_version(),
        "pytest": version("pytest"),
        "runs": arguments.runs,
        "without_ms": round(1000 * median(without), 1),
        "with_ms": round(1000 * median(with_plugin), 1),
        "difference_of_medians_ms": round(1000 * (median(with_plugin) - median(without)), 1),
        "median_difference_ms": round(median(differences), 1),
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
