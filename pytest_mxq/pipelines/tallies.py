"""What each weight of the observed denoisers did so far, while an execution is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_mxq.pipelines.execution import LayerCalls, worst
from pytest_mxq.pipelines.products import Multiplication
from pytest_mxq.pipelines.weights import (
    TensorState,
    held_bytes,
    is_quantized,
    layer_name,
    named_tensors,
    state_change,
    tensor_state,
)

if TYPE_CHECKING:
    import torch


@dataclass(slots=True, kw_only=True)
class ObservedDenoiser:
    """One observed denoiser: its calls so far, and its tensors at the start."""

    name: str
    prefix: str
    module: torch.nn.Module
    calls: int = 0
    leaving: Any = None  # handle of the hook that is to be the last one
    states: dict[str, TensorState] = field(default_factory=dict)
    shapes: object = None  # of the arguments of the call that runs
    looked_at: dict[object, int] = field(default_factory=dict)  # arithmetic without a weight, by shapes of arguments
    weightless: int = 0  # the same of the call that runs

    def layer(self, tensor_name: str) -> str:
        """Return the name of the layer that a tensor belongs to."""
        return self.prefix + layer_name(tensor_name)


@dataclass(slots=True, kw_only=True)
class CalledLayer:
    """Denoiser calls in which a layer's module was called."""

    calls: int = 0
    last: int = 0

    def add(self, call: int) -> None:
        """Count a denoiser call, by its number, once."""
        self.calls += self.last != call
        self.last = call


@dataclass(slots=True, kw_only=True)
class Tally:
    """What one weight did so far. It holds the weight, so that its id stays its own."""

    name: str
    denoiser: ObservedDenoiser
    weight: torch.Tensor | None
    parameters: dict[int, torch.Tensor] = field(default_factory=dict)  # that are unknown, by their memory
    quantized: int = 0
    not_quantized: int = 0
    quantized_in: int = 0  # number of the denoiser call that counted last
    not_quantized_in: int = 0
    quantized_arithmetic: int = 0
    arithmetic: int = 0
    multiplied: Multiplication = Multiplication.NONE
    is_foreign: bool = False

    @property
    def elements(self) -> int:
        """Elements of the unknown parameters."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def is_known(self) -> bool:
        """Whether the weight is one that a denoiser held at the start."""
        return self.weight is not None

    def add(self, arithmetic: int, *, quantized: bool) -> None:
        """Count a product of the call that runs: rows x in x out."""
        self.arithmetic += arithmetic
        call = self.denoiser.calls
        if quantized:
            self.quantized_arithmetic += arithmetic
            self.quantized += self.quantized_in != call
            self.quantized_in = call
        else:
            self.not_quantized += self.not_quantized_in != call
            self.not_quantized_in = call


def joined(name: str, tallies: list[Tally], weight: torch.Tensor | None, called: int) -> LayerCalls:
    """Return the record of a layer.

    Args:
        name: its name.
        tallies: of the weights that multiplied in it.
        weight: what it holds at the end; None of an unknown one.
        called: denoiser calls in which its module was called.
    """
    unknown = sum(tally.elements for tally in tallies)
    quantized = weight is not None and is_quantized(weight)
    return LayerCalls(
        name=name,
        quantized=max(tally.quantized for tally in tallies),
        not_quantized=max(tally.not_quantized for tally in tallies),
        called=called,
        denoiser_calls=tallies[0].denoiser.calls,
        quantized_arithmetic=sum(tally.quantized_arithmetic for tally in tallies),
        arithmetic=sum(tally.arithmetic for tally in tallies),
        multiplied=worst(tally.multiplied for tally in tallies),
        elements=unknown if weight is None else weight.numel(),
        held_bytes=held_bytes(weight) if weight is not None and quantized else 0,
        is_held_quantized=quantized,
        is_foreign=tallies[0].is_foreign,
    )


def weight_changes(denoiser: ObservedDenoiser) -> Iterator[tuple[str, str]]:
    """Yield the names of tensors that are not what they were at the start, and what happened to each."""
    after = {name: tensor_state(tensor) for name, tensor in named_tensors(denoiser.module)}
    for name in sorted({*denoiser.states, *after}):
        before, now = denoiser.states.get(name), after.get(name)
        what = "added" if before is None else "removed" if now is None else state_change(before, now)
        if what is not None:
            yield name, what
