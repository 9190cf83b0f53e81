"""Choose layers, quantize them with torchao, and prove that it happened."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torchao.quantization import quantize_
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.baselines.manifest import Selection
from pytest_mxq.errors import MxqError
from pytest_mxq.formats import Format
from pytest_mxq.gates.evidence import Evidence, RunEvidence
from pytest_mxq.models import SelectionRule
from pytest_mxq.pipelines.compile import inductor_settings_kept
from pytest_mxq.pipelines.execution import Execution


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfitLayer:
    """A layer that the rule chose and that cannot be quantized: it stays as it was loaded.

    Attributes:
        name: its name in the denoiser.
        reason: why, such as "in_features 24 is not a multiple of 32".
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The layers that a rule chooses for a format.

    Attributes:
        names: names of the layers to quantize, sorted.
        unfit: layers that the rule chose and that cannot be quantized, sorted by name.
        total: number of all Linear layers.
        weights: number of weights of the chosen layers.
        all_weights: number of the denoiser's matrix weights, see `matrix_weights`.
    """

    names: tuple[str, ...]
    unfit: tuple[UnfitLayer, ...]
    total: int
    weights: int
    all_weights: int


def choose_layers(denoiser: torch.nn.Module, rule: SelectionRule, number_format: Format) -> Chosen:
    """Apply a selection rule to a denoiser; also works on the meta device."""
    linears = dict(_linears(denoiser))
    wanted = {
        name: layer for name, layer in linears.items() if not rule.skips(name, layer.in_features, layer.out_features)
    }
    reasons = {name: _reason_against(layer, number_format) for name, layer in wanted.items()}
    fitting = sorted(name for name, reason in reasons.items() if reason is None)
    unfit = sorted((name, reason) for name, reason in reasons.items() if reason is not None)
    return Chosen(
        names=tuple(fitting),
        unfit=tuple(UnfitLayer(name=name, reason=reason) for name, reason in unfit),
        total=len(linears),
        weights=sum(linears[name].weight.numel() for name in fitting),
        all_weights=matrix_weights(denoiser),
    )


def matrix_weights(denoiser: torch.nn.Module) -> int:
    """Return the number of weights that multiply activations: those of Linear layers and parameters without a layer.

    A parameter without a layer has two dimensions or more and belongs to a module of another class, such as
    ``in_proj_weight`` of `torch.nn.MultiheadAttention` or the stacked experts of a mixture. Without them a denoiser of
    which 40 % are quantized would seem to be quantized whole. Kernels of convolutions and tables of embeddings do not
    count.
    """
    owners = (module for module in denoiser.modules() if not isinstance(module, _NO_MATRICES))
    weights = (weight for module in owners for weight in module.parameters(recurse=False) if weight.ndim >= 2)
    return sum({id(weight): weight.numel() for weight in weights}.values())


_NO_MATRICES = (torch.nn.modules.conv._ConvNd, torch.nn.Embedding, torch.nn.EmbeddingBag)  # noqa: SLF001  # their base


def _linears(denoiser: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Linear]]:
    return ((name, layer) for name, layer in denoiser.named_modules() if isinstance(layer, torch.nn.Linear))


def _reason_against(layer: torch.nn.Linear, number_format: Format) -> str | None:
    """Return why a layer cannot be quantized; None if it can."""
    if isinstance(layer, torch.nn.modules.linear.NonDynamicallyQuantizableLinear):
        # F.multi_head_attention_forward reads its weight and never calls it, so that no quantized Linear would run.
        return "nn.MultiheadAttention reads its weight without calling it"
    if layer.weight.dtype is not torch.bfloat16:
        return f"its weight is {layer.weight.dtype}"
    return number_format.misfit(layer.in_features, layer.out_features)


def share_copy(denoiser: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of the module tree that shares every parameter and buffer with the original.

    Quantizing the copy replaces only its quantized parameters, so that one set of BF16 weights serves all arms.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in itertools.chain(denoiser.parameters(), denoiser.buffers())}
    return copy.deepcopy(denoiser, memo)


def quantize_layers(denoiser: torch.nn.Module, chosen: Chosen, number_format: Format, *, emulated: bool) -> None:
    """Quantize the chosen layers in place, with the format's native configuration or its emulation.

    Inductor's configuration is the same afterwards, whatever torchao's own sets.

    Raises:
        MxqError: the format cannot be emulated, or torchao refuses.
    """
    builder = number_format.emulation if emulated else number_format.native
    if builder is None:
        raise MxqError(f"format {number_format.name!r} cannot be emulated")
    names = set(chosen.names)
    if names:
        with inductor_settings_kept():
            quantize_(denoiser, builder(), filter_fn=lambda _module, name: name in names)


def collect_evidence(
    denoiser: torch.nn.Module, chosen: Chosen, weight_ratio: float | None = None, min_features: int | None = None
) -> Evidence:
    """Return what the denoiser really holds: which Linear weights are torchao tensors, and their bytes."""
    linears = [(name, layer.weight) for name, layer in _linears(denoiser)]
    quantized = [(name, weight) for name, weight in linears if isinstance(weight, TorchAOBaseTensor)]
    count = matrix_weights(denoiser)
    quantized_count = sum(weight.numel() for _, weight in quantized)
    share = quantized_count / count if count else 0.0
    selection = Selection.of((name for name, _ in quantized), total=len(linears), weight_share=share)
    return Evidence(
        quantized=len(quantized),
        chosen=len(chosen.names),
        total=len(linears),
        weight_share=share,
        weight_bytes=sum(native_bytes(weight) for _, weight in quantized),
        bf16_bytes=2 * quantized_count,
        layers_sha256=selection.sha256,
        layers=selection.layers,
        unfit=tuple(map(str, chosen.unfit)),
        widest=max((min(layer.in_features, layer.out_features) for _, layer in _linears(denoiser)), default=None),
        min_features=min_features,
        weight_ratio=weight_ratio,
        emulated_by=", ".join(sorted({by for _, weight in quantized if (by := getattr(weight, "computed_by", ""))}))
        or None,
    )


def run_evidence(built: Evidence, chosen: Chosen, execution: Execution, prefix: str = "") -> Evidence:
    """Return the evidence of an arm with what an observed call really multiplied with.

    Args:
        built: what the denoiser held when the arm was built.
        chosen: what the rule chose.
        execution: the record of the call, of all denoisers together.
        prefix: what stands before the names of the quantized denoiser's layers where several are observed.
    """
    wanted = {prefix + name for name in chosen.names}
    ran = wanted & set(execution.layers)
    faults = [f"{name} ran quantized in some calls alone" for name in sorted(wanted & set(execution.partly))]
    faults += [f"{name} did not run quantized" for name in sorted(wanted - ran - set(execution.partly))]
    faults += execution.changed
    return replace(
        built,
        weight_share=execution.weight_share,
        weight_bytes=execution.weight_bytes,
        bf16_bytes=execution.bf16_bytes,
        run=RunEvidence(
            ran=len(ran),
            denoiser_calls=sum(calls for _, calls in execution.denoiser_calls),
            arithmetic_share=execution.arithmetic_share,
            foreign_share=execution.foreign_share,
            beside_share=execution.beside_share,
            multiplied=execution.multiplied.value,
            faults=tuple(faults),
            skipped=tuple(sorted(wanted & set(execution.skipped))),
        ),
    )


def denoisers_of(pipe: Any, denoiser: str) -> tuple[str, ...]:
    """Return the names of a pipeline's denoisers: the recipe's, and further ones of its kind (Wan 2.2's second)."""
    kind = type(getattr(pipe, denoiser))
    return (denoiser, *(name for name, part in pipe.components.items() if name != denoiser and type(part) is kind))


def native_bytes(weight: torch.Tensor) -> int:
    """Return the bytes of a quantized weight in its native format: its inner tensors (itself reports BF16's size).

    An emulated weight holds wider values and says itself what the native format would occupy.
    """
    stated = getattr(weight, "native_bytes", None)
    if isinstance(stated, int):
        return stated
    names, _ = weight.__tensor_flatten__()  # type: ignore[attr-defined]  # the protocol of tensor subclasses
    return sum(getattr(weight, name).nbytes for name in names)
