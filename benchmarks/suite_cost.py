"""GPU seconds of the full published suite, by the plugin's own scheduler on a fake clock with the published latencies.

`python benchmarks/suite_cost.py --date 2026-11-25 --before c3f23b5`: two minutes on two cores, no GPU; writes Markdown
and JSON.

The gates of the three models run on a pretended B200: mxfp8 and nvfp4, batch sizes 1, 4 and 8, speed, memory and
images. A call of an arm costs its published latency (a short one in proportion to its steps) and scatters by 0.3 %.
Loading, quantizing, compiling and scoring cost nothing here, and an eager call as much as a compiled one.

The file is also the plugin that a run on either revision loads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pytest_mxq.evaluation.protocols import Machine
from pytest_mxq.gates.sampling import enough
from pytest_mxq.gates.speed_statistics import MIN_SESSION_ROUNDS, minimum_rounds
from pytest_mxq.models import flux, ltx2, qwen_image
from pytest_mxq.testing import B200, FakeBackend, FakeBenchmark, fake_machine

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
LEDGER = Path("ledger.json")
FILES = ("test_flux.py", "test_qwen_image.py", "test_ltx2.py")
FORMATS = "--mxq-formats=mxfp8,nvfp4"
SCATTER = 0.003
# (name, refreshes before it, options)
RUNS = (
    ("baselines stored, auto", 3, (FORMATS,)),
    ("no baselines, live", 0, (FORMATS, "--mxq-reference=live")),
    ("baselines stored, stored", 3, (FORMATS, "--mxq-reference=stored")),
)


def published() -> dict[tuple[str, str, int], float]:
    """Return the published seconds of a call, by model, format and batch size."""
    models = {"flux.1-dev": flux, "qwen-image": qwen_image, "ltx-2": ltx2}
    return {
        (name, run.format, run.batch_size): run.seconds
        for name, module in models.items()
        for run in module.PUBLISHED_RUNS
    }


class Ledger:
    """Adds up the seconds of all calls, by model and kind of gate."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.published = published()
        self.random = random.Random(0)

    def call(self, case: Any, name: str) -> float:
        """Return the seconds of one whole call."""
        return self.published[case.recipe.name, name, case.settings.batch_size] * self.random.gauss(1.0, SCATTER)

    def add(self, case: Any, name: str, kind: str, calls: int, steps: int | None = None) -> None:
        """Add calls of an arm; ``steps``: of short ones."""
        share = 1.0 if steps is None else steps / case.recipe.call["num_inference_steps"]
        self.seconds[f"{case.recipe.name} {kind}"] += share * sum(self.call(case, name) for _ in range(calls))
        LEDGER.write_text(json.dumps(self.seconds))

    def warm_up(self, case: Any, name: str, kind: str, steps: int | None = None) -> None:
        """Add the observed call, two of warm-up, and one that counts compiled regions (a short one is run twice)."""
        self.add(case, name, kind, 3, steps)
        short = getattr(case, "short_steps", None)
        self.add(case, name, kind, *((1, steps) if steps is not None or short is None else (2, short)))

    def rounds_needed(self, case: Any, names: Sequence[str], sampling: Any) -> int:
        """Return after how many rounds each format's interval is narrow enough, or the time is up."""
        times: dict[str, list[float]] = {name: [] for name in names}
        count = 0
        while count < minimum_rounds(sampling.alpha) or count % 2 or not self._are_enough(times, sampling):
            count += 1
            for name in names:
                times[name].append(self.round(case, name, getattr(sampling, "lengths", None)))
        return count

    def round(self, case: Any, name: str, lengths: tuple[int, int] | None) -> float:
        """Return the seconds of a whole call in one round, as they are timed or extrapolated."""
        if lengths is None:
            return self.call(case, name)
        few, many = lengths
        whole: int = case.recipe.call["num_inference_steps"]
        shorter, longer = (self.call(case, name) * length / whole for length in lengths)
        return shorter + (longer - shorter) * (whole - few) / (many - few)

    @staticmethod
    def _are_enough(times: dict[str, list[float]], sampling: Any) -> bool:
        elapsed = sum(map(sum, times.values()))
        bf16, *others = times.values()
        return all(enough(bf16, other, sampling, elapsed_seconds=elapsed) for other in others)


class CostingBackend(FakeBackend):
    """Adds what it generates to a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def generate(self, case: Any, workload: Any, arm: Any, *, label: str, chunks: Any = None) -> Any:
        """Generate, one call a chunk."""
        outputs = super().generate(case, workload, arm, label=label, chunks=chunks)
        self.ledger.add(case, arm.name, "images", len(outputs.positions) // case.settings.batch_size)
        return outputs


class CostingBenchmark(FakeBenchmark):
    """Adds what it times and measures to its backend's ledger; its methods serve both revisions."""

    def __init__(self, backend: CostingBackend) -> None:
        super().__init__(backend)
        self.ledger = backend.ledger
        self.measured: set[object] = set()

    def time_live(self, case: Any, workload: Any, formats: Any, *, sampling: Any, seed: int) -> Any:
        """Time BF16 beside one format, or beside several where the revision can."""
        kinds = formats if isinstance(formats, Sequence) else [formats]
        names = ["bf16", *(kind.name for kind in kinds)]
        lengths = getattr(sampling, "lengths", None)
        rounds = self.ledger.rounds_needed(case, names, sampling)
        for name in names:
            self.ledger.warm_up(case, name, "speed", lengths and lengths[1])
            self.ledger.add(case, name, "speed", 0 if lengths is None else 1, lengths and lengths[0])
            for steps in lengths or [None]:
                self.ledger.add(case, name, "speed", rounds, steps)
        return super().time_live(case, workload, formats, sampling=sampling, seed=seed)

    def time_quantized(self, case: Any, workload: Any, number_format: Any, sessions: Any, **short: Any) -> Any:
        """Time one session of the quantized arm, and in the newer revision short calls of BF16."""
        if short.get("with_short"):
            from pytest_mxq.gates.extrapolation import SHORT_LENGTHS  # the older revision has none

            self.ledger.warm_up(case, "bf16", "speed", SHORT_LENGTHS[0])
            self.ledger.add(case, "bf16", "speed", 4, SHORT_LENGTHS[0])
        self.ledger.warm_up(case, number_format.name, "speed")
        self.ledger.add(case, number_format.name, "speed", MIN_SESSION_ROUNDS)
        return super().time_quantized(case, workload, number_format, sessions, **short)

    def _short(self) -> tuple[float, ...]:
        """Return short calls that say that the machine is as fast as ever."""
        return (1.0,) * 4

    def measure_memory(self, case: Any, workload: Any, number_format: Any, **steps: Any) -> Any:
        """Measure an arm; in the older revision also BF16, once a case."""
        if number_format is not None or self._is_first(case):
            name = "bf16" if number_format is None else number_format.name
            self.ledger.warm_up(case, name, "memory", **steps)
            self.ledger.add(case, name, "memory", 1, **steps)
        return super().measure_memory(case, workload, number_format, **steps)

    def measure_bf16(self, case: Any, workload: Any, *, steps: int | None) -> Any:
        """Measure BF16 in a short and in two full calls, or in full ones alone, once a case."""
        if self._is_first(case):
            self.ledger.warm_up(case, "bf16", "memory", steps)
            self.ledger.add(case, "bf16", "memory", 1, steps)
            self.ledger.add(case, "bf16", "memory", 0 if steps is None else 2)
        return super().measure_bf16(case, workload, steps=steps)

    def _is_first(self, case: Any) -> bool:
        is_first = case.key not in self.measured
        self.measured.add(case.key)
        return is_first


def pytest_mxq_machine() -> Machine:
    """Return a B200 whose backend and benchmark cost what is published."""
    ledger = Ledger()
    return replace(
        fake_machine(B200),
        backend=lambda _: CostingBackend(ledger),
        benchmark=lambda backend, _cache: CostingBenchmark(backend),
        weights=lambda _: "folder:0",
    )


@contextmanager
def checkout(revision: str | None) -> Iterator[Path]:
    """Yield the folder of a revision: this working tree, or a worktree that is removed afterwards."""
    if revision is None:
        yield ROOT
        return
    with TemporaryDirectory() as folder:
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", folder, revision], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run([*git, "remove", "--force", folder], check=True)


def cost(tree: Path, refreshes: int, options: Sequence[str]) -> tuple[dict[str, float], int]:
    """Return the seconds of one run of the suite, by model and kind of gate, and its number of verdicts."""
    with TemporaryDirectory() as folder:
        project = Path(folder)
        (project / "pytest.ini").write_text("[pytest]\n")
        (project / "conftest.py").write_text("from suite_cost import pytest_mxq_machine\n")
        for name in FILES:
            (project / name).write_text((tree / "tests" / "gates" / name).read_text())
        run = runner(tree, project)
        for _ in range(refreshes):
            run(["--mxq-refresh", "--mxq-refresh-in-ci"])
        (project / LEDGER).unlink(missing_ok=True)
        run(options)
        return json.loads((project / LEDGER).read_text()), count_verdicts(project)


def runner(tree: Path, project: Path) -> Callable[[Sequence[str]], None]:
    env = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{Path(__file__).parent}", "CUDA_VISIBLE_DEVICES": ""}

    def run(options: Sequence[str]) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
        done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
        if done.returncode > 1:  # gates of made-up outputs may fail
            raise SystemExit(done.stdout + done.stderr)

    return run


def count_verdicts(project: Path) -> int:
    """Return how many verdicts there are, and refuse a run in which a gate was not judged."""
    verdicts = json.loads((project / "mxq-report" / "report.json").read_text())["verdicts"]
    odd = [verdict for verdict in verdicts if verdict["outcome"] not in {"pass", "marginal", "regression"}]
    if odd:
        raise SystemExit("\n".join(f"{verdict['outcome']}: {verdict['sentence']}" for verdict in odd))
    return len(verdicts)


def markdown(rows: list[dict[str, Any]], run: str) -> Iterator[str]:
    """Yield the lines of the result."""
    what = (__doc__ or "").partition("Markdown\nand JSON.\n\n")[2].partition("\n\nThe file")[0]
    yield from ("# Cost of the full suite", "", run, "", what, "")
    yield "| references | revision | speed | memory | images | in all, GPU seconds | share of before |"
    yield "|---|---|---|---|---|---|---|"
    before: dict[str, float] = {}
    for row in rows:
        kinds = {kind: sum(s for name, s in row["seconds"].items() if name.endswith(kind)) for kind in KINDS}
        total = sum(kinds.values())
        share = total / before.setdefault(row["references"], total)
        cells = " | ".join(f"{kinds[kind]:.0f}" for kind in KINDS)
        yield f"| {row['references']} | {row['revision']} | {cells} | {total:.0f} | {share:.0%} |"
    yield ""


KINDS = ("speed", "memory", "images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, help="revision to compare with")
    parser.add_argument("--date", required=True, help="goes into the names of the files")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for references, refreshes, options in RUNS:
        for name, revision, more in (
            (args.before, args.before, ()),
            ("this one", None, ()),
            ("this one, --mxq-timing=short", None, ("--mxq-timing=short",)),
        ):
            with checkout(revision) as tree:
                seconds, verdicts = cost(tree, refreshes, (*options, *more))
            rows.append({"references": references, "revision": name, "verdicts": verdicts, "seconds": seconds})
    run = f"{args.date}; {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; no GPU."
    stem = RESULTS / f"suite-cost-{args.date}"
    stem.with_suffix(".md").write_text("\n".join(markdown(rows, run)))
    stem.with_suffix(".json").write_text(json.dumps({"run": run, "rows": rows}, indent=1) + "\n")
    print(stem.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
