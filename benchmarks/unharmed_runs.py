"""How often the demo's gates fail although nothing is wrong: the README's main job, many times, in many settings.

python benchmarks/unharmed_runs.py --out FILE.json [--runs 40]

Hash seed and order of the tests differ in every run; threads, workers, reference and ATen's instruction set go through
all their combinations. The file is written after each run, and a second start goes on where the first one ended. What
was found is written as Markdown beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
JOB = ("tests/gates", "--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "-q", "-p", "no:cacheprovider", "-p", "randomly")
KEPT = {name: value for name, value in os.environ.items() if name not in {"CI", "PYTEST_ADDOPTS"}}
PACKAGES = ("torch", "torchao", "diffusers", "lpips", "pytest", "pytest-xdist", "pytest-randomly")

SETTINGS = [
    {"threads": threads, "workers": workers, "reference": reference, "capability": capability}
    for capability, reference, workers, threads in product(
        ("default", "default", "default", "default", "avx2"), ("auto", "live"), (0, 2), (1, 2)
    )
]


def run_job(seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Run the main job once; return its exit code, its seconds and what each gate observed."""
    threads, capability = str(settings["threads"]), settings["capability"]
    environment = KEPT | {"PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
    environment |= {} if capability == "default" else {"ATEN_CPU_CAPABILITY": capability}
    with tempfile.TemporaryDirectory() as report:
        options = [f"--randomly-seed={seed}", f"--mxq-reference={settings['reference']}", f"--mxq-report={report}"]
        command = [sys.executable, "-m", "pytest", *JOB, "-n", str(settings["workers"]), *options]
        start = perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        seconds = round(perf_counter() - start, 1)
        path = Path(report) / "report.json"
        verdicts = json.loads(path.read_text())["verdicts"] if path.exists() else []
    cells = {
        f"{record['cell']['format']}-{record['cell']['gate']}": read_cell(record)
        for record in verdicts
        if record["cell"]["model"] == "demo"
    }
    failed = "" if done.returncode == 0 else done.stdout[-4000:] + done.stderr[-2000:]
    return {"seed": seed, **settings, "exit": done.returncode, "seconds": seconds, "cells": cells, "failed": failed}


def read_cell(record: dict[str, Any]) -> dict[str, Any]:
    """Return what the table of a run needs of a verdict."""
    higher, values = record["scale"]["higher_is_better"], record["scores"]["values"]
    return {
        "outcome": record["outcome"],
        "reference": record["reference"]["mode"],
        "mean": record["observed"],
        "worst": min(values) if higher else max(values),
        "bound": record["bound"],
        "worst_bound": record["worst_bound"],
        "higher_is_better": higher,
    }


def is_red(run: dict[str, Any]) -> bool:
    """Tell whether a run failed, or judged fewer cells than the two formats have gates."""
    return run["exit"] != 0 or len(run["cells"]) != 6 or any(c["outcome"] != "pass" for c in run["cells"].values())


def markdown(result: dict[str, Any]) -> str:
    """Return what was found, as text."""
    runs = result["runs"]
    machine, versions = result["machine"], ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return "\n".join(
        [
            "# Runs of the main job with nothing wrong",
            "",
            f"{result['date']}; {machine['cpu']}, {machine['cores']} cores, other work beside it; Python "
            f"{machine['python']}, {versions}. `benchmarks/unharmed_runs.py`: another hash seed and order in each run; "
            "1 and 2 threads, `-n 0` and `-n 2`, stored and live reference, and in a fifth of the runs "
            "`ATEN_CPU_CAPABILITY=avx2`, which is judged live.",
            "",
            f"**{sum(map(is_red, runs))} of {len(runs)} runs were red.**",
            "",
            "| gate | means | bound of the mean | worst images | bound of the worst |",
            "|---|---|---|---|---|",
            *(row(name, [run["cells"][name] for run in runs if name in run["cells"]]) for name in names(runs)),
            "",
        ]
    )


def names(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Return the names of all cells, sorted."""
    yield from sorted({name for run in runs for name in run["cells"]})


def row(name: str, cells: list[dict[str, Any]]) -> str:
    """Return a cell's row: the range of what was observed, beside the bounds."""
    sign = "≥" if cells[0]["higher_is_better"] else "≤"
    mean, worst = ([cell[what] for cell in cells] for what in ("mean", "worst"))
    of_mean, of_worst = (cells[0][what] for what in ("bound", "worst_bound"))
    limit_of_worst = "" if of_worst is None else f"{sign} {of_worst:g}"
    return f"| `{name}` | {span(mean)} | {sign} {of_mean:g} | {span(worst)} | {limit_of_worst} |"


def span(values: list[float]) -> str:
    """Return the lowest and the highest of some numbers.

    >>> span([0.2, 0.1])
    '0.1 to 0.2'
    """
    return f"{min(values):.4g} to {max(values):.4g}"


def processor() -> str:
    """Return the CPU's name as Linux tells it, or the platform's word for it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    found = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return " / ".join(sorted(found)) or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file, which a second start goes on with")
    parser.add_argument("--runs", type=int, default=len(SETTINGS))
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in PACKAGES},
        "runs": [],
    }
    if arguments.out.exists():
        result = json.loads(arguments.out.read_text())
    for seed in range(len(result["runs"]), arguments.runs):
        result["runs"].append(run_job(seed, SETTINGS[seed % len(SETTINGS)]))
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
        arguments.out.with_suffix(".md").write_text(markdown(result))
        print(f"{seed}: {'red' if is_red(result['runs'][-1]) else 'green'}", flush=True)
    sys.exit(any(map(is_red, result["runs"])))


if __name__ == "__main__":
    main()
