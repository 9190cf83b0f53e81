"""The numerics of the emulated formats by fused Triton kernels: the same values in one or two passes over memory.

As whole-tensor operations the quantization of an activation is some ten kernels, each of which reads and writes the
tensor; here it is one (two for NVFP4, whose tensor scale needs the largest magnitude first). What follows the GEMM, two
to four operations on its output, is one kernel as well.

The values are torchao's own bit by bit, also where `numerics` differs: blocks of any magnitude, NaN, Inf, the sign of
zero. What that takes:

- PyTorch divides a CUDA tensor by a Python number as a multiplication by the number's FP32 reciprocal, and a CPU tensor
  by dividing. Which value a near-tie takes hangs on it.
- Divisions of tensors are correctly rounded (``div_rn``; Triton's ``/`` is not).
- Products and sums are rounded one by one: no fused multiply-add (``enable_fp_fusion=False``).
- Numbers are rounded to an element by adding and subtracting, as `numerics` explains, here in FP32. It needs no
  hardware for float8.

This module imports triton, so import it where a kernel is wanted; `path.path_of` does, and says why where it fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from pytest_mxq.formats.emulation.numerics import (
    NUMERICS,
    Float8Numerics,
    MxNumerics,
    NumberFormat,
    Numerics,
    Nvfp4Numerics,
    Operand,
    fp32_product,
    scale_of,
)

ELEMENTS = 4096
"""Elements that one program quantizes at a time."""
AMAX_ELEMENTS = 16384
"""Elements whose largest magnitude one program finds."""
ROWS, COLUMNS = 4, 1024
"""Tile of a GEMM's output that one program finishes."""


class Element(NamedTuple):
    """A floating-point element: its ``largest`` number, that one's ``exponent``, and ``smallest``, a normal one's."""

    largest: float
    exponent: int
    mantissa_bits: int
    smallest: int

    @property
    def magic(self) -> float:
        """Return ``1.5 * 2**(23 - k)``: added and subtracted times a power of two, it keeps ``k`` mantissa bits."""
        return 1.5 * 2.0 ** (23 - self.mantissa_bits)

    @property
    def smallest_bits(self) -> int:
        """Return the FP32 bits of the smallest normal number."""
        return (127 + self.smallest) << 23

    @property
    def carry(self) -> int:
        """Return what carries into the FP32 exponent of a number exactly if its mantissa is above ``largest``'s."""
        return 0x7FFFFF - int((self.largest / 2.0**self.exponent - 1.0) * 2.0**23)


E4M3 = Element(largest=448.0, exponent=8, mantissa_bits=3, smallest=-6)
E2M1 = Element(largest=6.0, exponent=2, mantissa_bits=1, smallest=0)


@triton.jit
def _bits(x):
    return x.to(tl.int32, bitcast=True)


@triton.jit
def _number(bits):
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _clamp(x, low, high):
    """NaN stays NaN, as in `torch.clamp`."""
    return tl.clamp(x, low, high, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _divide(x, NUMBER: tl.constexpr, RECIPROCAL: tl.constexpr):
    """Divide by a Python number: multiply by its reciprocal, or divide where that is 0."""
    if RECIPROCAL != 0.0:
        return x * RECIPROCAL
    return tl.math.div_rn(x, tl.full(x.shape, NUMBER, tl.float32))


@triton.jit
def _round(x, SMALLEST: tl.constexpr, MAGIC: tl.constexpr):
    """Round to the nearest element, ties to even; the sign of zero stays."""
    power = _number(tl.maximum(_bits(x) & 0x7F800000, SMALLEST)) * MAGIC
    rounded = (x + power) - power
    return _number((_bits(rounded) & 0x7FFFFFFF) | (_bits(x) & -0x80000000))


@triton.jit
def _quantize_mx(
    x_ptr,
    out_ptr,
    blocks,
    LARGEST: tl.constexpr,
    EXPONENT: tl.constexpr,
    CARRY: tl.constexpr,
    SMALLEST: tl.constexpr,
    MAGIC: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    offsets = row[:, None] * 32 + tl.arange(0, 32)[None, :]
    inside = (row < blocks)[:, None]
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    amax = tl.max(_bits(x) & 0x7FFFFFFF, axis=1)[:, None]
    # The biased exponent of the block's scale (RCEIL): 255 for NaN, 254 for Inf; at 0 torchao scales by 1.
    scale = tl.maximum(((amax + CARRY) >> 23) - EXPONENT, 0)
    scale = tl.where(amax >= 0x7F800000, 254 + (amax > 0x7F800000).to(tl.int32), scale)
    factor = tl.where(scale == 0, 0x3F800000, tl.where(scale == 254, 0x00400000, (254 - scale) << 23))
    factor = tl.where(scale == 255, 0x7FC00000, factor)
    step = tl.where(scale == 255, 0x7FC00000, tl.where(scale == 0, 0x00400000, scale << 23))
    rounded = _round(_clamp(x * _number(factor), -LARGEST, LARGEST), SMALLEST, MAGIC)
    out = (rounded * _number(step)).to(tl.bfloat16)
    tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _largest_magnitude(x_ptr, bits_ptr, elements, BLOCK: tl.constexpr):
    """Raise ``bits_ptr`` to the largest magnitude's FP32 bits, whose order is that of the magnitudes, NaN on top."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < elements, other=0.0).to(tl.float32)
    tl.atomic_max(bits_ptr, tl.max(_bits(x) & 0x7FFFFFFF, axis=0))


@triton.jit
def _quantize_nvfp4(
    x_ptr,
    out_ptr,
    scale_ptr,
    blocks,
    RECIPROCAL: tl.constexpr,
    LARGEST: tl.constexpr,
    SMALLEST: tl.constexpr,
    MAGIC: tl.constexpr,
    SCALE_SMALLEST: tl.constexpr,
    SCALE_MAGIC: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    offsets = row[:, None] * 16 + tl.arange(0, 16)[None, :]
    inside = (row < blocks)[:, None]
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
    amax = _number(tl.max(_bits(x) & 0x7FFFFFFF, axis=1)[:, None])
    scale = tl.load(scale_ptr) + tl.zeros((BLOCKS, 1), tl.float32)
    unrounded = tl.math.div_rn(_divide(amax, LARGEST, RECIPROCAL), scale)
    step = _round(_clamp(unrounded, 0.015625, 448.0), SCALE_SMALLEST, SCALE_MAGIC)
    factor = tl.math.div_rn(tl.math.div_rn(tl.full((BLOCKS, 1), 1.0, tl.float32), scale), step)
    rounded = _round(_clamp(x * factor, -LARGEST, LARGEST), SMALLEST, MAGIC)
    tl.store(out_ptr + offsets, (rounded * step).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _quantize_float8(
    x_ptr,
    out_ptr,
    scale_ptr,
    columns,
    RECIPROCAL: tl.constexpr,
    LARGEST: tl.constexpr,
    SMALLEST: tl.constexpr,
    MAGIC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * columns
    out_ptr += row * columns
    at = tl.arange(0, BLOCK)
    bits = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, columns, BLOCK):
        x = tl.load(x_ptr + start + at, mask=start + at < columns, other=0.0).to(tl.float32)
        bits = tl.maximum(bits, _bits(x) & 0x7FFFFFFF)
    amax = _number(tl.max(bits, axis=0) + tl.zeros((1,), tl.int32))
    scale = _divide(amax, LARGEST, RECIPROCAL).to(tl.bfloat16).to(tl.float32)
    tl.store(scale_ptr + row + tl.arange(0, 1), scale)
    for start in range(0, columns, BLOCK):
        inside = start + at < columns
        x = tl.load(x_ptr + start + at, mask=inside, other=0.0).to(tl.float32)
        scaled = tl.math.div_rn(x, scale + tl.zeros((BLOCK,), tl.float32))
        rounded = _round(_clamp(scaled, -LARGEST, LARGEST), SMALLEST, MAGIC)
        tl.store(out_ptr + start + at, rounded.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _finish_nvfp4(
    out_ptr, x_scale_ptr, w_scale_ptr, bias_ptr, rows, columns, BIAS: tl.constexpr, R: tl.constexpr, C: tl.constexpr
):
    """Scale a BF16 product (rows, columns) in place and add the bias, rounding to BF16 after each."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    column = tl.program_id(1) * C + tl.arange(0, C)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    offsets = row[:, None] * columns + column[None, :]
    scale = (tl.load(x_scale_ptr) * tl.load(w_scale_ptr)).to(tl.bfloat16).to(tl.float32)
    out = (tl.load(out_ptr + offsets, mask=inside, other=0.0).to(tl.float32) * scale).to(tl.bfloat16)
    if BIAS:
        bias = tl.load(bias_ptr + column, mask=column < columns, other=0.0).to(tl.float32)
        out = (out.to(tl.float32) + bias[None, :]).to(tl.bfloat16)
    tl.store(out_ptr + offsets, out, mask=inside)


@triton.jit
def _finish_float8(
    product_ptr,
    out_ptr,
    x_scale_ptr,
    w_scale_ptr,
    bias_ptr,
    rows,
    columns,
    BIAS: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
):
    """Scale an FP32 product (rows, columns) by column, then by row, add the bias in FP32, and round once to BF16."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    column = tl.program_id(1) * C + tl.arange(0, C)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    offsets = row[:, None] * columns + column[None, :]
    out = tl.load(product_ptr + offsets, mask=inside, other=0.0)
    out = out * tl.load(w_scale_ptr + column, mask=column < columns, other=0.0)[None, :]
    out = out * tl.load(x_scale_ptr + row, mask=row < rows, other=0.0)[:, None]
    if BIAS:
        out = out + tl.load(bias_ptr + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    tl.store(out_ptr + offsets, out.to(tl.bfloat16), mask=inside)


@cache
def _reciprocal(number: float, device: torch.device) -> float:
    """Return what PyTorch multiplies a tensor on ``device`` by to divide it by ``number``; 0 where it divides."""
    return (1.0 / torch.tensor(number)).item() if device.type == "cuda" else 0.0


def _tiles(rows: int, columns: int) -> tuple[int, int]:
    return triton.cdiv(rows, ROWS), triton.cdiv(columns, COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedMx(MxNumerics):
    """`MxNumerics` by a kernel; ``grid`` is the element's."""

    grid: Element

    def quantize_activation(self, x: Tensor, dtype: torch.dtype) -> Operand:
        """See `Numerics`."""
        values = torch.empty_like(x, dtype=dtype)
        blocks, each = x.numel() // 32, ELEMENTS // 32
        if blocks:
            _quantize_mx[(triton.cdiv(blocks, each),)](
                x,
                values,
                blocks,
                LARGEST=self.grid.largest,
                EXPONENT=self.grid.exponent,
                CARRY=self.grid.carry,
                SMALLEST=self.grid.smallest_bits,
                MAGIC=self.grid.magic,
                BLOCKS=each,
                enable_fp_fusion=False,
            )
        return Operand(values, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedNvfp4(Nvfp4Numerics):
    """`Nvfp4Numerics` by kernels."""

    def quantize_activation(self, x: Tensor, dtype: torch.dtype) -> Operand:
        """See `Numerics`."""
        values = torch.empty_like(x, dtype=dtype)
        bits = torch.zeros((), dtype=torch.int32, device=x.device)
        blocks, each = x.numel() // 16, ELEMENTS // 16
        if blocks:
            _largest_magnitude[(triton.cdiv(x.numel(), AMAX_ELEMENTS),)](x, bits, x.numel(), BLOCK=AMAX_ELEMENTS)
        scale = bits.view(torch.float32) / (448.0 * 6.0)
        if blocks:
            _quantize_nvfp4[(triton.cdiv(blocks, each),)](
                x,
                values,
                scale,
                blocks,
                RECIPROCAL=_reciprocal(E2M1.largest, x.device),
                LARGEST=E2M1.largest,
                SMALLEST=E2M1.smallest_bits,
                MAGIC=E2M1.magic,
                SCALE_SMALLEST=E4M3.smallest_bits,
                SCALE_MAGIC=E4M3.magic,
                BLOCKS=each,
                enable_fp_fusion=False,
            )
        return Operand(values, scale)

    def linear(self, x: Operand, weight: Operand, bias: Tensor | None) -> Tensor:
        """See `Nvfp4Numerics.linear`."""
        out = functional.linear(x.values, weight.values).bfloat16()
        rows, columns = out.numel() // out.shape[-1], out.shape[-1]
        if rows:
            _finish_nvfp4[_tiles(rows, columns)](
                out,
                scale_of(x),
                scale_of(weight),
                bias,
                rows,
                columns,
                BIAS=bias is not None,
                R=ROWS,
                C=COLUMNS,
                enable_fp_fusion=False,
            )
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedFloat8(Float8Numerics):
    """`Float8Numerics` by kernels."""

    def quantize_activation(self, x: Tensor, dtype: torch.dtype) -> Operand:
        """See `Numerics`."""
        values = torch.empty_like(x, dtype=dtype)
        scale = torch.empty(*x.shape[:-1], 1, dtype=torch.float32, device=x.device)
        if x.numel():
            _quantize_float8[(scale.numel(),)](
                x,
                values,
                scale,
                x.shape[-1],
                RECIPROCAL=_reciprocal(E4M3.largest, x.device),
                LARGEST=E4M3.largest,
                SMALLEST=E4M3.smallest_bits,
                MAGIC=E4M3.magic,
                BLOCK=min(triton.next_power_of_2(x.shape[-1]), ELEMENTS),
                enable_fp_fusion=False,
            )
        return Operand(values, scale)

    def linear(self, x: Operand, weight: Operand, bias: Tensor | None) -> Tensor:
        """See `Float8Numerics.linear`."""
        product = fp32_product(x.values, weight.values)
        rows, columns = product.numel() // product.shape[-1], product.shape[-1]
        out = torch.empty_like(product, dtype=torch.bfloat16)
        if rows:
            _finish_float8[_tiles(rows, columns)](
                product,
                out,
                scale_of(x),
                scale_of(weight),
                bias,
                rows,
                columns,
                BIAS=bias is not None,
                R=ROWS,
                C=COLUMNS,
                enable_fp_fusion=False,
            )
        return out


def _fused_mx(number_format: NumberFormat, grid: Element) -> FusedMx:
    plain = NUMERICS[number_format]
    assert isinstance(plain, MxNumerics)
    return FusedMx(element=plain.element, carry=plain.carry, span=plain.span, magic=plain.magic, grid=grid)


FUSED: Mapping[NumberFormat, Numerics] = MappingProxyType(
    {
        NumberFormat.MXFP8: _fused_mx(NumberFormat.MXFP8, E4M3),
        NumberFormat.MXFP4: _fused_mx(NumberFormat.MXFP4, E2M1),
        NumberFormat.NVFP4: FusedNvfp4(),
        NumberFormat.FLOAT8: FusedFloat8(),
    }
)
