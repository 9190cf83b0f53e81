"""The comparison images that go with a verdict: which outputs and frames are shown, and what stands below them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from pytest_mxq.evaluation.protocols import Backend, O, Outputs
from pytest_mxq.gates.base import frame_preview
from pytest_mxq.gates.scores import worst_first
from pytest_mxq.gates.verdict import JudgedOutput

if TYPE_CHECKING:
    from pytest_mxq.baselines.video import Video
    from pytest_mxq.gates.base import AccuracyGate
    from pytest_mxq.gates.scores import Scores
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.plans import GatePlan

MAX_COMPARISONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is shown of one output, as PIL images.

    Attributes:
        output: its index.
        prompt: its prompt.
        text: what is said of it: its value, or its fault.
        reference: what the gate saw of BF16.
        quantized: what it saw of the quantized arm.
        lpips_map: where they differ, and the value that is white there; None where that says nothing.
        videos: the whole videos of both arms, to be played; None of images, and where one frame is enough.
    """

    output: int
    prompt: str
    text: str
    reference: Any
    quantized: Any
    lpips_map: tuple[Any, float] | None
    videos: tuple[Video, Video] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonFiles:
    """The files that show one output: paths relative to the report's folder; None: not written."""

    sheet: str
    reference: str | None = None
    quantized: str | None = None
    lpips_map: str | None = None
    reference_video: str | None = None
    quantized_video: str | None = None


# Writes the files of one output; None where they could not be written.
ComparisonWriter = Callable[["GatePlan", Shown], ComparisonFiles | None]


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


def judged_outputs(outputs: Outputs) -> list[JudgedOutput]:
    """Return prompt and seed of each output, in order."""
    keys = list(outputs.identity.output_keys())
    return [JudgedOutput(prompt=keys[place].prompt, seed=keys[place].seed) for place in outputs.positions]


def prompt_of(case: Case, outputs: O, index: int) -> str:
    """Return the prompt of an image or video."""
    return case.prompts[outputs.positions[index] // outputs.identity.images_per_prompt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons(Generic[O]):
    """Writes comparisons with what the backend shows of the outputs."""

    backend: Backend[O]
    write: ComparisonWriter

    def of(
        self,
        plan: GatePlan,
        gate: AccuracyGate,
        arms: tuple[O, O],
        spots: Mapping[Spot, str],
        played: Spot | None = None,
    ) -> dict[str, Any]:
        """Write the comparisons of some spots, and return the ``outputs`` and ``comparisons`` of a verdict.

        Args:
            plan: the plan.
            gate: its gate.
            arms: BF16's outputs and the quantized arm's.
            spots: what is shown, each with a text.
            played: whose video is written as well; None: no one's.
        """
        reference, quantized = arms
        judged, sheets = judged_outputs(quantized), []
        for spot, text in spots.items():
            shown = self._shown(gate, spot, text, judged[spot.output].prompt, arms)
            if spot == played and quantized.noun == "video":
                shown = replace(shown, videos=(_video(reference, spot.output), _video(quantized, spot.output)))
            files = self.write(plan, shown)
            if files is None:
                continue
            sheets.append(files.sheet)
            judged[spot.output] = replace(
                judged[spot.output],
                frame=spot.frame if quantized.noun == "video" and gate.preview is frame_preview else None,
                reference=files.reference,
                quantized=files.quantized,
                lpips_map=files.lpips_map,
                lpips_peak=shown.lpips_map[1] if files.lpips_map is not None and shown.lpips_map else None,
                reference_video=files.reference_video,
                quantized_video=files.quantized_video,
            )
        return {"outputs": tuple(judged), "comparisons": tuple(sheets)}

    def _shown(self, gate: AccuracyGate, spot: Spot, text: str, prompt: str, arms: tuple[O, O]) -> Shown:
        left, right = (self.backend.preview(gate, outputs, spot.output, spot.frame) for outputs in arms)
        is_image = gate.preview is frame_preview
        return Shown(
            output=spot.output,
            prompt=prompt,
            text=text,
            reference=left,
            quantized=right,
            lpips_map=self.backend.lpips_map(left, right) if is_image else None,
        )


def _video(outputs: Outputs, index: int) -> Video:
    video: Video = outputs.subset([outputs.positions[index]]).to_media()[0]
    return video
