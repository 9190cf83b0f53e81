"""What a gate says in the end: one record for every requested (case, format, gate)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypedDict

from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.gates.base import Scale
from pytest_mxq.gates.evidence import Evidence
from pytest_mxq.gates.memory import MemoryFacts
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.scores import Scores
from pytest_mxq.gates.speedup import SpeedFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One planned gate of one case in one format: what a verdict belongs to."""

    nodeid: str
    model: str
    case: str
    format: str
    gate: str


class OutputFault(NamedTuple):
    """What is degenerate about one image or video: its index among those generated, and a sentence."""

    output: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far regenerated BF16 outputs were from the stored ones on one gate's scale.

    Attributes:
        gate: its name.
        value: of the outputs that were farthest apart; None where all were bit-identical.
        limit: beyond which no format can be judged.
    """

    gate: str
    value: float | None
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceNote:
    """Which BF16 outputs or times a verdict was made against, and why these.

    Attributes:
        mode: "stored" or "live".
        reason: one sentence.
        manifest: path of the stored baseline's manifest; None without one.
        drift: what the drift check of this run found, on the scale of each gate that tells drift.
        noise_gate: name of the gate on whose scale the two that follow are; None without them.
        noise_repeat: BF16 against BF16 repeated, as stored at refresh.
        noise_compiled: BF16 eager against BF16 compiled, as stored at refresh.
        created: ISO 8601 date and time of the stored baseline; None without one.
        fingerprint: of the machine and software that the stored baseline comes from; None without one.
    """

    mode: str
    reason: str
    manifest: str | None = None
    drift: tuple[Drift, ...] = ()
    noise_gate: str | None = None
    noise_repeat: float | None = None
    noise_compiled: float | None = None
    created: str | None = None
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedOutput:
    """One image or video that was judged, and the files that show it; their paths are as those of comparisons.

    Attributes:
        prompt: its prompt.
        seed: of its noise.
        frame: index of the frame that the files show; None of an image, of audio, and where no file shows it.
        reference: path of what the gate saw of BF16, a lossless PNG or, beyond the worst outputs, a JPEG; None where
            no file shows it, as those below.
        quantized: path of what it saw of the quantized arm.
        lpips_map: path of the LPIPS map of both: black where they agree, white at ``lpips_peak``.
        lpips_peak: largest value of that map.
        reference_video: path of a copy of BF16's video that browsers play, lossy; None where it is not kept.
        quantized_video: path of one of the quantized arm's.
        reference_audio: path of BF16's audio, WAV with 16 bits; None beyond the worst outputs, and without audio.
        quantized_audio: path of the quantized arm's.
    """

    prompt: str
    seed: int
    frame: int | None = None
    reference: str | None = None
    quantized: str | None = None
    lpips_map: str | None = None
    lpips_peak: float | None = None
    reference_video: str | None = None
    quantized_video: str | None = None
    reference_audio: str | None = None
    quantized_audio: str | None = None


class OutputFacts(TypedDict, total=False):
    """Fields of a verdict on outputs that are known before it is decided."""

    evidence: Evidence | None
    reference: ReferenceNote
    cautions: tuple[str, ...]
    outputs: tuple[JudgedOutput, ...]
    comparisons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The record of one cell.

    Attributes:
        cell: what was asked for.
        outcome: the kind of verdict.
        sentence: one line that someone who has never seen the project understands.
        scale: how the gate's numbers compare and read; None where no gate was reached.
        observed: the number that was compared, in the gate's unit.
        bound: the number it was compared with.
        worst_bound: the bound of the worst output, where the gate has one.
        worst_prompt: the prompt of the worst output.
        scores: every value of an accuracy gate.
        evidence: proof that quantization took place.
        speed: the numbers of a speed gate.
        memory: the numbers of a memory gate.
        reference: what BF16 was.
        emulated: whether the format's numerics were emulated.
        cautions: what is worth a look though the verdict does not depend on it.
        outputs: the images or videos that were judged, in the order of the scores: ``scores.frames`` values each.
        comparisons: paths of the comparison images, worst first; in a report relative to its folder.
        next_command: the command that runs this one item again.
        seconds: wall time of the cell.
        fingerprint: the hard fields of the machine and software that judged.
    """

    cell: Cell
    outcome: Outcome
    sentence: str
    scale: Scale | None = None
    observed: float | None = None
    bound: float | None = None
    worst_bound: float | None = None
    worst_prompt: str | None = None
    scores: Scores | None = None
    evidence: Evidence | None = None
    speed: SpeedFacts | None = None
    memory: MemoryFacts | None = None
    reference: ReferenceNote | None = None
    emulated: bool = False
    cautions: tuple[str, ...] = ()
    outputs: tuple[JudgedOutput, ...] = ()
    comparisons: tuple[str, ...] = ()
    next_command: str | None = None
    seconds: float = 0.0
    fingerprint: dict[str, str] | None = None

    def because(self, outcome: Outcome, sentence: str) -> Verdict:
        """Return the same record with another outcome and sentence."""
        return replace(self, outcome=outcome, sentence=sentence)

    def show(self, value: float) -> str:
        """Return a number of this verdict as people read it."""
        return f"{value:.4g}" if self.scale is None else self.scale.show(value)
