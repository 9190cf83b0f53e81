"""How long the README's main job takes after installation, and where the time goes.

python benchmarks/main_job.py [--runs 3] [--out FILE.json]
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
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
JOB = ("tests/gates", "--mxq-formats=mxfp8,nvfp4", "--mxq-emulate")
BACKEND = "pytest_mxq.backend.generation, pytest_mxq.metrics.lpips"
IMPORTS = f"import time; t = time.perf_counter(); import {BACKEND}; print(time.perf_counter() - t)"
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


def run_job(reference: str) -> dict[str, Any]:
    """Return the wall seconds of the job, and the seconds of each cell from its report."""
    with tempfile.TemporaryDirectory() as report:
        command = [sys.executable, "-m", "pytest", "-q", *JOB, f"--mxq-reference={reference}", f"--mxq-report={report}"]
        start = perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        wall = perf_counter() - start
        document = json.loads((Path(report) / "report.json").read_text())
    cells = {f"{r['cell']['format']}-{r['cell']['gate']}": r["seconds"] for r in document["verdicts"]}
    return {"wall": wall, "cells": cells, "images": len(document["verdicts"][0]["scores"]["values"])}


def import_seconds() -> float:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, check=True, capture_output=True, text=True, env=ENVIRONMENT
    )
    return float(done.stdout.splitlines()[-1])


def summary(runs: list[dict[str, Any]], imports: list[float]) -> dict[str, Any]:
    cells = {name: round(median(run["cells"][name] for run in runs), 2) for name in runs[0]["cells"]}
    return {
        "wall_s": [round(run["wall"], 1) for run in runs],
        "wall_median_s": round(median(run["wall"] for run in runs), 1),
        "imports_of_the_backend_s": round(median(imports), 1),
        "cells_s": cells,
        "images_per_format": runs[0]["images"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    imports = [import_seconds() for _ in range(arguments.runs)]
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("torch", "torchao", "diffusers", "pytest")},
        **{name: summary([run_job(name) for _ in range(arguments.runs)], imports) for name in ("stored", "live")},
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
