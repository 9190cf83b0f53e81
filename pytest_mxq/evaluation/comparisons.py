"""What shows a verdict's outputs: which of them and which frames, what stands below them, what is played."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from pytest_mxq.evaluation.protocols import Described, O, Outputs, Scorer
from pytest_mxq.gates.base import frame_preview
from pytest_mxq.gates.scores import worst_first
from pytest_mxq.gates.verdict import JudgedOutput, OutputFacts

if TYPE_CHECKING:
    from pytest_mxq.baselines.video import Video
    from pytest_mxq.gates.base import AccuracyGate
    from pytest_mxq.gates.scores import Scores
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.plans import OutputsPlan

MAX_COMPARISONS = 3
"""Outputs of a failed gate with a comparison sheet, lossless images and an LPIPS map."""

MAX_SHOWN = 48
"""Outputs of a failed gate with images at all: beyond the worst three they are compressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is shown of one output, as PIL images.

    Attributes:
        output: its index.
        name: of its files; gates that look at the same image or frame of an output share them.
        prompt: its prompt.
        text: what is said of it: its value, or its fault; None beyond the worst: compressed images are enough.
        reference: what the gate saw of BF16.
        quantized: what it saw of the quantized arm.
        lpips_map: where they differ, and the value that is white there; None where that says nothing.
        videos: the whole videos of both arms, to be played; None of images, and where one frame is enough.
        audio: the videos whose audio is to be played, of both arms; None without audio.
    """

    output: int
    name: str
    prompt: str
    text: str | None
    reference: Any
    quantized: Any
    lpips_map: tuple[Any, float] | None
    videos: tuple[Video, Video] | None = None
    audio: tuple[Video, Video] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonFiles:
    """The files that show one output: paths relative to the report's folder; None: not written."""

    sheet: str | None = None
    reference: str | None = None
    quantized: str | None = None
    lpips_map: str | None = None
    reference_video: str | None = None
    quantized_video: str | None = None
    reference_audio: str | None = None
    quantized_audio: str | None = None


# Writes the files of one output; None where they could not be written.
ComparisonWriter = Callable[["OutputsPlan", Shown], ComparisonFiles | None]


class Spot(NamedTuple):
    """What is shown: an image or video, and which frame of a video (None: the one in the middle)."""

    output: int
    frame: int | None = None


def worst_spots(gate: AccuracyGate, scores: Scores, *, sheets: int, count: int) -> dict[Spot, str | None]:
    """Return the worst images or videos, of each video its worst frame, and a text for each that gets a sheet."""
    spots: dict[Spot, str | None] = {}
    for place in worst_first(scores.values, higher_is_better=gate.scale.higher_is_better, frames=scores.frames)[:count]:
        index, frame = divmod(place, scores.frames)
        where = f", frame {frame + 1} of {scores.frames}" if scores.frames > 1 else ""
        text = f"{gate.name} {gate.scale.show(scores.values[place])}{where}"
        spots[Spot(index, frame)] = text if len(spots) < sheets else None
    return spots


def judged_outputs(outputs: Described) -> list[JudgedOutput]:
    """Return prompt and seed of each output, in order."""
    keys = list(outputs.identity.output_keys())
    return [JudgedOutput(prompt=keys[place].prompt, seed=keys[place].seed) for place in outputs.positions]


def prompt_of(case: Case, outputs: Described, index: int) -> str:
    """Return the prompt of an image or video."""
    return case.prompts[outputs.positions[index] // outputs.identity.images_per_prompt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons(Generic[O]):
    """Writes comparisons with what gates see of the outputs."""

    scorer: Scorer[O]
    write: ComparisonWriter

    def of(
        self,
        plan: OutputsPlan,
        arms: tuple[O, O],
        spots: Mapping[Spot, str | None],
        played: Spot | None = None,
    ) -> OutputFacts:
        """Write the comparisons of some spots, and return the ``outputs`` and ``comparisons`` of a verdict.

        Args:
            plan: the plan.
            arms: BF16's outputs and the quantized arm's.
            spots: what is shown, each with a text.
            played: whose video is written as well; None: no one's.
        """
        gate, judged, sheets = plan.gate, judged_outputs(arms[1]), []
        for spot, text in spots.items():
            shown = self._shown(gate, spot, text, judged[spot.output].prompt, arms)
            if text is not None and arms[1].noun == "video":
                shown = _with_media(shown, arms, is_played=spot == played)
            files = self.write(plan, shown)
            if files is None:
                continue
            if files.sheet is not None:
                sheets.append(files.sheet)
            judged[spot.output] = replace(
                judged[spot.output],
                frame=spot.frame if arms[1].noun == "video" and gate.preview is frame_preview else None,
                reference=files.reference,
                quantized=files.quantized,
                lpips_map=files.lpips_map,
                lpips_peak=shown.lpips_map[1] if files.lpips_map is not None and shown.lpips_map else None,
                reference_video=files.reference_video,
                quantized_video=files.quantized_video,
                reference_audio=files.reference_audio,
                quantized_audio=files.quantized_audio,
            )
        return {"outputs": tuple(judged), "comparisons": tuple(sheets)}

    def _shown(self, gate: AccuracyGate, spot: Spot, text: str | None, prompt: str, arms: tuple[O, O]) -> Shown:
        left, right = (self.scorer.preview(gate, outputs, spot.output, spot.frame) for outputs in arms)
        sees_frames = gate.preview is frame_preview
        return Shown(
            output=spot.output,
            name=_file_name(spot, None if sees_frames else gate, arms[1]),
            prompt=prompt,
            text=text,
            reference=left,
            quantized=right,
            lpips_map=self.scorer.lpips_map(left, right) if sees_frames and text is not None else None,
        )


def _file_name(spot: Spot, seen_by: AccuracyGate | None, outputs: Described) -> str:
    """Return ``04``, of a video ``04-frame-017``, and ``04-audio`` of what one gate alone looks at."""
    if seen_by is not None:
        return f"{spot.output:02d}-{seen_by.name}"
    if outputs.noun != "video":
        return f"{spot.output:02d}"
    return f"{spot.output:02d}-frame-{'middle' if spot.frame is None else f'{spot.frame:03d}'}"


def _with_media(shown: Shown, arms: tuple[Outputs, Outputs], *, is_played: bool) -> Shown:
    """Return what is shown with the videos of both arms, as far as they are played or have audio."""
    first, second = (_video(outputs, shown.output) for outputs in arms)
    has_audio = first.audio is not None and second.audio is not None
    return replace(shown, videos=(first, second) if is_played else None, audio=(first, second) if has_audio else None)


def _video(outputs: Outputs, index: int) -> Video:
    video: Video = outputs.subset([outputs.positions[index]]).to_media()[0]
    return video
