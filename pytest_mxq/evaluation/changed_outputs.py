"""Outputs that a test's body changed: what is judged must follow from what the pipelines generated.

A body may crop, resize or sharpen what the pipeline returned, as long as it does so on both arms. Where it changes the
quantized arm's outputs alone, or brings both arms' much nearer together than any such step does, the gate would judge
something else than what the quantized arm generated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_mxq.evaluation.protocols import O, Scorer
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.psnr import PSNR
from pytest_mxq.gates.scores import Scores, decide, summarize

if TYPE_CHECKING:
    from pytest_mxq.gates.base import AccuracyGate
    from pytest_mxq.gates.verdict import OutputFacts
    from pytest_mxq.planning.plans import OutputsPlan

MAX_NEARER_DB = 20.0
"""By how much PSNR between the arms may grow by what a body does to outputs that are beyond the bound.

That is a tenth of the differences. Halving an image's size or blurring it takes 2 to 6 dB off; 5 % of the quantized
image mixed into BF16's takes off 26 dB.
"""


def check_same_changes(arm: str, bf16: O, quantized: O, facts: OutputFacts) -> None:
    """Refuse outputs that the body changed on one of the arms alone, in the chunks that both ran.

    Args:
        arm: name of the quantized arm.
        bf16: what BF16 generated in this run.
        quantized: what the quantized arm generated.
        facts: fields of the verdict that are known by now.

    Raises:
        Stop: it did.
    """
    shared = bf16.work_records.keys() & quantized.work_records.keys()
    changed = {name: sorted(shared & made.originals.keys()) for name, made in (("BF16", bf16), (arm, quantized))}
    found = [(name, starts) for name, starts in changed.items() if starts]
    if len(found) == 1:
        name, starts = found[0]
        raise Stop(
            Outcome.ERROR,
            f"the test returned other {quantized.noun}s than mxq_pipeline(...) generated on the {name} arm alone "
            f"({len(starts)} of {len(shared)} calls, prompt {starts[0]} first); its body must do the same on every arm",
            **facts,
        )


def judge_originals(scorer: Scorer[O], plan: OutputsPlan, bf16: O, quantized: O, facts: OutputFacts) -> Iterator[str]:
    """Yield what is worth a look of outputs that the body changed on both arms and that are within the bound.

    Args:
        scorer: scores.
        plan: what is judged.
        bf16: what BF16 generated in this run.
        quantized: what the quantized arm generated.
        facts: fields of the verdict that are known by now.

    Raises:
        Stop: what the quantized arm generated is beyond the bound, and what the body made of it far nearer to BF16's.
    """
    unknown = sorted(quantized.originals.keys() - bf16.work_records.keys())
    shared = sorted(quantized.originals.keys() & bf16.work_records.keys())
    if unknown and not shared:
        yield (
            f"the test returned other {quantized.noun}s than mxq_pipeline(...) generated for prompts that BF16 did not "
            f"generate in this run (prompt {unknown[0]} first)"
        )
    if not shared:
        return
    generated = [(_generated(bf16, start), _generated(quantized, start)) for start in shared]
    outcome, sentence = decide(plan.gate.scale, _scores(scorer, plan.gate, generated), plan.bound)
    if not outcome.is_failure:
        return
    returned = [(_returned(bf16, start), _returned(quantized, start)) for start in shared]
    pairs = zip(returned, generated, strict=True)
    nearer = max(_scores(scorer, PSNR, [new]).mean - _scores(scorer, PSNR, [old]).mean for new, old in pairs)
    text = f"what the quantized arm generated is beyond the bound ({sentence}), and what the test made of it is not"
    if nearer > MAX_NEARER_DB:
        raise Stop(
            Outcome.ERROR,
            f"{text}: PSNR between the arms grew by {nearer:.1f} dB, and at most {MAX_NEARER_DB:.0f} dB are taken for "
            "postprocessing; return what mxq_pipeline(...) returned",
            **facts,
        )
    yield text


def _returned(outputs: O, start: int) -> O:
    """Return what the workload returned in a chunk, by the index of its first prompt."""
    return outputs.subset(outputs.identity.chunk_positions(start))


def _generated(outputs: O, start: int) -> O:
    """Return what the pipeline generated in a chunk, by the index of its first prompt."""
    original = outputs.originals.get(start)
    return _returned(outputs, start) if original is None else original


def _scores(scorer: Scorer[O], gate: AccuracyGate, pairs: list[tuple[O, O]]) -> Scores:
    values = [value for bf16, quantized in pairs for value in scorer.score(gate, bf16, quantized)]
    return summarize(values, higher_is_better=gate.scale.higher_is_better)
