"""Bit patterns for the tests of fused kernels, what is the same of them, and calls for another process."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pytest_mxq.formats.emulation.numerics import NumberFormat, Operand

BF16 = torch.bfloat16


def block_maxima(size: int) -> Tensor:
    """Return 65,536 blocks (blocks, ``size``; bfloat16), one for each bit pattern, NaN and Inf among them.

    It stands first, and nothing of the block is larger: the others are multiples of it, ties, a zero, and subnormals.
    """
    first = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(BF16)
    steps = torch.linspace(-1, 1, size - 1)
    steps[::3] = steps[::3].mul(8).round().div(8)
    blocks = torch.cat([first[:, None], (first[:, None].float() * steps).to(BF16)], dim=1)
    blocks[::2, 5] = 0
    blocks[1::4, 6] = torch.tensor(1, dtype=torch.int16).view(BF16)
    return blocks


def same_bits(mine: Tensor, other: Tensor, *, zeros: bool = False) -> bool:
    """Return whether two tensors hold the same numbers; NaN is NaN, and ``zeros``: zeros have the same sign."""
    if mine.dtype != other.dtype or mine.shape != other.shape:
        return False
    nan = mine.isnan()
    if not torch.equal(nan, other.isnan()):
        return False
    mine, other = mine.masked_fill(nan, 1.0), other.masked_fill(nan, 1.0)
    return torch.equal(mine, other) and (not zeros or torch.equal(mine.signbit(), other.signbit()))


@dataclass(frozen=True, kw_only=True)
class Call:
    """An activation to quantize to ``dtype``, and what to multiply it with afterwards: (weight, bias) each."""

    number_format: NumberFormat
    x: Tensor
    dtype: torch.dtype
    products: tuple[tuple[Operand, Tensor | None], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a call gives."""

    operand: Operand
    products: tuple[Tensor, ...]
