"""Judging the evidence that quantization happened: a filter that matches nothing raises nothing by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pytest_mxq.gates.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Proof that quantization took place in an arm.

    Attributes:
        quantized: number of Linear layers whose weight is a torchao tensor.
        chosen: number of Linear layers that the model's rule chose and the format's shapes fit.
        total: number of all Linear layers of the denoiser.
        weight_share: share of the Linear weights that are quantized, 0 to 1.
        weight_bytes: bytes that the quantized weights occupy in the native format.
        bf16_bytes: bytes of the same weights in BF16.
        layers_sha256: digest of the sorted names of the quantized layers.
        layers: names of the quantized layers with every number written as ``*``, and how many there are of each.
        unfit: names of layers that the rule chose and whose shape the format does not take.
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

    @property
    def sentence(self) -> str:
        """One line for people."""
        ratio = self.weight_bytes / self.bf16_bytes if self.bf16_bytes else 1.0
        text = (
            f"{self.quantized} of {self.total} Linear layers quantized, {self.weight_share:.1%} of their weights, "
            f"{ratio:.3f} of the bytes"
        )
        return f"{text}; {len(self.unfit)} of unfit shape stay in BF16" if self.unfit else text


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
            f"none of {evidence.total} Linear layers is quantized: the model's rule keeps all in BF16, or "
            "their shapes do not fit the format; register the model with a rule of its own (hook pytest_mxq_models)"
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
    if stored is not None and stored.sha256 != evidence.layers_sha256:
        fewer = evidence.quantized < stored.quantized
        return (Outcome.NOT_QUANTIZED if fewer else Outcome.STALE), (
            f"{evidence.quantized} layers are quantized, and the baseline recorded {stored.quantized}: "
            f"{_layer_changes(stored.layers, evidence.layers)}; if that is meant, refresh it: pytest --mxq-refresh"
        )
    return None


def _layer_changes(old: dict[str, int], new: dict[str, int]) -> str:
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    changes = [f"{name} {old.get(name, 0)} -> {new.get(name, 0)}" for name in names]
    return ", ".join(changes[:4]) + (", ..." if len(changes) > 4 else "") if changes else "others of the same kinds"
