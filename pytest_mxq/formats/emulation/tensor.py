"""Emulation: a Linear's weight becomes a tensor that multiplies with a format's numerics on any device.

`EmulationConfig` goes to torchao's ``quantize_`` like any of its configurations; the weight it leaves is an
`EmulatedTensor`, a torchao tensor that survives `copy.deepcopy`, ``.to(device)`` and `torch.compile`.
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import return_and_correct_aliasing
from torchao.core.config import AOBaseConfig
from torchao.quantization.transform_module import register_quantize_module_handler
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.errors import MxqError
from pytest_mxq.formats.emulation.numerics import NUMERICS, NumberFormat, Numerics, Operand
from pytest_mxq.formats.emulation.path import path_of


class EmulationError(MxqError):
    """A Linear or an activation that the emulated format cannot take."""


class RecentActivation:
    """The activation quantized last, so that Linears with one input (q, k, v) quantize it once.

    A hit needs the very same tensor object, unmodified: its version counter counts every in-place change, through views
    as well. Writes that autograd cannot see either (``x.data``, shared NumPy memory) are not seen. Inference tensors
    have no counter and are never cached. The input is held weakly, and its quantized values go when it goes.
    One tuple is read and replaced as a whole, so another thread can cause a miss but never a wrong hit.
    """

    __slots__ = ("_entry",)

    def __init__(self) -> None:
        self._entry: tuple[weakref.ref[Tensor], tuple[object, ...], Operand] | None = None

    def quantize(self, x: Tensor, number_format: NumberFormat, dtype: torch.dtype) -> Operand:
        """Return ``x`` quantized, its values in ``dtype``; see `Numerics.quantize_activation`."""
        if x.is_inference():
            return path_of(number_format, x.device).numerics.quantize_activation(x.contiguous(), dtype)
        key = (x._version, number_format, dtype)  # noqa: SLF001 - documented in "Autograd mechanics", no public spelling
        entry = self._entry
        if entry is not None and entry[0]() is x and entry[1] == key:
            return entry[2]
        operand = path_of(number_format, x.device).numerics.quantize_activation(x.contiguous(), dtype)
        self._entry = (weakref.ref(x, self._forget), key, operand)
        return operand

    def _forget(self, source: "weakref.ref[Tensor]") -> None:
        entry = self._entry
        if entry is not None and entry[0] is source:
            self._entry = None


RECENT = RecentActivation()


class EmulatedTensor(TorchAOBaseTensor):  # type: ignore[misc]  # torchao ships no types
    """A quantized weight (out, in) that reports bfloat16 and multiplies with emulated numerics.

    Attributes:
        values: the exact values, in the dtype of the device's GEMM.
        number_format: which numerics.
        native_bytes: bytes that the native format would store (elements, scales with their padding, tensor scale).
        scale: what the GEMM's result is still to be multiplied by, or None.
    """

    tensor_data_names = ["values"]  # noqa: RUF012 - torchao reads and copies a list
    tensor_attribute_names = ["number_format", "native_bytes"]  # noqa: RUF012
    optional_tensor_data_names = ["scale"]  # noqa: RUF012

    values: Tensor
    number_format: NumberFormat
    native_bytes: int
    scale: Tensor | None

    def __new__(
        cls, values: Tensor, number_format: NumberFormat, native_bytes: int, scale: Tensor | None = None
    ) -> Self:
        """Wrap what the attributes say."""
        self: Self = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - how a tensor subclass is made
            cls, values.shape, dtype=torch.bfloat16, device=values.device, requires_grad=False
        )
        self.values = values
        self.number_format = number_format
        self.native_bytes = native_bytes
        self.scale = scale
        return self

    def __init__(self, *_args: object, **_kwargs: object) -> None: ...

    @classmethod
    def from_weight(cls, weight: Tensor, number_format: NumberFormat) -> "EmulatedTensor":
        """Quantize ``weight`` (out, in; bfloat16).

        Raises:
            EmulationError: the shape or the dtype does not fit the format.
        """
        numerics = NUMERICS[number_format]
        _check_weight(weight, number_format.value, numerics)
        operand, native_bytes = numerics.quantize_weight(weight.detach().contiguous())
        values = operand.values.to(path_of(number_format, weight.device).numerics.gemm_dtype(weight.device))
        return cls(values, number_format, native_bytes, operand.scale)

    @property
    def computed_by(self) -> str:
        """Return which code multiplies this weight on its device."""
        return path_of(self.number_format, self.device).text

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Handle `torch.nn.functional.linear` first: torchao's tables and the dispatcher cost as a small layer does."""
        if func is functional.linear:
            return _linear(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


def _check_weight(weight: Tensor, name: str, numerics: Numerics) -> None:
    if weight.dtype != torch.bfloat16:
        raise EmulationError(f"{name}: the weight is {weight.dtype}; only bfloat16 weights are emulated")
    if weight.dim() != 2:
        raise EmulationError(f"{name}: the weight has shape {tuple(weight.shape)}; only torch.nn.Linear is emulated")
    out_features, in_features = weight.shape
    if in_features % numerics.in_multiple or out_features % numerics.out_multiple:
        raise EmulationError(
            f"{name}: Linear with in_features {in_features}, out_features {out_features} does not fit; they must be"
            f" multiples of {numerics.in_multiple} and {numerics.out_multiple}: give this layer a SkipPattern in the"
            " selection rule"
        )


def _linear(x: Tensor, weight: EmulatedTensor, bias: Tensor | None = None) -> Tensor:
    name = weight.number_format.value
    if torch.compiler.is_compiling():
        out: Tensor = torch.ops.pytest_mxq.emulated_linear(x, weight.values, weight.scale, bias, name)
        return out
    if x.dtype != torch.bfloat16:
        raise EmulationError(
            f"{name}: the activation is {x.dtype}; run the pipeline in torch.bfloat16, without autocast"
        )
    return _multiply(x, Operand(weight.values, weight.scale), bias, weight.number_format)


def _multiply(x: Tensor, weight: Operand, bias: Tensor | None, number_format: NumberFormat) -> Tensor:
    operand = RECENT.quantize(x, number_format, weight.values.dtype)
    return path_of(number_format, x.device).numerics.linear(operand, weight, bias)


@torch.library.custom_op("pytest_mxq::emulated_linear", mutates_args=())
def emulated_linear(x: Tensor, values: Tensor, scale: Tensor | None, bias: Tensor | None, number_format: str) -> Tensor:
    """Run the emulated Linear as one opaque operator for torch.compile.

    A compiler that fuses keeps BF16 intermediates in FP32, and then the roundings that are the emulation do not happen.
    """
    return _multiply(x, Operand(values, scale), bias, NumberFormat(number_format))


@emulated_linear.register_fake
def _(x: Tensor, values: Tensor, scale: Tensor | None, bias: Tensor | None, number_format: str) -> Tensor:
    del scale, bias, number_format
    return x.new_empty(*x.shape[:-1], values.shape[0])


@EmulatedTensor.implements([torch.ops.aten.cat.default, torch.ops.aten.stack.default])  # type: ignore[untyped-decorator]
def _(func: Any, types: Any, args: tuple[list[Tensor]], kwargs: dict[str, Any]) -> Tensor:
    """Refuse to join weights: a scale of the whole weight or of its rows would be another, quantized together."""
    del types, kwargs
    weights = [weight for weight in args[0] if isinstance(weight, EmulatedTensor)]
    shapes = " and ".join(str(tuple(weight.shape)) for weight in weights)
    raise EmulationError(
        f"{weights[0].number_format.value}: {func} cannot join quantized weights {shapes}: layers have to be joined"
        " before they are quantized; leave fuse_qkv_projections() out of the test and of prepare, or let"
        " from_pretrained of the recipe's pipeline_class call it"
    )


@EmulatedTensor.implements(torch.ops.aten._to_copy.default)  # type: ignore[untyped-decorator]  # noqa: SLF001
def _(func: Any, types: Any, args: tuple[EmulatedTensor], kwargs: dict[str, Any]) -> Tensor:
    """Move to another device, in the dtype of that device's GEMM."""
    del types
    weight = args[0]
    device = torch.device(kwargs.get("device") or weight.values.device)
    dtype = path_of(weight.number_format, device).numerics.gemm_dtype(device)
    scale = None if weight.scale is None else weight.scale.to(device)
    moved = EmulatedTensor(weight.values.to(device, dtype), weight.number_format, weight.native_bytes, scale)
    result: Tensor = return_and_correct_aliasing(func, args, kwargs, moved)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True, kw_only=True)
class EmulationConfig(AOBaseConfig):  # type: ignore[misc]  # torchao ships no types
    """What to give to torchao's ``quantize_`` to emulate ``number_format`` in the Linears that its filter selects."""

    number_format: NumberFormat


@register_quantize_module_handler(EmulationConfig)  # type: ignore[untyped-decorator]  # torchao ships no types
def _emulate_linear(
    module: torch.nn.Module, config: EmulationConfig, *, parameter_name: str = "weight"
) -> torch.nn.Module:
    weight = EmulatedTensor.from_weight(getattr(module, parameter_name), config.number_format)
    setattr(module, parameter_name, torch.nn.Parameter(weight, requires_grad=False))
    return module
