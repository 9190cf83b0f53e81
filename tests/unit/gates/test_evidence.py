from dataclasses import dataclass, field, replace

import pytest

from pytest_mxq.gates.evidence import Evidence, RunEvidence, judge_evidence, judge_run
from pytest_mxq.gates.outcome import Outcome

GOOD = Evidence(
    quantized=30,
    chosen=30,
    total=38,
    weight_share=0.9,
    weight_bytes=28,
    bf16_bytes=100,
    layers_sha256="a" * 64,
    layers={"blocks.*": 30},
)


@dataclass(frozen=True)
class Stored:
    quantized: int
    sha256: str
    layers: dict[str, int] = field(default_factory=lambda: {"blocks.*": 31})


def test_a_quantized_arm_has_nothing_wrong() -> None:
    assert judge_evidence(GOOD, min_share=0.5, stored=None) is None
    assert judge_evidence(GOOD, min_share=0.5, stored=Stored(30, "a" * 64)) is None


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (replace(GOOD, quantized=0, chosen=0), "none of 38"),
        (replace(GOOD, quantized=29), "29 Linear layers are quantized, and the model's rule chose 30"),
        (replace(GOOD, weight_share=0.49), "only 49.0% of the Linear weights"),
    ],
)
def test_too_little_quantization_is_named(evidence: Evidence, said: str) -> None:
    wrong = judge_evidence(evidence, min_share=0.5, stored=None)
    assert wrong is not None
    assert wrong[0] is Outcome.NOT_QUANTIZED
    assert said in wrong[1]


@pytest.mark.parametrize(("stored", "outcome"), [(31, Outcome.NOT_QUANTIZED), (30, Outcome.STALE), (29, Outcome.STALE)])
def test_other_layers_than_the_baseline_recorded(stored: int, outcome: Outcome) -> None:
    wrong = judge_evidence(GOOD, min_share=0.5, stored=Stored(stored, "b" * 64))
    assert wrong is not None
    assert wrong[0] is outcome
    assert "refresh the baseline" in wrong[1]
    assert "blocks.* 31 -> 30" in wrong[1]


def test_unfit_layers_are_listed_not_dropped_in_silence() -> None:
    assert "2 that do not fit stay in BF16" in replace(GOOD, unfit=("a", "b")).sentence


def test_layers_that_calls_left_out_need_bf16s_layer_calls_to_compare_with() -> None:
    run = RunEvidence(ran=30, denoiser_calls=8, arithmetic_share=0.9, multiplied="emulated", skipped=("blocks.1",))
    evidence = replace(GOOD, run=run)
    assert judge_run(evidence, native=False, layers_compared=True) is None
    wrong = judge_run(evidence, native=False)
    assert wrong is not None
    assert wrong[0] is Outcome.NOT_QUANTIZED
    assert "blocks.1" in wrong[1]


def test_arithmetic_with_weights_of_no_denoiser_is_bounded() -> None:
    run = RunEvidence(ran=30, denoiser_calls=8, arithmetic_share=0.9, multiplied="emulated", foreign_share=0.04)
    assert judge_run(replace(GOOD, run=run), native=False) is None
    wrong = judge_run(replace(GOOD, run=replace(run, foreign_share=0.06)), native=False)
    assert wrong is not None
    assert wrong[0] is Outcome.NOT_QUANTIZED


@pytest.mark.parametrize(
    ("native", "weight_only", "outcome"),
    [
        (False, False, Outcome.NOT_QUANTIZED),
        (True, False, Outcome.DEQUANTIZED),
        (False, True, None),
        (True, True, None),
    ],
)
def test_dequantized_weights_are_a_format_of_weights_alone_or_a_fault(
    native: bool, weight_only: bool, outcome: Outcome | None
) -> None:
    run = RunEvidence(ran=30, denoiser_calls=8, arithmetic_share=0.9, multiplied="dequantized")
    wrong = judge_run(replace(GOOD, run=run), native=native, weight_only=weight_only)
    assert (wrong and wrong[0]) == outcome
