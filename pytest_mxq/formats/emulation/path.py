"""Which code computes emulated numerics on a device: fused kernels where they run and agree, else plain operations."""

from dataclasses import dataclass
from functools import cache

import torch

from pytest_mxq.formats.emulation.numerics import NUMERICS, NumberFormat, Numerics, Operand


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Which code computes a format's numerics on a device.

    Attributes:
        numerics: it.
        text: what it is, for the record.
    """

    numerics: Numerics
    text: str


@cache
def path_of(number_format: NumberFormat, device: torch.device) -> Path:
    """Return fused kernels on a CUDA device where they compile and agree with the plain operations, else those.

    The first call on a device compiles the kernels (seconds; Triton keeps them on disk) and runs both.
    """
    if device.type != "cuda":
        return Path(numerics=NUMERICS[number_format], text="PyTorch operations")
    return try_kernels(number_format, device)


def try_kernels(number_format: NumberFormat, device: torch.device) -> Path:
    """Return the fused kernels if they compute what the plain operations do, else those with the reason."""
    plain = NUMERICS[number_format]
    try:
        from pytest_mxq.formats.emulation.kernels import FUSED

        fused = FUSED[number_format]
        agreed = _agree(plain, fused, device)
    except Exception as error:  # noqa: BLE001 - Triton's compiler raises what it likes, and every cause is told
        cause = " ".join(f"{type(error).__name__}: {error}".split())  # a compiler's error quotes the source first
        shown = cause if len(cause) <= 200 else f"{cause[:60]} ... {cause[-130:]}"
        return Path(numerics=plain, text=f"PyTorch operations: the Triton kernels do not run here ({shown})")
    if not agreed:
        return Path(numerics=plain, text="PyTorch operations: the Triton kernels compute other values here")
    return Path(numerics=fused, text="Triton kernels")


def _agree(plain: Numerics, fused: Numerics, device: torch.device) -> bool:
    """Return whether both compute the same Linear of a small activation, bit by bit."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 96, generator=generator).bfloat16().to(device)
    x = torch.randn(2, 33, 96, generator=generator).exp().bfloat16().to(device)
    x[0] = -x[0]
    dtype = plain.gemm_dtype(device)
    native = plain.quantize_weight(weight).operand
    weight_operand = Operand(native.values.to(dtype), native.scale)
    outputs = []
    for numerics in (plain, fused):
        operand = numerics.quantize_activation(x, dtype)
        outputs += [operand.values, numerics.linear(operand, weight_operand, weight[:, 0].contiguous())]
        outputs += [] if operand.scale is None else [operand.scale]
    half = len(outputs) // 2
    return all(torch.equal(mine, other) for mine, other in zip(outputs[:half], outputs[half:], strict=True))
