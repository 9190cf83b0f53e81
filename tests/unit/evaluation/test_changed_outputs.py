"""Outputs that a body changed: on one arm alone an error, on both judged by what the pipelines generated."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pytest_mxq.baselines.identity import Identity
from pytest_mxq.evaluation.changed_outputs import check_same_changes, judge_originals
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.psnr import PSNR

IDENTITY = Identity(
    model="demo",
    weights="folder:0",
    prompts=("a", "b"),
    seed=0,
    batch_size=1,
    images_per_prompt=1,
    width=16,
    height=16,
    execution="eager",
    calls=({},),
)


@dataclass(frozen=True, kw_only=True)
class Made:
    """Outputs of two calls: PSNR against the other arm of what was generated and of what was returned."""

    changed: tuple[int, ...] = ()
    identity: Identity = IDENTITY
    work_records: dict[int, object] = field(default_factory=lambda: {0: "work", 1: "work"})
    generated: float = 30.0
    returned: float = 30.0
    psnr: float = 0.0
    noun: str = "image"

    @property
    def originals(self) -> dict[int, Made]:
        return {start: replace(self, psnr=self.generated) for start in self.changed}

    def subset(self, _positions: range) -> Made:
        return replace(self, psnr=self.returned)


class Scorer:
    @staticmethod
    def score(_gate: Any, _bf16: Made, quantized: Made) -> list[float]:
        return [quantized.psnr]


class Plan:
    gate = PSNR
    bound = Bound(mean=35.0, worst=None)


def judge(bf16: Made, quantized: Made) -> list[str]:
    scorer: Any = Scorer()
    plan: Any = Plan()
    one: Any = bf16
    other: Any = quantized
    return list(judge_originals(scorer, plan, one, other, {}))


PLAIN, CHANGED = Made(), Made(changed=(0,))


@pytest.mark.parametrize(("bf16", "quantized", "arm"), [(PLAIN, CHANGED, "nvfp4"), (CHANGED, PLAIN, "BF16")])
def test_outputs_that_are_changed_on_one_arm_alone_are_an_error(bf16: Any, quantized: Any, arm: str) -> None:
    with pytest.raises(Stop, match=f"on the {arm} arm alone") as stopped:
        check_same_changes("nvfp4", bf16, quantized, {"cautions": ()})
    assert (stopped.value.outcome, stopped.value.facts) == (Outcome.ERROR, {"cautions": ()})


@pytest.mark.parametrize(
    ("bf16", "quantized"),
    [(PLAIN, PLAIN), (CHANGED, CHANGED), (replace(PLAIN, work_records={1: "work"}), CHANGED)],
    ids=["on neither", "on both", "where BF16 did not run"],
)
def test_outputs_that_are_changed_alike_are_compared(bf16: Any, quantized: Any) -> None:
    check_same_changes("nvfp4", bf16, quantized, {})


@pytest.mark.parametrize(
    ("generated", "returned", "cautions"), [(36.0, 60.0, 0), (30.0, 40.0, 1)], ids=["within the bound", "beyond it"]
)
def test_postprocessing_on_both_arms_passes(generated: float, returned: float, cautions: int) -> None:
    assert len(judge(CHANGED, replace(CHANGED, generated=generated, returned=returned))) == cautions


def test_outputs_beyond_the_bound_that_a_body_brought_far_nearer_are_an_error() -> None:
    with pytest.raises(Stop, match=r"grew by 26.0 dB") as stopped:
        judge(CHANGED, replace(CHANGED, generated=30.0, returned=56.0))
    assert stopped.value.outcome is Outcome.ERROR


def test_changes_that_cannot_be_compared_with_bf16_are_a_caution() -> None:
    (caution,) = judge(replace(PLAIN, work_records={1: "work"}), CHANGED)
    assert "prompt 0 first" in caution
