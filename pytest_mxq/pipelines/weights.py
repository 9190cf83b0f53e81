"""Facts about weight tensors, plain or quantized: names, storage, versions, bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.formats.emulation.tensor import EmulatedTensor
from pytest_mxq.pipelines.quantize import native_bytes


class TensorState(NamedTuple):
    """The identity of a tensor: equal states hold the same numbers, unless something wrote through ``x.data``.

    Attributes:
        tensor: the id of the Python object.
        kind: its class, its dtype and its device.
        memory: address of each inner tensor's memory.
        versions: in-place changes of each inner tensor so far, as autograd counts them.
    """

    tensor: int
    kind: tuple[type, torch.dtype, torch.device]
    memory: tuple[int, ...]
    versions: tuple[int, ...]


def named_tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each parameter and buffer of a module once, with its first name."""
    return itertools.chain(module.named_parameters(), module.named_buffers())


def layer_name(tensor_name: str) -> str:
    """Return the name of the layer that a parameter belongs to; a bare parameter's own name.

    >>> layer_name("blocks.0.to_q.weight"), layer_name("blocks.0.attn.in_proj_weight")
    ('blocks.0.to_q', 'blocks.0.attn.in_proj_weight')
    """
    return tensor_name.removesuffix(".weight")


def is_quantized(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is a torchao tensor, or a plain one (two dimensions or more) of elements of one byte."""
    if isinstance(tensor, TorchAOBaseTensor):
        return True
    return tensor.dtype.itemsize == 1 and tensor.dtype is not torch.bool and tensor.dim() > 1


def is_emulated(tensor: torch.Tensor) -> bool:
    """Return whether a weight is one of this package's own, which quantize the activation as well."""
    return isinstance(tensor, EmulatedTensor)


def held_bytes(tensor: torch.Tensor) -> int:
    """Return the bytes that a weight occupies in its native format."""
    return native_bytes(tensor) if isinstance(tensor, TorchAOBaseTensor) else tensor.nbytes


def inner_tensors(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the plain tensors that a tensor subclass holds, all levels down; a plain tensor itself."""
    if not isinstance(tensor, TorchAOBaseTensor):
        return (tensor,)
    names, _ = tensor.__tensor_flatten__()
    return tuple(inner for name in names for inner in inner_tensors(getattr(tensor, name)))


def storage_address(tensor: torch.Tensor) -> int:
    """Return the address of the memory that a tensor and its views share: of the first inner tensor's; 0 for none."""
    first = inner_tensors(tensor)[0]
    return 0 if first.is_meta else first.untyped_storage().data_ptr()


def tensor_state(tensor: torch.Tensor) -> TensorState:
    """Return the state of a tensor, without reading its numbers."""
    inner = inner_tensors(tensor)
    return TensorState(
        tensor=id(tensor),
        kind=(type(tensor), inner[0].dtype, inner[0].device),
        memory=tuple(0 if part.is_meta else part.data_ptr() for part in inner),
        versions=tuple(0 if part.is_inference() else part._version for part in inner),  # noqa: SLF001 - see emulation
    )


def state_change(before: TensorState, after: TensorState) -> str | None:
    """Return what happened to a tensor between two of its states, in words; None if nothing did.

    A tensor that moved to another dtype or device is not called changed in place, though its memory is new.
    """
    if before == after:
        return None
    if before.tensor != after.tensor:
        return "replaced"
    if before.kind != after.kind:
        changes = zip(before.kind[1:], after.kind[1:], strict=True)
        return ", ".join(f"{old} -> {new}".replace("torch.", "") for old, new in changes if old != new) or "replaced"
    return "changed in place" if before.memory == after.memory else "data replaced"
