"""Mutated manifests, images and videos: accepted or refused by an error of ours, shortly and at once.

`benchmarks/baseline_mutations.py` does the same with many more, and measures memory.
"""

from collections import Counter
from pathlib import Path

import pytest
from mutations import KINDS, Reader

from pytest_mxq.baselines.strict_json import MAX_MESSAGE

COUNT = 300


@pytest.mark.parametrize("kind", KINDS)
def test_no_mutation_raises_a_foreign_exception_or_takes_a_second(kind: str, tmp_path: Path) -> None:
    reader = Reader(kind, tmp_path)
    outcomes = [reader.read_mutation(seed) for seed in range(COUNT)]
    assert [(seed, outcome) for seed, outcome in enumerate(outcomes) if outcome.is_foreign] == []
    assert max(outcome.seconds for outcome in outcomes) < 1
    assert max(len(outcome.message) for outcome in outcomes) <= MAX_MESSAGE
    counts = Counter(outcome.name for outcome in outcomes)
    assert counts["refused"] > COUNT / 2
    assert counts["accepted"] > 0  # the mutations reach the decoders: not every one breaks the file


def test_the_mutations_are_the_same_in_every_run(tmp_path: Path) -> None:
    first, second = (Reader("manifest", tmp_path / name) for name in ("a", "b"))
    assert [first.read_mutation(seed).name for seed in range(20)] == [
        second.read_mutation(seed).name for seed in range(20)
    ]
