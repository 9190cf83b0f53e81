"""Which torch functions multiply by a weight: their two operands, and the arithmetic of one call."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchao.utils import TorchAOBaseTensor


class Multiplication(Enum):
    """What multiplied the weights that are called quantized, the best first."""

    NATIVE = "native"
    EMULATED = "emulated"
    DEQUANTIZED = "dequantized"
    NONE = "none"


class Product(NamedTuple):
    """One matrix product (or convolution) of a call.

    Attributes:
        left: the first operand; None where the function takes a weight second.
        right: the second operand; a weight where there is no first one.
        arithmetic: multiplications: rows x in x out.
        is_kernel: whether the function is itself a kernel that takes quantized numbers.
    """

    left: torch.Tensor | None
    right: torch.Tensor
    arithmetic: int
    is_kernel: bool = False


Arguments = tuple[Any, ...]
Reader = Callable[[Arguments, Mapping[str, Any]], tuple[Any, Any]]
# (activation, weight, result) -> multiplications
Arithmetic = Callable[[Any, Any, torch.Tensor], int]


class Rule(NamedTuple):
    """How the operands of a function are read and its arithmetic counted.

    Attributes:
        operands: reads the two operands from the call's arguments.
        arithmetic: counts the multiplications.
        has_weight: whether the second operand is a weight by the function's definition.
        is_kernel: see `Product`.
    """

    operands: Reader
    arithmetic: Arithmetic
    has_weight: bool = False
    is_kernel: bool = False


def _at(first: int, names: tuple[str, str]) -> Reader:
    def read(args: Arguments, kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        left = args[first] if len(args) > first else kwargs.get(names[0])
        right = args[first + 1] if len(args) > first + 1 else kwargs.get(names[1])
        return left, right

    return read


def _reversed(args: Arguments, kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    del kwargs
    return args[1], args[0]


def _einsum(args: Arguments, kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    del kwargs
    operands = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
    return (operands[0], operands[1]) if len(operands) == 2 else (None, None)


def _matrix(left: Any, right: Any, result: torch.Tensor) -> int:
    del right
    return int(left.shape[-1]) * result.numel()


def _contraction(left: Any, right: Any, result: torch.Tensor) -> int:
    """Return rows x in x out from (rows x in), (in x out) and (rows x out); exact where no index is in all three."""
    return math.isqrt(left.numel() * right.numel() * result.numel())


def _convolution(_left: Any, weight: Any, result: torch.Tensor) -> int:
    return result.numel() * (int(weight.numel()) // int(weight.shape[0]))


def _transposed_convolution(left: Any, weight: Any, _result: torch.Tensor) -> int:
    return int(left.numel()) * (int(weight.numel()) // int(weight.shape[0]))


@cache
def product_rules() -> dict[Any, Rule]:
    """Return how to read the product of each torch function that multiplies matrices."""
    linear = Rule(_at(0, ("input", "weight")), _matrix, has_weight=True)
    matrix = Rule(_at(0, ("input", "mat2")), _matrix)
    matmul = Rule(_at(0, ("input", "other")), _matrix)
    kernel = Rule(_at(0, ("input", "mat2")), _matrix, is_kernel=True)
    added = Rule(_at(1, ("mat1", "mat2")), _matrix)
    batched = Rule(_at(1, ("batch1", "batch2")), _matrix)
    contraction = Rule(_at(0, ("a", "b")), _contraction)
    convolution = Rule(_at(0, ("input", "weight")), _convolution, has_weight=True)
    transposed = Rule(_at(0, ("input", "weight")), _transposed_convolution, has_weight=True)
    tensor, aten = torch.Tensor, torch.ops.aten
    groups: list[tuple[Rule, list[Any]]] = [
        (linear, [functional.linear, aten.linear]),
        (matrix, [torch.mm, tensor.mm, torch.bmm, tensor.bmm, torch.mv, tensor.mv, aten.mm, aten.bmm]),
        (matrix, [torch._grouped_mm, aten._grouped_mm]),  # noqa: SLF001 - experts' products have no other spelling
        (matmul, [torch.matmul, tensor.matmul, tensor.__matmul__, torch.linalg.matmul, aten.matmul]),
        (Rule(_reversed, _matrix), [tensor.__rmatmul__]),
        (kernel, [getattr(torch, name) for name in _KERNELS if hasattr(torch, name)]),
        (kernel, [getattr(aten, name) for name in _KERNELS if hasattr(aten, name)]),
        (kernel, [functional.scaled_mm] if hasattr(functional, "scaled_mm") else []),
        (added, [torch.addmm, tensor.addmm, tensor.addmm_, torch.addmv, tensor.addmv, aten.addmm, aten.addmm_]),
        (batched, [torch.baddbmm, tensor.baddbmm, tensor.baddbmm_, torch.addbmm, tensor.addbmm]),
        (batched, [aten.baddbmm, aten.baddbmm_, aten.addbmm, aten.addbmm_]),
        (matrix, [aten.mv]),
        (added, [aten.addmv, aten.addmv_]),
        (contraction, [torch.tensordot]),
        (Rule(_einsum, _contraction), [torch.einsum]),
        (convolution, [aten._trilinear]),  # noqa: SLF001 - what a bilinear map comes down to
        (convolution, [aten.convolution, *(getattr(functional, f"conv{n}d") for n in (1, 2, 3))]),
        (transposed, [getattr(functional, f"conv_transpose{n}d") for n in (1, 2, 3)]),
    ]
    return {function: rule for rule, functions in groups for function in functions}


def outer_arithmetic(args: Arguments, result: Any) -> int:
    """Return the multiplications of an elementwise product in which both operands are repeated; 0 of any other.

    Followed by a sum, that is a matrix product: ``(x[..., None, :] * weight).sum(-1)``.
    """
    operands = [operand for operand in args[:2] if isinstance(operand, torch.Tensor) and operand.dim() > 1]
    if len(operands) < 2 or not isinstance(result, torch.Tensor):
        return 0
    return result.numel() if result.numel() > max(operand.numel() for operand in operands) else 0


def weightless_arithmetic(rule: Rule, args: Arguments, kwargs: Mapping[str, Any], result: torch.Tensor) -> int:
    """Return the multiplications of a product of which no operand is known for a weight.

    Of more than two operands (an einsum's): those of the two largest.
    """
    left, right = rule.operands(args, kwargs)
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return rule.arithmetic(left, right, result)
    operands = sorted((value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)), key=_size)
    return _contraction(operands[-2], operands[-1], result) if len(operands) > 1 else 0


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel()


MULTIPLICATIONS = frozenset({torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__})
"""Functions that multiply element by element."""

_KERNELS = ("_scaled_mm", "_scaled_mm_v2", "_int_mm", "_scaled_grouped_mm", "_scaled_grouped_mm_v2")


_OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)  # noqa: SLF001 - the classes of torch.ops.x.y


def is_operator(function: Any) -> bool:
    """Return whether a function is an operator of ``torch.ops``, or an overload of one."""
    return isinstance(function, _OPERATORS)


def operator_rule(operator: Any) -> Rule | None:
    """Return the rule of an operator of ``torch.ops``, of an overload its packet's; None if it multiplies nothing."""
    return product_rules().get(getattr(operator, "overloadpacket", operator))


def is_custom(operator: Any) -> bool:
    """Return whether an operator is not PyTorch's own."""
    return not str(operator).startswith(("aten.", "prim.", "prims."))


def attention_products(args: Arguments, kwargs: Mapping[str, Any]) -> Iterator[Product]:
    """Yield the products of one call of ``torch.nn.functional.multi_head_attention_forward``.

    `torch.nn.MultiheadAttention` hands its projections to that one function, whose inside no function mode sees.
    """
    call = inspect.signature(functional.multi_head_attention_forward).bind(*args, **kwargs).arguments
    inputs = [call["query"], call["key"], call["value"]]
    width = int(call["embed_dim_to_check"])
    if call.get("in_proj_weight") is not None:
        yield Product(None, call["in_proj_weight"], width * sum(tensor.numel() for tensor in inputs))
    for name, tensor in zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), inputs, strict=True):
        if call.get(name) is not None:
            yield Product(None, call[name], width * tensor.numel())
    yield Product(None, call["out_proj_weight"], width * inputs[0].numel())


class KernelProbe(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's __init_subclass__
    """Look at the operators below one call with a quantized weight: a kernel of its own, or an ordinary product.

    Attributes:
        saw_kernel: one of PyTorch's scaled or integer products ran.
        saw_plain: an ordinary product ran.
        saw_activation: one of the operands of such a product was the activation, not quantized.
    """

    def __init__(self, weight: torch.Tensor, activation: Any) -> None:
        """Take the weight, and the activation that is multiplied with it."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.saw_kernel = False
        self.saw_plain = False
        self.saw_activation = False
        self._activation = activation
        # torchao's statement of how a weight's activations are quantized; other tensors state nothing
        self._quantizes = getattr(weight, "act_quant_kwargs", None) is not None

    def __torch_dispatch__(
        self, func: Any, types: tuple[type, ...], args: Arguments = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note the operator; a tensor subclass takes its own way first, and what it calls comes back here."""
        if any(issubclass(kind, TorchAOBaseTensor) for kind in types):
            return NotImplemented
        rule = operator_rule(func)
        if rule is not None:
            self.saw_kernel |= rule.is_kernel
            self.saw_plain |= not rule.is_kernel
            self.saw_activation |= any(self._is_activation(one) for one in rule.operands(args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _is_activation(self, operand: Any) -> bool:
        """Return whether an operand holds the activation's numbers, perhaps in another dtype."""
        given = self._activation
        if not isinstance(given, torch.Tensor) or not isinstance(operand, torch.Tensor):
            return False
        same_size = operand.numel() == given.numel() and operand.shape[-1] == given.shape[-1]
        return same_size and torch.equal(given.to(operand.dtype).reshape(operand.shape), operand) and bool(given.any())

    @property
    def multiplication(self) -> Multiplication:
        """What multiplied the weight.

        A call without any product of PyTorch's ran somebody's own kernel. An emulated kernel multiplies both operands
        dequantized; where the activation went into the product as it came, the weight was merely dequantized.
        """
        if self.saw_kernel or not self.saw_plain:
            return Multiplication.NATIVE
        return Multiplication.EMULATED if self._quantizes or not self.saw_activation else Multiplication.DEQUANTIZED
