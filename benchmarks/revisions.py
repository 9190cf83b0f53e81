"""Compare two revisions: the main job's scores bit for bit, CPU time of it, of a large collection and of an empty run.

python benchmarks/revisions.py REVISION [--rounds 5] [--out FILE.json]

The other revision is the checkout's HEAD. Each round runs both, in alternating order. CPU time of the process and its
children is compared, not wall time: it hardly depends on what else the machine does. Both run in this environment.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COLLECTED = """
import pytest

@pytest.mark.parametrize("number", range(500))
@pytest.mark.mxq("demo", prompts=1)
@pytest.mark.mxq_lpips(max=0.1)
@pytest.mark.mxq_ssim(min=0.9)
@pytest.mark.mxq_psnr(min=20)
def test_many(mxq_pipeline, mxq_prompt, number):
    return mxq_pipeline(mxq_prompt)
"""
FORMATS = "--mxq-formats=mxfp8,nvfp4,mxfp4"
JOBS: dict[str, tuple[str, ...]] = {
    "main_job": ("tests/gates/test_demo.py", "--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "--mxq-reference=live"),
    "collection": ("--collect-only", FORMATS, "--mxq-emulate"),
    "idle": (),
}


def run(tree: Path, job: str, folder: Path) -> float:
    """Return the CPU seconds of one run."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text("def test_empty():\n    pass\n" if job == "idle" else COLLECTED)
    report = () if job == "idle" else (f"--mxq-report={folder / 'report'}",)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *JOBS[job], *report]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**kept, "PYTHONPATH": str(tree), "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that wait for a busy core would count as work
    before = _cpu_seconds()
    where = tree if job == "main_job" else folder
    subprocess.run(command, cwd=where, check=True, stdout=subprocess.DEVNULL, env=environment)
    return _cpu_seconds() - before


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def scores(folder: Path) -> list[tuple[Any, ...]]:
    """Return format, gate, outcome and the exact scores of each cell, of a report of either schema."""
    document = json.loads((folder / "report" / "report.json").read_text())
    return sorted(
        (cell["format"], cell["gate"], record["outcome"], tuple(record["scores"]["values"]))
        for record in document["verdicts"]
        for cell in [record.get("cell", record)]
    )


def rounds(trees: dict[str, Path], count: int) -> Iterator[tuple[str, str, float, list[tuple[Any, ...]]]]:
    """Yield the job, the revision, its CPU seconds and its scores, round by round."""
    for number in range(count):
        for job in JOBS:
            for name in list(trees)[:: 1 if number % 2 else -1]:
                with tempfile.TemporaryDirectory() as folder:
                    seconds = run(trees[name], job, Path(folder))
                    yield job, name, seconds, scores(Path(folder)) if job == "main_job" else []
                    print(f"round {number + 1}: {job} of {name}: {seconds:.2f} s", file=sys.stderr)


def compare(trees: dict[str, Path], count: int) -> dict[str, Any]:
    """Return the medians of each job and revision, their ratio, and whether every run gave the same scores."""
    seconds: dict[str, dict[str, list[float]]] = {job: {name: [] for name in trees} for job in JOBS}
    seen: list[list[tuple[Any, ...]]] = []
    for job, name, taken, found in rounds(trees, count):
        seconds[job][name].append(round(taken, 3))
        seen += [found] if found else []
    before, after = trees
    ratios = {job: round(median(taken[after]) / median(taken[before]), 3) for job, taken in seconds.items()}
    equal = all(found == seen[0] for found in seen)
    return {"cpu_seconds": seconds, "after_over_before": ratios, "scores_equal": equal, "cells": len(seen[0])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trees = {name: Path(folder) / name for name in (arguments.revision, "HEAD")}
        for name, tree in trees.items():
            subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, name], cwd=ROOT, check=True)
        try:
            result = compare(trees, arguments.rounds)
        finally:
            for tree in trees.values():
                subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    facts = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "torchao", "diffusers", "pytest")},
    }
    text = json.dumps({**facts, **result}, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
