"""The comparisons that go with a verdict: which pictures, frames or sounds are shown, and what stands below them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from pytest_mxq.evaluation.protocols import Engines, S
from pytest_mxq.gates.accuracy import worst_first

if TYPE_CHECKING:
    from pytest_mxq.gates.bounds import GateKind
    from pytest_mxq.gates.verdict import Scores
    from pytest_mxq.planning.case import Case, Plan

MAX_COMPARISONS = 3

# Writes the comparison of one picture and returns its path: (plan, picture's index, reference, quantized, text).
ComparisonWriter = Callable[["Plan", int, Any, Any, str], Path]


class Spot(NamedTuple):
    """What is shown: a picture or clip, and which frame of a clip (None: the one in the middle)."""

    picture: int
    frame: int | None = None


def worst_spots(kind: GateKind, scores: Scores, count: int) -> dict[Spot, str]:
    """The worst pictures or clips, of each clip its worst frame, and a text for each."""
    spots = {}
    for place in worst_first(scores.values, higher_is_better=kind.higher_is_better, frames=scores.frames)[:count]:
        index, frame = divmod(place, scores.frames)
        where = f"   frame {frame + 1} of {scores.frames}" if scores.frames > 1 else ""
        spots[Spot(index, frame)] = f"{kind.name} {kind.show(scores.values[place])}{where}"
    return spots


def prompt_of(case: Case, shot: S, index: int) -> str:
    """The prompt of a picture or clip."""
    return case.prompts[shot.positions[index] // shot.identity.images_per_prompt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons(Generic[S]):
    """Writes comparisons with what the engines show of a shot."""

    engines: Engines[S]
    write: ComparisonWriter

    def of(self, plan: Plan, case: Case, reference: S, quantized: S, spots: Mapping[Spot, str]) -> tuple[str, ...]:
        """Write the comparisons of some spots, each with a text; their paths."""
        paths = []
        for (index, frame), text in spots.items():
            left, right = (self.engines.picture(plan.cell.gate, shot, index, frame) for shot in (reference, quantized))
            caption = f"{prompt_of(case, quantized, index)}   {text}"
            paths.append(str(self.write(plan, index, left, right, caption)))
        return tuple(paths)
