"""The comparisons that go with a verdict: which images, frames or audio are shown, and what stands below them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from pytest_mxq.evaluation.protocols import Backend, S
from pytest_mxq.gates.accuracy import worst_first

if TYPE_CHECKING:
    from pytest_mxq.gates.bounds import GateKind
    from pytest_mxq.gates.verdict import Scores
    from pytest_mxq.planning.case import Case, Plan

MAX_COMPARISONS = 3

# Writes the comparison of one image and returns its path: (plan, image's index, reference, quantized, text).
ComparisonWriter = Callable[["Plan", int, Any, Any, str], Path]


class Spot(NamedTuple):
    """What is shown: an image or video, and which frame of a video (None: the one in the middle)."""

    image: int
    frame: int | None = None


def worst_spots(kind: GateKind, scores: Scores, count: int) -> dict[Spot, str]:
    """The worst images or videos, of each video its worst frame, and a text for each."""
    spots = {}
    for place in worst_first(scores.values, higher_is_better=kind.higher_is_better, frames=scores.frames)[:count]:
        index, frame = divmod(place, scores.frames)
        where = f"   frame {frame + 1} of {scores.frames}" if scores.frames > 1 else ""
        spots[Spot(index, frame)] = f"{kind.name} {kind.show(scores.values[place])}{where}"
    return spots


def prompt_of(case: Case, outputs: S, index: int) -> str:
    """The prompt of an image or video."""
    return case.prompts[outputs.positions[index] // outputs.identity.images_per_prompt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons(Generic[S]):
    """Writes comparisons with what the backend shows of the outputs."""

    backend: Backend[S]
    write: ComparisonWriter

    def of(self, plan: Plan, case: Case, reference: S, quantized: S, spots: Mapping[Spot, str]) -> tuple[str, ...]:
        """Write the comparisons of some spots, each with a text; their paths."""
        paths = []
        for (index, frame), text in spots.items():
            left, right = (
                self.backend.image(plan.cell.gate, outputs, index, frame) for outputs in (reference, quantized)
            )
            caption = f"{prompt_of(case, quantized, index)}   {text}"
            paths.append(str(self.write(plan, index, left, right, caption)))
        return tuple(paths)
