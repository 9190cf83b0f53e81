"""Products inside a denoiser's forward with tensors that neither the denoiser holds nor its call computed.

They are counted below torch's functions, at the operators that these come down to: an einsum of three operands, a
bilinear map and a scripted function are matrix products there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pytest_mxq.pipelines.execution import LayerCalls
from pytest_mxq.pipelines.products import Multiplication, Rule, operator_rule, outer_arithmetic
from pytest_mxq.pipelines.weights import storage_address


class ForeignProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's __init_subclass__
    """Count the products whose weight comes from outside.

    A tensor comes from outside if no operator of the call made its memory, the call was not given it and the denoisers
    do not hold it. What a product is written as does not matter, nor whether the weight is a parameter. Not seen:
    a product that is written row by row as multiplications element by element. Each operator takes 15 us longer, so
    that few calls can be looked at: the first of each denoiser, and the first with arguments of other shapes.

    Attributes:
        calls: calls that were looked at.
        arithmetic: multiplications in them, rows x in x out.
    """

    def __init__(self, own: Callable[[], set[int]]) -> None:
        """Take what returns the addresses of the memory that the denoisers hold."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = 0
        self.arithmetic = 0
        self._weights: dict[int, int] = {}  # elements, by address
        self._find_own = own
        self._own: set[int] | None = None
        self._made: set[int] = set()

    @property
    def elements(self) -> int:
        """Elements of the weights from outside."""
        return sum(self._weights.values())

    def begin(self, *given: Any) -> None:
        """Begin a call of a denoiser with these arguments."""
        self.calls += 1
        self._own = None
        self._made = {storage_address(tensor) for tensor in _tensors(given)}

    def layer_calls(self, *, denoiser_calls: int, arithmetic: int, elements: int) -> Iterator[LayerCalls]:
        """Yield what was multiplied beyond what is counted already, as if every call were like those looked at.

        Args:
            denoiser_calls: calls of the denoisers.
            arithmetic: multiplications that are counted already.
            elements: elements of weights that are counted already.
        """
        more = self.arithmetic * denoiser_calls // max(self.calls, 1) - arithmetic
        if more > 0 or self.elements > elements:
            yield LayerCalls(
                name="unknown",
                quantized=0,
                not_quantized=denoiser_calls,
                called=0,
                denoiser_calls=denoiser_calls,
                quantized_arithmetic=0,
                arithmetic=max(more, 0),
                multiplied=Multiplication.NONE,
                elements=max(self.elements - elements, 0),
                held_bytes=0,
                is_held_quantized=False,
                is_foreign=True,
            )

    def __torch_dispatch__(
        self, func: Any, types: tuple[type, ...], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator, note what it made, and count it if it is a product with a weight from outside."""
        del types  # a quantized tensor takes its own way, and what it calls is not looked at
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        rule, is_multiplication = _looked_up(func)
        if rule is not None:
            left, right = rule.operands(args, kwargs)
            self._count((right, left), lambda: rule.arithmetic(left, right, result))
        elif is_multiplication and (outer := outer_arithmetic(args, result)):
            self._count(args[1::-1], lambda: outer)
        new = {storage_address(tensor) for tensor in _tensors(result)} - self._made
        if new:  # memory that was freed comes back soon: seldom
            self._made.update(new - {storage_address(tensor) for tensor in _tensors(args)})
        return result

    def _count(self, operands: tuple[Any, ...], arithmetic: Callable[[], int]) -> None:
        weight = next((operand for operand in operands if self._is_foreign(operand)), None)
        if weight is not None:
            self.arithmetic += arithmetic()
            self._weights[storage_address(weight)] = weight.numel()

    def _is_foreign(self, operand: Any) -> bool:
        if not isinstance(operand, torch.Tensor) or operand.dim() < 2:
            return False
        address = storage_address(operand)
        if not address or address in self._made:
            return False
        if self._own is None:
            self._own = self._find_own()
        return address not in self._own


@cache
def _looked_up(operator: Any) -> tuple[Rule | None, bool]:
    """Return an operator's rule, and whether it multiplies element by element."""
    return operator_rule(operator), getattr(operator, "overloadpacket", operator) is torch.ops.aten.mul


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
