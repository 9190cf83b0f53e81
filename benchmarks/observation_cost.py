"""What observing costs: CPU time of the demo's gates, of generating with and without the observation of what ran.

python benchmarks/observation_cost.py [--rounds 6] [--out FILE.json]

A gate generates with both arms: the quantized one, and BF16's drift check. Without observation neither the products nor
the work are counted, nothing is compared or put back. Rounds with and without it alternate; the median counts,
and the least where other processes use the machine: their caches and threads make CPU time longer, never shorter.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, Self
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

import pytest
from gate_bench import FORMATS, Bench, generate, one_thread, without_compiler

from pytest_mxq.backend import generation
from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines import generate as generate_module
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.case import Case

FORMAT = FORMATS["mxfp8"]


class NoCounter:
    """Counts nothing."""

    work: Any = None
    originals: tuple[Any, ...] = ()
    held: Any = None

    def __init__(self, _pipe: Any, _denoisers: Any, _held: Any = None) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def came_from(self, _result: object) -> bool:
        """Ask nothing."""
        return True


def without_observation(stack: ExitStack, work: Any) -> None:
    """Have neither products nor work counted, and nothing put back."""
    NoCounter.work = work
    stack.enter_context(mock.patch.object(generate_module, "WorkCounter", NoCounter))
    stack.enter_context(mock.patch.object(generation, "observing", return_value=nullcontext(lambda: None)))
    stack.enter_context(mock.patch.object(TorchBackend, "_isolated", return_value=nullcontext(([], [], None))))


def seconds(run: Callable[[], object]) -> float:
    start = process_time()
    run()
    return process_time() - start


def measure(backend: TorchBackend, case: Case, rounds: int) -> dict[str, Any]:
    """Return the CPU seconds of one gate, and of generating its two arms with and without observation."""
    bf16 = ArmSpec.bf16(case)
    arms = {"bf16": bf16, "quantized": replace(bf16, number_format=FORMAT, emulated=True)}
    works = {name: backend.generate(case, generate, arm, label=name).works for name, arm in arms.items()}
    found: dict[str, list[float]] = {f"{name} {how}": [] for name in arms for how in ("observed", "plain")}
    for number in range(rounds):
        for name, arm in arms.items():
            for how in ("observed", "plain") if number % 2 else ("plain", "observed"):
                with ExitStack() as stack:
                    if how == "plain":
                        without_observation(stack, works[name][0])
                    run = lambda arm=arm, name=name: backend.generate(case, generate, arm, label=name)  # noqa: E731
                    found[f"{name} {how}"].append(seconds(run))
    medians = {name: median(values) for name, values in found.items()}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        without_compiler(patch)
        bench = Bench(backend, Path(folder))
        bench.refresh(case)
        gates = [seconds(lambda: bench.judge("mxfp8", bound=0.5, case=case)) for _ in range(rounds)]
    least = {name: min(values) for name, values in found.items()}
    cost, cost_of_least = (
        sum(values[f"{name} observed"] - values[f"{name} plain"] for name in arms) for values in (medians, least)
    )
    gate = median(gates)
    return {
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "gate_s": round(gate, 3),
        "observation_s": round(cost, 3),
        "share_of_the_gate": round(cost / gate, 4),
        "least_seconds": {name: round(value, 3) for name, value in least.items()},
        "share_of_the_least": round(cost_of_least / min(gates), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with one_thread() as backend:
        bench = Bench(backend, Path())
        cases = {
            "the demo's gate: 8 prompts in one batch, 8 steps": bench.case(DEMO, prompts=8, batch_size=8),
            "4 prompts one by one, 3 steps": bench.case(prompts=4),
        }
        result = {name: measure(backend, case, options.rounds) for name, case in cases.items()}
    versions = {name: version(name) for name in ("torch", "torchao", "diffusers")}
    document = {"machine": platform.processor() or platform.machine(), "threads": 1, **versions, "cases": result}
    text = json.dumps(document, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
