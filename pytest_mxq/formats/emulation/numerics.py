"""The numerics of each emulated format: which values the hardware would multiply, and where it rounds.

A weight is quantized once, by torchao itself, and kept as the exact values that the GEMM sees. An activation is
quantized at each call by a few operations on whole tensors, to the same values as torchao's own primitives bit by bit.
Both are exact in BF16 (at most six significant bits), so one ordinary GEMM with FP32 accumulation is the emulation.

How an activation is rounded. Let ``p`` be a power of two, ``|v| < 2p``, and the arithmetic have ``m`` mantissa bits.
Then ``(v + c p) - c p`` with ``c = 1.5 * 2**(m - k)`` is ``v`` rounded to a multiple of ``p / 2**k``, ties to even: the
sum lies where that multiple is its last place, and the 1.5 keeps it there for negative ``v``. With ``p`` the power of
two under ``|v|`` this keeps ``k`` mantissa bits; where ``p`` stops at the format's smallest normal number, its
subnormal numbers come out right too.

Limits, all far outside what a model computes: MX blocks whose largest magnitude is under 2**-111 differ from the format
by less than 2**-118; magnitudes from 2**122 (MXFP4) or 2**124 (MXFP8) become NaN or Inf; zeros have no sign. NaN and
Inf stay non-finite. An all-zero NVFP4 activation and an all-zero float8 row become NaN, as they do in torchao.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torchao.prototype.mx_formats.mx_tensor import MXTensor, ScaleCalculationMode
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
from torchao.quantization.granularity import PerRow
from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor
from torchao.utils import TorchAOBaseTensor


class NumberFormat(Enum):
    """The number formats that can be emulated; the values are the formats' registered names."""

    MXFP8 = "mxfp8"
    MXFP4 = "mxfp4"
    NVFP4 = "nvfp4"
    FLOAT8 = "float8"


class Operand(NamedTuple):
    """One side of the GEMM: ``values`` of the operand's shape, ``scale`` for after the GEMM (None: nothing is left)."""

    values: Tensor
    scale: Tensor | None


class NativeWeight(NamedTuple):
    """A weight as torchao quantizes it: the ``operand`` and how many bytes its native storage takes."""

    operand: Operand
    native_bytes: int


class Numerics(Protocol):
    """What one number format does to a Linear."""

    @property
    def in_multiple(self) -> int:
        """A Linear's in_features must be a multiple of this."""

    @property
    def out_multiple(self) -> int:
        """A Linear's out_features must be a multiple of this."""

    def gemm_dtype(self, device: torch.device) -> torch.dtype:
        """Return the dtype whose GEMM is exact and fast on ``device``."""

    def quantize_weight(self, weight: Tensor) -> NativeWeight:
        """Quantize ``weight`` (out, in; bfloat16) with torchao's own primitives."""

    def quantize_activation(self, x: Tensor, dtype: torch.dtype) -> Operand:
        """Quantize ``x`` (..., in; bfloat16, contiguous); the values come in ``dtype``."""

    def linear(self, x: Operand, weight: Operand, bias: Tensor | None) -> Tensor:
        """Return the product (..., out; bfloat16), rounded where the hardware path rounds."""


def fast_gemm_dtype(device: torch.device) -> torch.dtype:
    """Return BF16 where a BF16 GEMM with FP32 accumulation is fast, else FP32; the values are exact in both.

    A CPU without AVX-512 or AMX has no BF16 kernel in oneDNN: PyTorch then uses loops that are many times slower than
    its FP32 GEMM. A GPU before Ampere has no BF16 units.
    """
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001 - PyTorch's own test before it calls oneDNN
    else:
        fast = True
    return torch.bfloat16 if fast else torch.float32


def scale_of(operand: Operand) -> Tensor:
    """Return the scale of an operand of a format that has one."""
    assert operand.scale is not None, "this format's operands have a scale"
    return operand.scale


def fp32_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x`` (..., in) times ``weight`` (out, in) transposed, both BF16 or FP32, as FP32 (..., out)."""
    if x.dtype == torch.float32:
        return functional.linear(x, weight)
    product = torch.mm(x.view(-1, x.shape[-1]), weight.t(), out_dtype=torch.float32)
    return product.view(*x.shape[:-1], weight.shape[0])


def _stored_bytes(native: TorchAOBaseTensor) -> int:
    names, _ = native.__tensor_flatten__()
    return sum(getattr(native, name).nbytes for name in names)


# Numbers quantized at a time on a CPU: temporaries of 512 KB stay in a core's cache, and the C library keeps their
# memory, where it gives larger ones back to the system and takes them again page by page.
_PIECE = 1 << 17


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Return parts of ``tensors``, all (blocks, ...), over the same blocks; the first tensor's size says how many."""
    count = _PIECE // tensors[0].shape[-1]
    if tensors[0].device.type != "cpu" or len(tensors[0]) <= count:
        return iter((tensors,))
    return zip(*(torch.split(tensor, count) for tensor in tensors), strict=True)


def _block_amax(magnitudes: Tensor) -> Tensor:
    """Return the largest in each block of BF16 magnitudes given as bits (blocks, n; int16): (blocks, 1; int32).

    Bits are ordered as the numbers are. int32, because PyTorch's CPU kernel reduces that as vectors, and int16 and
    bfloat16 number by number.
    """
    return magnitudes.to(torch.int32).amax(-1, keepdim=True)


def _bias_as(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if bias is None else bias.to(dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class MxNumerics:
    """MX (OCP Microscaling 1.0): one E8M0 scale for 32 elements, torchao's default scaling mode RCEIL.

    RCEIL takes the smallest power of two ``2**e`` with ``amax / largest <= 2**e``, so nothing saturates. In BF16 bits
    that is one integer addition: it carries into the exponent exactly if amax's mantissa is above that of ``largest``.

    Attributes:
        element: torchao's element dtype.
        carry: 127 less the BF16 mantissa field of the largest element (448 = 1.75 * 2**8; 6 = 1.5 * 2**2).
        span: exponent of the largest element less that of the smallest normal one (8 - -6; 2 - 0).
        magic: ``1.5 * 2**(7 - k)`` for ``k`` mantissa bits in the element and 7 in BF16 (see the module's text).
    """

    element: torch.dtype
    carry: int
    span: int
    magic: float
    in_multiple: int = 32
    out_multiple: int = 1

    def gemm_dtype(self, device: torch.device) -> torch.dtype:
        """See `Numerics`."""
        return fast_gemm_dtype(device)

    def quantize_weight(self, weight: Tensor) -> NativeWeight:
        """See `Numerics`."""
        native = MXTensor.to_mx(
            weight, self.element, 32, scaling_mode=ScaleCalculationMode.RCEIL, is_swizzled_scales=True
        )
        return NativeWeight(Operand(native.dequantize(torch.bfloat16), None), _stored_bytes(native))

    def quantize_activation(self, x: Tensor, dtype: torch.dtype) -> Operand:
        """See `Numerics`."""
        values = torch.empty_like(x)
        for piece, out in _pieces(x.view(-1, 32), values.view(-1, 32)):
            self._round(piece, out)
        return Operand(values.to(dtype), None)

    def _round(self, blocks: Tensor, out: Tensor) -> None:
        """Write the rounded ``blocks`` to ``out``; all in BF16, whose positive numbers have the order of their bits."""
        bits = blocks.view(torch.int16) & 0x7FFF
        smallest = _block_amax(bits).add_(self.carry - self.span * 128).clamp_(min=128)
        power = torch.maximum(bits, smallest.to(torch.int16), out=bits).bitwise_and_(0x7F80).view(torch.bfloat16)
        torch.add(blocks, power, alpha=self.magic, out=out).sub_(power, alpha=self.magic)

    def linear(self, x: Operand, weight: Operand, bias: Tensor | None) -> Tensor:
        """See `Numerics`; the bias joins the FP32 accumulator and the sum is rounded once."""
        return functional.linear(x.values, weight.values, _bias_as(bias, x.values.dtype)).bfloat16()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvfp4Numerics:
    """NVFP4: E2M1 elements, an E4M3 scale for 16 of them, an FP32 scale ``amax / (448 * 6)`` for the tensor.

    The formulas are those of torchao's ``nvfp4_quantize``, operation by operation: which value a near-tie takes hangs
    on each FP32 rounding. Its clamps to 448 and 6 are left out: what is above them by the error of a division or of the
    rounded scale (1/16 at most) rounds to them.
    """

    in_multiple: int = 16
    out_multiple: int = 16

    def gemm_dtype(self, device: torch.device) -> torch.dtype:
        """See `Numerics`."""
        return fast_gemm_dtype(device)

    def quantize_weight(self, weight: Tensor) -> NativeWeight:
        """See `Numerics`; the values are E2M1 x E4M3, the tensor's scale stays apart."""
        scale = per_tensor_amax_to_scale(torch.max(torch.abs(weight)))
        native = NVFP4Tensor.to_nvfp4(weight, per_tensor_scale=scale, is_swizzled_scales=True)
        native_bytes = _stored_bytes(native)
        native.per_tensor_scale = None
        return NativeWeight(Operand(native.dequantize(torch.bfloat16), scale), native_bytes)

    def quantize_activation(self, x: Tensor, dtype: torch.dtype) -> Operand:
        """See `Numerics`."""
        blocks, values = x.view(-1, 16), torch.empty_like(x, dtype=dtype)
        if not len(blocks):
            return Operand(values, x.new_zeros((), dtype=torch.float32))
        bits = torch.cat([_block_amax(piece.view(torch.int16) & 0x7FFF) for (piece,) in _pieces(blocks)])
        amax = bits.bitwise_left_shift_(16).view(torch.float32)
        scale = amax.amax() / (448.0 * 6.0)
        unrounded = amax.div_(6.0).div_(scale).clamp_(min=2.0**-6)
        # Three mantissa bits by Veltkamp's splitting: at a tie the added multiple is even, so ties go to even here too.
        block = torch.add(unrounded, unrounded, alpha=2.0**20).sub_(unrounded, alpha=2.0**20)
        for piece, factor, step, out in _pieces(blocks, (1.0 / scale) / block, block, values.view(-1, 16)):
            data = piece.float().mul_(factor)
            power = (data.view(torch.int32) & 0x7F800000).view(torch.float32).clamp_(min=1.0)
            out.copy_(data.add_(power, alpha=1.5 * 2.0**22).sub_(power, alpha=1.5 * 2.0**22).mul_(step))
        return Operand(values, scale)

    def linear(self, x: Operand, weight: Operand, bias: Tensor | None) -> Tensor:
        """See `Numerics`; the epilogue of torchao's ``_addmm_nvfp4_dispatch``: each step rounds to BF16."""
        out = functional.linear(x.values, weight.values).bfloat16().mul_((scale_of(x) * scale_of(weight)).bfloat16())
        return out if bias is None else out.add_(bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class Float8Numerics:
    """float8: E4M3 elements, one scale a row, as torchao's ``Float8Tensor`` computes both without MSLK."""

    in_multiple: int = 16
    out_multiple: int = 16

    def gemm_dtype(self, device: torch.device) -> torch.dtype:
        """Return BF16 where a BF16 GEMM gives its FP32 accumulator, else FP32: the scales meet the accumulator."""
        return fast_gemm_dtype(device) if device.type == "cuda" else torch.float32

    def quantize_weight(self, weight: Tensor) -> NativeWeight:
        """See `Numerics`."""
        native = Float8Tensor.from_hp(weight, torch.float8_e4m3fn, PerRow())
        return NativeWeight(Operand(native.qdata.float(), native.scale.view(-1)), _stored_bytes(native))

    def quantize_activation(self, x: Tensor, dtype: torch.dtype) -> Operand:
        """See `Numerics`; torchao divides by 448 in BF16 and by the scale in FP32."""
        scale = (x.abs().amax(-1, keepdim=True) / 448.0).float()
        values = (x.float() / scale).clamp_(-448.0, 448.0).to(torch.float8_e4m3fn)
        return Operand(values.to(dtype), scale)

    def linear(self, x: Operand, weight: Operand, bias: Tensor | None) -> Tensor:
        """See `Numerics`; scales and bias are applied in FP32 and the result is rounded once.

        The weight's scale comes first: it undoes the factor up to 448 by which the weight was enlarged, so that a large
        scale of the activation cannot overflow.
        """
        out = fp32_product(x.values, weight.values).mul_(scale_of(weight)).mul_(scale_of(x))
        return (out if bias is None else out.add_(bias)).bfloat16()


NUMERICS: Mapping[NumberFormat, Numerics] = MappingProxyType(
    {
        NumberFormat.MXFP8: MxNumerics(element=torch.float8_e4m3fn, carry=0x1F, span=14, magic=24.0),
        NumberFormat.MXFP4: MxNumerics(element=torch.float4_e2m1fn_x2, carry=0x3F, span=2, magic=96.0),
        NumberFormat.NVFP4: Nvfp4Numerics(),
        NumberFormat.FLOAT8: Float8Numerics(),
    }
)
