"""Counting the products inside the forward of denoisers, by weight, where torch computes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pytest_mxq.errors import MxqError
from pytest_mxq.pipelines.execution import Execution, LayerCalls
from pytest_mxq.pipelines.foreign import ForeignProducts
from pytest_mxq.pipelines.products import (
    MULTIPLICATIONS,
    KernelProbe,
    Multiplication,
    Product,
    Rule,
    attention_products,
    is_custom,
    is_operator,
    operator_rule,
    outer_arithmetic,
    product_rules,
    weightless_arithmetic,
)
from pytest_mxq.pipelines.tallies import CalledLayer, ObservedDenoiser, Tally, joined, weight_changes
from pytest_mxq.pipelines.weights import (
    inner_tensors,
    is_emulated,
    is_quantized,
    named_tensors,
    storage_address,
    tensor_state,
)

_Call = Callable[[], torch.Tensor]


class ExecutionRecorder(TorchFunctionMode):
    """Count the products inside the forward of some denoisers, by weight.

    A weight is known by its identity at the start, or by the memory it shares with one (a transposed weight, a slice of
    experts). Any other weight is unknown and counts as not quantized: another module's, one put in place of the
    denoiser's own, a dequantized copy. Only a product in a module that holds a quantized weight itself tells which
    layer an unknown weight stands for.

    Products with unknown weights that no rule of a torch function knows are counted by `ForeignProducts` in the first
    call of each denoiser, and in the first with arguments of other shapes, and taken to be as many in the others. Where
    another call makes more products without a known weight than the one that was looked at, the rest is unknown.

    Between the calls of the denoisers, in a call of the pipeline, every product that no module makes counts as well.

    Outside of the denoisers' forwards only weights of the shape of a denoiser's count as foreign, as those of the same
    denoiser in BF16 have; other ones, such as a reranker's, count as beside.

    Not seen: products inside a kernel that torch's functions do not call (a Triton kernel launched by hand), and inside
    recurrent layers.
    """

    def __init__(self, denoisers: Mapping[str, torch.nn.Module]) -> None:
        super().__init__()
        several = len(denoisers) > 1
        self._denoisers = [
            ObservedDenoiser(name=name, prefix=f"{name}." if several else "", module=module)
            for name, module in denoisers.items()
        ]
        self._tallies: list[Tally] = []
        self._by_id: dict[int, Tally] = {}
        self._by_address: dict[int, Tally] = {}
        self._unknown: dict[object, Tally] = {}
        self._running: list[ObservedDenoiser] = []
        self._layers: list[str] = []  # of the modules with a quantized weight whose forward runs
        self._called: dict[str, CalledLayer] = {}
        self._hooks: list[Any] = []
        self._rules = product_rules()
        self._others: set[Any] = set()  # torch functions that are no product: most of them
        self._between = Tally(name="between the steps", denoiser=self._denoisers[0], weight=None, is_foreign=True)
        self._beside = Tally(name="beside", denoiser=self._denoisers[0], weight=None)
        self._shapes: set[tuple[int, ...]] = set()  # of the denoisers' matrices, in any order of their axes
        self._is_between = False
        self._is_calling = False
        self._foreign = ForeignProducts(self._own_addresses)
        self._more = Tally(name="unknown, in some calls", denoiser=self._denoisers[0], weight=None, is_foreign=True)
        self._looking = ExitStack()
        self._execution: Execution | None = None

    @property
    def execution(self) -> Execution:
        """The record, when the observation has ended.

        Raises:
            MxqError: it has not.
        """
        if self._execution is None:
            raise MxqError("the execution is still being observed: read it after the with block")
        return self._execution

    def start(self) -> None:
        """Take the identities of all weights and watch the denoisers."""
        for denoiser in self._denoisers:
            self._learn(denoiser)
            self._watch(denoiser)

    def stop(self) -> None:
        """Stop watching; idempotent."""
        for hook in (*self._hooks, *(denoiser.leaving for denoiser in self._denoisers)):
            hook.remove()
        self._hooks.clear()

    def finish(self, changed: Sequence[str] = ()) -> None:
        """Compare the weights with those at the start, and make the record."""
        found = [f"{self._label(d, name)}: {what}" for d in self._denoisers for name, what in weight_changes(d)]
        self._execution = Execution.of(
            tuple(sorted(self._layer_calls(), key=lambda layer: layer.name)),
            denoiser_calls=tuple((denoiser.name, denoiser.calls) for denoiser in self._denoisers),
            changed=(*changed, *found),
            beside_arithmetic=self._beside.arithmetic,
        )

    @staticmethod
    def _label(denoiser: ObservedDenoiser, name: str) -> str:
        return denoiser.prefix + name

    def _learn(self, denoiser: ObservedDenoiser) -> None:
        for name, tensor in named_tensors(denoiser.module):
            denoiser.states[name] = tensor_state(tensor)
            tally = Tally(name=denoiser.layer(name), denoiser=denoiser, weight=tensor)
            self._tallies.append(tally)
            self._by_id[id(tensor)] = tally
            self._shapes.update({_axes(tensor)} if tensor.dim() > 1 else ())
            self._by_address.setdefault(storage_address(tensor), tally)
        self._by_address.pop(0, None)  # tensors without memory share nothing

    def _watch(self, denoiser: ObservedDenoiser) -> None:
        enter = functools.partial(self._enter, denoiser)
        self._hooks.append(denoiser.module.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
        denoiser.leaving = denoiser.module.register_forward_hook(self._leave, always_call=True)
        for path, module in denoiser.module.named_modules():
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            held = next((name for name, tensor in own if is_quantized(tensor)), None)
            if held is not None and next(module.children(), None) is None:
                layer = denoiser.layer(f"{path}.{held}" if path else held)
                self._hooks.append(module.register_forward_pre_hook(functools.partial(self._enter_layer, layer)))
                self._hooks.append(module.register_forward_hook(self._leave_layer, always_call=True))

    def _enter(
        self, denoiser: ObservedDenoiser, _module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        denoiser.calls += 1
        denoiser.leaving.remove()  # behind hooks that were put on since: what they multiply is the denoiser's
        denoiser.leaving = denoiser.module.register_forward_hook(self._leave, always_call=True)
        if not self._running:
            denoiser.weightless = 0
            denoiser.shapes = _shapes(args, kwargs)
            if denoiser.shapes not in denoiser.looked_at:
                self._foreign.begin(args, kwargs)
                self._looking.enter_context(self._foreign)
            self._begin()
        self._running.append(denoiser)

    def _leave(self, _module: torch.nn.Module, _args: tuple[Any, ...], _result: Any) -> None:
        denoiser = self._running.pop()
        if not self._running:
            more = denoiser.weightless - denoiser.looked_at.setdefault(denoiser.shapes, denoiser.weightless)
            if more > 0:
                self._more.add(more, quantized=False)
            self._is_between = self._is_calling
            self._end()
            self._looking.close()

    def _begin(self) -> None:
        if not self._is_calling:
            self.__enter__()  # type: ignore[no-untyped-call]

    def _end(self) -> None:
        if not self._is_calling:
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Look at the products of a call of the pipeline as well, between the calls of its denoisers."""
        if self._is_calling or self._running:  # a call inside another one
            yield
            return
        self._begin()
        self._is_calling = True
        try:
            yield
        finally:
            self._is_calling = self._is_between = False
            self._end()

    def enter_outside(self, module: torch.nn.Module, _args: Any = None) -> None:
        """Count a call of a module beside the denoisers with weights that belong to none, until it returns."""
        if self._running:
            return
        beside = ObservedDenoiser(name="", prefix="", module=module, calls=1)
        self._begin()
        self._running.append(beside)

        def leave(module: torch.nn.Module, args: tuple[Any, ...], result: Any) -> None:
            beside.leaving.remove()
            self._leave(module, args, result)

        beside.leaving = module.register_forward_hook(leave, always_call=True)

    def enter_module(self) -> None:
        """Take notice that a module is called, whose products are its own."""
        self._is_between = False

    @property
    def is_calling(self) -> bool:
        """Whether a call of the pipeline runs."""
        return self._is_calling

    @property
    def is_counting(self) -> bool:
        """Whether the forward of a denoiser, or of a module beside them, runs."""
        return bool(self._running)

    def _enter_layer(self, layer: str, _module: torch.nn.Module, _args: tuple[Any, ...]) -> None:
        self._layers.append(layer)
        if self._running:
            self._called.setdefault(layer, CalledLayer()).add(self._running[-1].calls)

    def _leave_layer(self, _module: torch.nn.Module, _args: tuple[Any, ...], _result: Any) -> None:
        self._layers.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a torch function, and count it if it is a product with a weight."""
        del types
        kwargs = kwargs or {}
        if not self._running:
            return self._call_between(func, args, kwargs) if self._is_between else func(*args, **kwargs)
        if func in self._others:
            return func(*args, **kwargs)
        rule = self._rules.get(func)
        if rule is None and is_operator(func):
            rule = operator_rule(func)
        if rule is not None:
            return self._multiply(func, rule, args, kwargs)
        result = func(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            self._add_all(attention_products(args, kwargs))
        elif func in MULTIPLICATIONS:
            self._running[0].weightless += outer_arithmetic(args, result)
        elif is_operator(func) and is_custom(func):
            self._add_custom(args, kwargs, result)
        else:
            self._others.add(func)
        return result

    def _call_between(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        result = func(*args, **kwargs)
        rule = self._rules.get(func)
        if rule is not None:
            left, right = rule.operands(args, kwargs)
            if all(isinstance(operand, torch.Tensor) and operand.dim() > 1 for operand in (left, right)):
                self._tally_between(left, right).add(rule.arithmetic(left, right, result), quantized=False)
        elif func in MULTIPLICATIONS and (outer := outer_arithmetic(args, result)):
            self._tally_between(*args[:2]).add(outer, quantized=False)
        return result

    def _tally_between(self, *operands: torch.Tensor) -> Tally:
        return self._between if any(_axes(operand) in self._shapes for operand in operands) else self._beside

    def _multiply(self, func: Any, rule: Rule, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
        left, right = rule.operands(args, kwargs)
        weight = right if rule.has_weight else self._find_weight(left, right)
        call: _Call = functools.partial(func, *args, **kwargs)
        if weight is None:
            result = call()
            self._running[0].weightless += weightless_arithmetic(rule, args, kwargs, result)
            return result
        tally = self._tally(weight)
        result = self._run(call, tally, weight, left if weight is right else right, is_kernel=rule.is_kernel)
        tally.add(rule.arithmetic(left, right, result), quantized=tally.is_known and is_quantized(weight))
        return result

    def _run(
        self, call: _Call, tally: Tally, weight: torch.Tensor, activation: Any, *, is_kernel: bool
    ) -> torch.Tensor:
        """Make a call; the first one of a quantized weight is looked into, to learn what multiplies."""
        if tally.multiplied is not Multiplication.NONE or not is_quantized(weight):
            return call()
        if is_kernel or is_emulated(weight):
            tally.multiplied = Multiplication.NATIVE if is_kernel else Multiplication.EMULATED
            return call()
        with KernelProbe(weight, activation) as probe:
            result = call()
        tally.multiplied = probe.multiplication
        return result

    def _add_all(self, products: Iterator[Product]) -> None:
        for product in products:
            tally = self._tally(product.right)
            tally.add(product.arithmetic, quantized=tally.is_known and is_quantized(product.right))

    def _add_custom(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """Count a custom operator that takes a known quantized weight: rows x in of the activation, out of the result.

        The activation is its first tensor of two dimensions or more that is not the weight.
        """
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.dim() > 1]
        known = [(tensor, self._known(tensor)) for tensor in tensors if is_quantized(tensor)]
        tally = next((tally for _, tally in known if tally is not None), None)
        weights = {id(tensor) for tensor, tally in known if tally is not None}
        activation = next((tensor for tensor in tensors if id(tensor) not in weights), None)
        if tally is not None and activation is not None and isinstance(result, torch.Tensor):
            tally.multiplied = Multiplication.NATIVE
            tally.add(int(activation.shape[-1]) * result.numel(), quantized=True)

    def _find_weight(self, left: Any, right: Any) -> torch.Tensor | None:
        """Return which operand is a weight; None if both are activations."""
        operands = [operand for operand in (right, left) if isinstance(operand, torch.Tensor)]
        if len(operands) < 2:
            return None
        known = next((operand for operand in operands if self._known(operand) is not None), None)
        if known is not None:
            return known
        foreign = next((operand for operand in operands if _is_parameter(operand)), None)
        if foreign is None and self._layers:
            return next((operand for operand in operands if operand.dim() == 2), None)
        return foreign

    def _known(self, tensor: torch.Tensor) -> Tally | None:
        found = self._by_id.get(id(tensor))
        return self._by_address.get(storage_address(tensor)) if found is None else found

    def _tally(self, weight: torch.Tensor) -> Tally:
        known = self._known(weight)
        return self._unknown_tally(weight) if known is None else known

    def _unknown_tally(self, weight: torch.Tensor) -> Tally:
        """Return where an unknown weight counts: with the layer whose forward runs, by its shape, or beside."""
        if self._running[-1] not in self._denoisers and _axes(weight) not in self._shapes:
            return self._beside
        if self._layers:
            name = self._layers[-1]
            is_fresh = not _is_parameter(weight)  # computed just now from what the layer holds
            multiplied = Multiplication.DEQUANTIZED if is_fresh else Multiplication.NONE
        else:
            name, multiplied = f"unknown {tuple(weight.shape)}", Multiplication.NONE
        key = (name, multiplied)
        if key not in self._unknown:
            self._unknown[key] = Tally(
                name=name,
                denoiser=self._running[-1],
                weight=None,
                multiplied=multiplied,
                is_foreign=not self._layers,
            )
        if _is_parameter(weight):
            self._unknown[key].parameters.setdefault(storage_address(weight), weight)
        return self._unknown[key]

    def _own_addresses(self) -> set[int]:
        tensors = (tensor for denoiser in self._denoisers for _, tensor in named_tensors(denoiser.module))
        return {storage_address(inner) for tensor in tensors for inner in inner_tensors(tensor)}

    def _layer_calls(self) -> Iterator[LayerCalls]:
        """Yield every layer that multiplied or holds a quantized weight."""
        unknown = self._unknown.values()
        yield from self._foreign.layer_calls(
            denoiser_calls=sum(denoiser.calls for denoiser in self._denoisers),
            arithmetic=sum(tally.arithmetic for tally in unknown),
            elements=sum(tally.elements for tally in unknown),
        )
        held = {d.layer(name): tensor for d in self._denoisers for name, tensor in named_tensors(d.module)}
        by_name: dict[str, list[Tally]] = {}
        for tally in (*self._tallies, *self._unknown.values(), self._between, self._more):
            by_name.setdefault(tally.name, []).append(tally)
        for name, tallies in by_name.items():
            weight = held.get(name)
            if any(tally.arithmetic for tally in tallies) or (weight is not None and is_quantized(weight)):
                yield joined(name, tallies, weight, self._called.get(name, CalledLayer()).calls)


def _shapes(*arguments: Any) -> tuple[object, ...]:
    return tuple(value.shape if isinstance(value, torch.Tensor) else None for value in tree_leaves(arguments))


def _axes(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(sorted(size for size in tensor.shape if size > 1))


def _is_parameter(tensor: torch.Tensor) -> bool:
    base = tensor._base  # noqa: SLF001 - documented in "Tensor Views", no public spelling
    return isinstance(tensor, torch.nn.Parameter) or isinstance(base, torch.nn.Parameter)
