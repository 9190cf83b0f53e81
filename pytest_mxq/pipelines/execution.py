"""What a denoiser really multiplied with: the record of one observed call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_mxq.pipelines.products import Multiplication


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCalls:
    """One weight, or several of one name that shared a layer, over the denoiser calls that were observed.

    Attributes:
        name: the layer's name in its denoiser, with the denoiser's name before it where several are observed; of a
            weight that belongs to none of them, ``unknown (out, in)``.
        quantized: denoiser calls in which it multiplied quantized.
        not_quantized: denoiser calls in which it multiplied not quantized; one call may count in both.
        called: denoiser calls in which its module was called; 0 where another module reads its weight.
        denoiser_calls: calls of its denoiser.
        quantized_arithmetic: multiplications with the quantized weight, rows x in x out.
        arithmetic: all of its multiplications.
        multiplied: what multiplied it where it was quantized.
        elements: elements of the weight that the layer holds at the end; of unknown parameters, of all of them.
        held_bytes: bytes that it occupies in its native format at the end.
        is_held_quantized: whether the layer holds a quantized weight at the end.
        is_foreign: whether the weights belong to no layer of a denoiser.
    """

    name: str
    quantized: int
    not_quantized: int
    called: int
    denoiser_calls: int
    quantized_arithmetic: int
    arithmetic: int
    multiplied: Multiplication
    elements: int
    held_bytes: int
    is_held_quantized: bool
    is_foreign: bool = False

    @property
    def ran_quantized(self) -> bool:
        """Whether it multiplied quantized in every call in which it was called at all, and never otherwise.

        Of a weight that is read without a call of its module, in every call of the denoiser.
        """
        return 0 < self.quantized >= (self.called or self.denoiser_calls) and not self.not_quantized


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What the denoisers multiplied with while a call was observed.

    Products of activations with activations (attention scores) are left out. Convolutions count with their arithmetic,
    not quantized where their weight is not.

    Attributes:
        layers: names of the layers that multiplied quantized whenever they were called, sorted.
        skipped: names of those of them that were not called in every call of their denoiser, as a cache does.
        partly: names of those that were called, and multiplied quantized in some calls or beside another weight.
        not_quantized: names of what multiplied and never quantized.
        not_run: names of layers that hold a quantized weight at the end and multiplied in no call.
        denoiser_calls: number of calls, for each denoiser by its name.
        quantized_arithmetic: multiplications (rows x in x out) with quantized weights, of all denoisers together.
        total_arithmetic: multiplications with any weight.
        weights: elements of the quantized weights at the end.
        all_weights: elements of every weight that multiplied, or is quantized.
        weight_bytes: bytes of the quantized weights at the end, in their native format, by their inner tensors.
        bf16_bytes: bytes of the same weights in BF16.
        changed: what happened to parameters and buffers meanwhile, ``name: what``.
        multiplied: the worst of what multiplied quantized weights; NONE where none did.
        layer_calls: the layers one by one, sorted by name.
        beside_arithmetic: multiplications outside of the denoisers' forwards with weights unlike theirs.
    """

    layers: tuple[str, ...]
    skipped: tuple[str, ...]
    partly: tuple[str, ...]
    not_quantized: tuple[str, ...]
    not_run: tuple[str, ...]
    denoiser_calls: tuple[tuple[str, int], ...]
    quantized_arithmetic: int
    total_arithmetic: int
    weights: int
    all_weights: int
    weight_bytes: int
    bf16_bytes: int
    changed: tuple[str, ...]
    multiplied: Multiplication
    layer_calls: tuple[LayerCalls, ...]
    beside_arithmetic: int = 0

    @property
    def arithmetic_share(self) -> float:
        """Share of the multiplications with weights that were with quantized ones, 0 to 1."""
        return self.quantized_arithmetic / self.total_arithmetic if self.total_arithmetic else 0.0

    @property
    def foreign_share(self) -> float:
        """Share of the multiplications with weights that belong to no denoiser, 0 to 1."""
        foreign = sum(layer.arithmetic for layer in self.layer_calls if layer.is_foreign)
        return foreign / self.total_arithmetic if self.total_arithmetic else 0.0

    @property
    def beside_share(self) -> float:
        """Share of all multiplications that were beside the denoisers, with weights unlike theirs, 0 to 1."""
        every = self.total_arithmetic + self.beside_arithmetic
        return self.beside_arithmetic / every if every else 0.0

    @property
    def weight_share(self) -> float:
        """Share of the elements of all weights that are quantized, 0 to 1."""
        return self.weights / self.all_weights if self.all_weights else 0.0

    @property
    def bytes_ratio(self) -> float:
        """Bytes of the quantized weights as a share of BF16's; 1 where none is quantized."""
        return self.weight_bytes / self.bf16_bytes if self.bf16_bytes else 1.0

    @classmethod
    def of(
        cls,
        layer_calls: tuple[LayerCalls, ...],
        *,
        denoiser_calls: tuple[tuple[str, int], ...],
        changed: tuple[str, ...],
        beside_arithmetic: int = 0,
    ) -> Execution:
        """Add up layers, given sorted by name."""
        ran = [layer for layer in layer_calls if layer.quantized or layer.not_quantized]
        held = [layer for layer in layer_calls if layer.is_held_quantized]
        return cls(
            layers=tuple(layer.name for layer in ran if layer.ran_quantized),
            skipped=tuple(
                layer.name for layer in ran if layer.ran_quantized and layer.quantized < layer.denoiser_calls
            ),
            partly=tuple(layer.name for layer in ran if layer.quantized and not layer.ran_quantized),
            not_quantized=tuple(layer.name for layer in ran if not layer.quantized),
            not_run=tuple(layer.name for layer in held if not layer.quantized and not layer.not_quantized),
            denoiser_calls=denoiser_calls,
            quantized_arithmetic=sum(layer.quantized_arithmetic for layer in ran),
            total_arithmetic=sum(layer.arithmetic for layer in ran),
            weights=sum(layer.elements for layer in held),
            all_weights=sum(layer.elements for layer in layer_calls),
            weight_bytes=sum(layer.held_bytes for layer in held),
            bf16_bytes=2 * sum(layer.elements for layer in held),
            changed=changed,
            multiplied=worst(layer.multiplied for layer in ran),
            layer_calls=layer_calls,
            beside_arithmetic=beside_arithmetic,
        )


def worst(kinds: Iterable[Multiplication]) -> Multiplication:
    """Return the worst of what multiplied; NONE where nothing did.

    >>> worst([Multiplication.NATIVE, Multiplication.DEQUANTIZED, Multiplication.NONE])
    <Multiplication.DEQUANTIZED: 'dequantized'>
    """
    order = list(Multiplication)
    return max(
        (kind for kind in kinds if kind is not Multiplication.NONE), key=order.index, default=Multiplication.NONE
    )
