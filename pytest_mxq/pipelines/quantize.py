"""Choose layers, quantize them with torchao, and prove that it happened."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torchao.quantization import quantize_
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.baselines.manifest import Selection
from pytest_mxq.errors import MxqError
from pytest_mxq.formats import Format
from pytest_mxq.gates.verdict import Evidence
from pytest_mxq.models import SelectionRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The layers that a rule chooses for a format.

    Attributes:
        names: names of the layers to quantize, sorted.
        unfit: layers that the rule chose and whose shape the format does not take, sorted.
        total: number of all Linear layers.
        weights: number of weights of the chosen layers.
        all_weights: number of weights of all Linear layers.
    """

    names: tuple[str, ...]
    unfit: tuple[str, ...]
    total: int
    weights: int
    all_weights: int


def choose_layers(denoiser: torch.nn.Module, rule: SelectionRule, number_format: Format) -> Chosen:
    """Apply a selection rule to a denoiser; also works on the meta device."""
    linears = {name: module for name, module in denoiser.named_modules() if isinstance(module, torch.nn.Linear)}
    wanted = {
        name: layer for name, layer in linears.items() if not rule.skips(name, layer.in_features, layer.out_features)
    }
    fitting = {name for name, layer in wanted.items() if number_format.fits(layer.in_features, layer.out_features)}
    return Chosen(
        names=tuple(sorted(fitting)),
        unfit=tuple(sorted(wanted.keys() - fitting)),
        total=len(linears),
        weights=sum(linears[name].weight.numel() for name in fitting),
        all_weights=sum(layer.weight.numel() for layer in linears.values()),
    )


def share_copy(denoiser: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of the module tree that shares every parameter and buffer with the original.

    Quantizing the copy replaces only its quantized parameters, so that one set of BF16 weights serves all arms.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in itertools.chain(denoiser.parameters(), denoiser.buffers())}
    return copy.deepcopy(denoiser, memo)


def quantize_layers(denoiser: torch.nn.Module, chosen: Chosen, number_format: Format, *, emulated: bool) -> None:
    """Quantize the chosen layers in place, with the format's native configuration or its emulation.

    Raises:
        MxqError: the format cannot be emulated, or torchao refuses.
    """
    builder = number_format.emulation if emulated else number_format.native
    if builder is None:
        raise MxqError(f"format {number_format.name!r} cannot be emulated")
    names = set(chosen.names)
    if names:
        quantize_(denoiser, builder(), filter_fn=lambda _module, name: name in names)


def collect_evidence(denoiser: torch.nn.Module, chosen: Chosen) -> Evidence:
    """Return what the denoiser really holds: which Linear weights are torchao tensors, and their bytes."""
    linears = [(name, layer.weight) for name, layer in denoiser.named_modules() if isinstance(layer, torch.nn.Linear)]
    quantized = [(name, weight) for name, weight in linears if isinstance(weight, TorchAOBaseTensor)]
    count = sum(weight.numel() for _, weight in linears)
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
        unfit=chosen.unfit,
    )


def native_bytes(weight: torch.Tensor) -> int:
    """Return the bytes of a quantized weight in its native format: its inner tensors (itself reports BF16's size).

    An emulated weight holds wider values and says itself what the native format would occupy.
    """
    stated = getattr(weight, "native_bytes", None)
    if isinstance(stated, int):
        return stated
    names, _ = weight.__tensor_flatten__()  # type: ignore[attr-defined]  # the protocol of tensor subclasses
    return sum(getattr(weight, name).nbytes for name in names)
