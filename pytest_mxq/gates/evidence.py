"""Judging the evidence that quantization happened: a filter that matches nothing raises nothing by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pytest_mxq.gates.outcome import Outcome

BYTES_TOLERANCE = 0.05
"""How far the bytes of quantized weights may exceed the format's: scales are padded to the kernels' tiles."""
MAX_FOREIGN_SHARE = 0.05
"""Largest share of the arithmetic that may be with weights of no denoiser."""
USUAL_FOREIGN_SHARE = 0.001
"""Share of it that honest runs stay below; more is said, such as a LoRA's in BF16 that a hook adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvidence:
    """What the denoisers really multiplied with while the judged call ran.

    Attributes:
        ran: number of chosen layers that multiplied quantized whenever they were called, and never otherwise.
        denoiser_calls: calls of the denoisers.
        arithmetic_share: share of the multiplications (rows x in x out) that were with quantized weights, 0 to 1.
        multiplied: the worst of what multiplied quantized weights: "native", "emulated", "dequantized" or "none".
        faults: what else was seen: layers that ran otherwise, weights that changed meanwhile.
        skipped: names of layers among those that ran that some calls of the denoiser left out, as a cache does.
        foreign_share: share of the multiplications that were with weights that belong to no denoiser, 0 to 1.
        beside_share: share of the multiplications outside of the denoiser's calls with weights that belong to no
            component and have other shapes than the denoiser's, such as a reranker's, 0 to 1.
    """

    ran: int
    denoiser_calls: int
    arithmetic_share: float
    multiplied: str
    faults: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    foreign_share: float = 0.0
    beside_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Proof that quantization took place in an arm.

    Attributes:
        quantized: number of Linear layers whose weight is quantized.
        chosen: number of Linear layers that the model's rule chose and the format's shapes fit.
        total: number of all Linear layers of the denoiser.
        weight_share: share of the matrix weights of all denoisers that are quantized, 0 to 1.
        weight_bytes: bytes that the quantized weights occupy in the native format.
        bf16_bytes: bytes of the same weights in BF16.
        layers_sha256: digest of the sorted names of the quantized layers.
        layers: names of the quantized layers with every number written as ``*``, and how many there are of each.
        unfit: names of layers that the rule chose and that cannot be quantized, with the reason.
        widest: the larger of the smallest features of each layer: what the rule's size clause compares; None: unknown.
        min_features: that clause.
        weight_ratio: bytes over BF16's as the format defines them; None: not defined.
        emulated_by: which code computes the emulated numerics on the arm's device; None: none is emulated.
        run: what ran; None before anything did.
    """

    quantized: int
    chosen: int
    total: int
    weight_share: float
    weight_bytes: int
    bf16_bytes: int
    layers_sha256: str
    layers: dict[str, int]
    unfit: tuple[str, ...] = ()
    widest: int | None = None
    min_features: int | None = None
    weight_ratio: float | None = None
    emulated_by: str | None = None
    run: RunEvidence | None = None

    @property
    def bytes_ratio(self) -> float:
        """Return the bytes of the quantized weights over BF16's; 1 where none is quantized."""
        return self.weight_bytes / self.bf16_bytes if self.bf16_bytes else 1.0

    @property
    def sentence(self) -> str:
        """Return one line for people."""
        text = (
            f"{self.quantized} of {self.total} Linear layers quantized, {self.weight_share:.1%} of their weights, "
            f"{self.bytes_ratio:.3f} of the bytes"
        )
        if self.run is not None:
            text += f"; {self.run.arithmetic_share:.1%} of the denoiser's arithmetic ran {self.run.multiplied}"
        return f"{text}; {len(self.unfit)} that do not fit stay in BF16" if self.unfit else text


class StoredSelection(Protocol):
    """What a baseline recorded of the layers that a format quantizes."""

    @property
    def quantized(self) -> int:
        """How many layers."""
        ...

    @property
    def layers(self) -> dict[str, int]:
        """Their names with every number written as ``*``, and how many there are of each."""
        ...

    @property
    def sha256(self) -> str:
        """Digest of their sorted names."""
        ...


def judge_evidence(
    evidence: Evidence, *, min_share: float, stored: StoredSelection | None
) -> tuple[Outcome, str] | None:
    """Return what is wrong with an arm's evidence; None if it is quantized as it should be.

    Args:
        evidence: what the arm holds.
        min_share: smallest share of the Linear weights that must be quantized, 0 to 1.
        stored: the selection that the baseline recorded for this format, if it did.
    """
    if not evidence.quantized:
        return Outcome.NOT_QUANTIZED, (
            f"none of {evidence.total} Linear layers is quantized{_size_clause(evidence)}: the model's rule keeps all "
            "in BF16, or their shapes do not fit the format; register the model with a rule of its own (hook "
            "pytest_mxq_models)"
        )
    if evidence.quantized != evidence.chosen:
        return Outcome.NOT_QUANTIZED, (
            f"{evidence.quantized} Linear layers are quantized, and the model's rule chose {evidence.chosen}"
        )
    if evidence.weight_share < min_share:
        return Outcome.NOT_QUANTIZED, (
            f"only {evidence.weight_share:.1%} of the Linear weights are quantized, {min_share:.0%} are wanted; "
            "if that is meant, say mxq(min_share=...)"
        )
    if evidence.weight_ratio is not None and evidence.bytes_ratio > evidence.weight_ratio * (1 + BYTES_TOLERANCE):
        return Outcome.NOT_QUANTIZED, (
            f"the quantized weights occupy {evidence.bytes_ratio:.3f} of BF16's bytes, the format has "
            f"{evidence.weight_ratio:.3f}: some of them are not quantized"
        )
    if stored is not None and stored.sha256 != evidence.layers_sha256:
        fewer = evidence.quantized < stored.quantized
        return (Outcome.NOT_QUANTIZED if fewer else Outcome.STALE), (
            f"{evidence.quantized} layers are quantized, and the baseline recorded {stored.quantized}: "
            f"{_layer_changes(stored.layers, evidence.layers)}; if that is meant, refresh the baseline"
        )
    return None


def _size_clause(evidence: Evidence) -> str:
    """Return that every layer is smaller than the rule's size clause, or nothing."""
    widest, least = evidence.widest, evidence.min_features
    if widest is None or least is None or widest >= least:
        return ""
    return f" (its widest layer has {widest} features, and the rule keeps layers of fewer than {least} in BF16)"


def judge_run(
    evidence: Evidence, *, native: bool, weight_only: bool = False, layers_compared: bool = False
) -> tuple[Outcome, str] | None:
    """Return what is wrong with what an arm really ran; None if every chosen layer ran quantized, and nothing changed.

    Args:
        evidence: what was observed while the judged call ran.
        native: whether the format runs natively.
        weight_only: whether the format multiplies dequantized weights with activations in BF16.
        layers_compared: whether the calls of each layer are compared with BF16's. If not, every chosen layer must have
            run in every call of the denoiser.
    """
    run = evidence.run
    if run is None:
        return Outcome.NOT_QUANTIZED, "nothing was observed of what the quantized arm ran"
    if run.faults:
        return Outcome.NOT_QUANTIZED, f"what ran is not what was built: {_first(run.faults)}"
    if run.ran != evidence.chosen:
        return Outcome.NOT_QUANTIZED, (
            f"{run.ran} of {evidence.chosen} chosen layers ran quantized whenever they were called, in "
            f"{run.denoiser_calls} calls of the denoiser"
        )
    if run.skipped and not layers_compared:
        return Outcome.NOT_QUANTIZED, (
            f"some of {run.denoiser_calls} calls of the denoiser left out layers that are to run quantized, and no "
            f"layer calls of BF16 are known to compare with (an older pytest-mxq stored none; refresh the "
            f"baseline): {_first(run.skipped)}"
        )
    return _judge_foreign(run) or (None if weight_only else _judge_multiplied(run, native=native))


def _judge_foreign(run: RunEvidence) -> tuple[Outcome, str] | None:
    if run.foreign_share > MAX_FOREIGN_SHARE:
        return Outcome.NOT_QUANTIZED, (
            f"{run.foreign_share:.1%} of the arithmetic was with weights that belong to no denoiser of the quantized "
            f"pipeline, at most {MAX_FOREIGN_SHARE:.0%} may be: the chosen layers ran, and something else was computed "
            "beside them"
        )
    return None


def _judge_multiplied(run: RunEvidence, *, native: bool) -> tuple[Outcome, str] | None:
    if not native and run.multiplied == "dequantized":
        return Outcome.NOT_QUANTIZED, (
            "dequantized weights were multiplied with activations that are not quantized; if the format quantizes "
            "weights alone, say Format(weight_only=True)"
        )
    if native and run.multiplied in {"dequantized", "none"}:
        return Outcome.DEQUANTIZED, (
            f"the quantized weights were multiplied {run.multiplied}, not natively: this is no measure of the format"
        )
    return None


def _first(texts: tuple[str, ...]) -> str:
    return "; ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _layer_changes(old: dict[str, int], new: dict[str, int]) -> str:
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    changes = [f"{name} {old.get(name, 0)} -> {new.get(name, 0)}" for name in names]
    return ", ".join(changes[:4]) + (", ..." if len(changes) > 4 else "") if changes else "others of the same kinds"
