"""The comparison images that go with a verdict: which outputs and frames are shown, and what stands below them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from pytest_mxq.evaluation.protocols import Backend, O
from pytest_mxq.gates.scores import worst_first

if TYPE_CHECKING:
    from pytest_mxq.gates.base import AccuracyGate
    from pytest_mxq.gates.scores import Scores
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.plans import GatePlan

MAX_COMPARISONS = 3

# Writes the comparison of one output and returns its path: (plan, output's index, reference, quantized, text).
ComparisonWriter = Callable[["GatePlan", int, Any, Any, str], str]


class Spot(NamedTuple):
    """What is shown: an image or video, and which frame of a video (None: the one in the middle)."""

    output: int
    frame: int | None = None


def worst_spots(gate: AccuracyGate, scores: Scores, count: int) -> dict[Spot, str]:
    """Return the worst images or videos, of each video its worst frame, and a text for each."""
    spots = {}
    for place in worst_first(scores.values, higher_is_better=gate.scale.higher_is_better, frames=scores.frames)[:count]:
        index, frame = divmod(place, scores.frames)
        where = f"   frame {frame + 1} of {scores.frames}" if scores.frames > 1 else ""
        spots[Spot(index, frame)] = f"{gate.name} {gate.scale.show(scores.values[place])}{where}"
    return spots


def prompt_of(case: Case, outputs: O, index: int) -> str:
    """Return the prompt of an image or video."""
    return case.prompts[outputs.positions[index] // outputs.identity.images_per_prompt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons(Generic[O]):
    """Writes comparisons with what the backend shows of the outputs."""

    backend: Backend[O]
    write: ComparisonWriter

    def of(
        self, plan: GatePlan, gate: AccuracyGate, reference: O, quantized: O, spots: Mapping[Spot, str]
    ) -> tuple[str, ...]:
        """Write the comparisons of some spots, each with a text, and return their paths."""
        paths = []
        for (index, frame), text in spots.items():
            left, right = (self.backend.preview(gate, outputs, index, frame) for outputs in (reference, quantized))
            caption = f"{prompt_of(plan.case, quantized, index)}   {text}"
            paths.append(self.write(plan, index, left, right, caption))
        return tuple(paths)
