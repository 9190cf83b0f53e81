"""A gate of a score without a reference: by how much it drops from BF16 to the quantized arm, prompt by prompt.

ImageReward, CLIP score or HPS look at one image and its prompt. Prompts differ more than arms do, so a mean over a few
says little; the difference of both arms for the same prompt and noise says more. The scorer runs in an environment of
its own: ``SCORER_PYTHON=/path/to/its/venv/bin/python pytest ...``.
"""

import os
import sys
from pathlib import Path

from pytest_mxq import AccuracyGate, Scale, score_by_command

COMMAND = [os.environ.get("SCORER_PYTHON", sys.executable), str(Path(__file__).with_name("scorer.py"))]


def score_drop(reference, other):
    """Return BF16's score less the quantized arm's of each image: above 0 where quantization made it worse."""
    before, after = score_by_command(COMMAND, reference, other, timeout=600)
    return [one - another for one, another in zip(before, after, strict=True)]


SCORE_DROP = AccuracyGate(
    name="score_drop",
    summary="bound of the mean drop of the scorer's score (0 to 1) from BF16, of the worst image",
    largest=1.0,
    scale=Scale(higher_is_better=False),
    score=score_drop,
)


def pytest_mxq_gates():
    return [SCORE_DROP]
