"""Memory: what one call allocates at most on a CUDA device, and what a module's weights occupy."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.errors import MxqError

_GIB = 2**30


class NoPeakError(MxqError):
    """A device that keeps no account of allocated memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Memory of one call on a CUDA device, in GiB.

    Attributes:
        allocated_gib: most that tensors held at once, the gate's number.
        reserved_gib: most that torch held of the device.
        resident_gib: what tensors held before the call; more than the arm's weights if another arm is resident.
        kept_gib: what they held more once its result was dropped; a warm call should leave nothing.
    """

    allocated_gib: float
    reserved_gib: float
    resident_gib: float
    kept_gib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightBytes:
    """What the parameters and buffers of a module occupy, storage shared between them counted once.

    Attributes:
        total: bytes of all of them.
        quantized: bytes of the quantized ones.
        bf16_equivalent: bytes that the quantized ones would occupy in BF16.
    """

    total: int
    quantized: int
    bf16_equivalent: int


def measure_peak(run: Callable[[], object], device: torch.device) -> Peak:
    """Call the workload once and read what it allocated at most; only the tested arm should be resident.

    Args:
        run: one whole call of the workload, warm: compiling allocates too.
        device: the CUDA device that it runs on.

    Raises:
        NoPeakError: the device is not a CUDA device.
    """
    if device.type != "cuda":
        raise NoPeakError(f"no peak memory on device {device}; the memory gate needs a CUDA device. Run it on a GPU.")
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    resident = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    gc.collect()
    return Peak(
        allocated_gib=torch.cuda.max_memory_allocated(device) / _GIB,
        reserved_gib=torch.cuda.max_memory_reserved(device) / _GIB,
        resident_gib=resident / _GIB,
        kept_gib=(torch.cuda.memory_allocated(device) - resident) / _GIB,
    )


def weight_bytes(module: nn.Module) -> WeightBytes:
    """Measure a module by the inner tensors of its weights: a quantized weight itself reports BF16's dtype and size.

    What is measured is what is there: an emulated weight holds wider values than its native format would.
    """
    weights = list({id(weight): weight for weight in chain(module.parameters(), module.buffers())}.values())
    quantized = [weight for weight in weights if isinstance(weight, TorchAOBaseTensor)]
    return WeightBytes(
        total=_stored_bytes(weights),
        quantized=_stored_bytes(quantized),
        bf16_equivalent=torch.bfloat16.itemsize * sum(weight.numel() for weight in quantized),
    )


def _stored_bytes(tensors: list[Tensor]) -> int:
    storages = (inner.untyped_storage() for tensor in tensors for inner in _inner_tensors(tensor))
    # The address of the storage object, which no public name tells; a data pointer is 0 for every meta tensor.
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())  # noqa: SLF001


def _inner_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the plain tensors that a tensor subclass is made of, by the protocol of traceable subclasses."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from _inner_tensors(getattr(tensor, name))
    else:
        yield tensor
