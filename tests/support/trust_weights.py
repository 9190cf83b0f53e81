"""Faults in the numbers: weights and activations that a correct format would have left alone."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from gate_bench import FORMATS
from own_formats import own_format
from torch.nn import functional
from torchao.core.config import AOBaseConfig
from torchao.quantization import Float8WeightOnlyConfig
from torchao.quantization.transform_module import register_quantize_module_handler
from trust_bench import RECIPE, WHOLE, Fault, Layer

from pytest_mxq.formats import Format
from pytest_mxq.formats.emulation.numerics import NumberFormat
from pytest_mxq.formats.emulation.tensor import EmulatedTensor
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.models import Recipe
from pytest_mxq.models.demo import DEMO

Harm = Callable[[int, torch.Tensor], torch.Tensor]


class _HarmedConfig(AOBaseConfig):  # type: ignore[misc]  # torchao ships no types
    def __init__(self, harm: Harm, number_format: NumberFormat) -> None:
        self.harm = harm
        self.number_format = number_format
        self.layers = 0


@register_quantize_module_handler(_HarmedConfig)  # type: ignore[untyped-decorator]
def _transform(module: torch.nn.Module, config: _HarmedConfig) -> torch.nn.Module:
    weight: Any = module.weight
    harmed = config.harm(config.layers, weight.detach().clone()).to(weight.dtype)
    config.layers += 1
    quantized = EmulatedTensor.from_weight(harmed, config.number_format)
    module.weight = torch.nn.Parameter(quantized, requires_grad=False)
    return module


def harmed(harm: Harm, name: str = "mxfp8", numerics: str | None = None) -> Callable[[], Format]:
    """Return what makes a format whose weights are harmed before they are quantized.

    Args:
        harm: takes the number of the layer and its weight (out, in).
        name: the format that it says it is.
        numerics: the format whose numerics it has; None: its own.
    """
    number_format = NumberFormat(numerics or name)
    return lambda: replace(FORMATS[name], emulation=lambda: _HarmedConfig(harm, number_format))


def _times(factor: float) -> Harm:
    return lambda _layer, weight: weight * factor


def _zero_block(layer: int, weight: torch.Tensor) -> torch.Tensor:
    if layer == 0:
        weight[:32, :32] = 0
    return weight


def _zero_layer(layer: int, weight: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(weight) if layer == 20 else weight


def _one_nan(layer: int, weight: torch.Tensor) -> torch.Tensor:
    if layer == 0:
        weight[0, 0] = torch.nan
    return weight


def _permuted(layer: int, weight: torch.Tensor) -> torch.Tensor:
    return weight.roll(1, dims=0) if layer == 20 else weight


def _noisy(share: float) -> Harm:
    def harm(layer: int, weight: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(layer)
        noise = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        return weight + share * weight.float().std().to(weight.dtype) * noise

    return harm


def _sign_lost(layer: int, weight: torch.Tensor) -> torch.Tensor:
    return weight.abs() if layer == 20 else weight


def _same(_layer: int, weight: torch.Tensor) -> torch.Tensor:
    return weight


def _rounded(weight: torch.Tensor) -> torch.Tensor:
    quantized = EmulatedTensor.from_weight(weight, NumberFormat.MXFP8)
    return quantized.values.to(weight.dtype)


def _weight_only() -> object:
    return Float8WeightOnlyConfig()


def _not_rounded() -> Recipe:
    """`prepare` writes BF16's numbers over the quantized ones: the activations alone are rounded."""
    kept: dict[str, torch.Tensor] = {}

    def prepare(pipe: Any) -> None:
        for name, weight in pipe.transformer.named_parameters():
            if isinstance(weight, EmulatedTensor):
                weight.values.copy_(kept[name])
            else:
                kept[name] = weight.detach()

    return replace(RECIPE, prepare=prepare)


def _limited(recipe: Recipe, share: float = 0.999) -> Recipe:
    """Return a recipe that limits the activations of every quantized layer to a quantile of their sizes."""

    def forward(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        sizes = x.abs().float().flatten()
        limit = float(sizes.kthvalue(max(1, int(share * sizes.numel()))).values)
        return functional.linear(x.clamp(-limit, limit), layer.weight, layer.bias)

    def prepare(pipe: Any) -> None:
        for layer in pipe.transformer.modules():
            if isinstance(layer, torch.nn.Linear) and type(layer.weight).__name__ == "EmulatedTensor":
                layer.forward = types.MethodType(forward, layer)  # type: ignore[method-assign]

    return replace(recipe, prepare=prepare)


_weights = partial(Fault, layer=Layer.WEIGHTS, expected=Outcome.REGRESSION)

_unseen = partial(Fault, layer=Layer.WEIGHTS, expected=Outcome.PASS, unseen=True)

FAULTS = [
    _weights(
        injected="all weights times 1.02, judged by PSNR",
        number_format=harmed(_times(1.02)),
        gate="psnr",
        **WHOLE,
        why="six dB below MXFP8's own error in the packaged gate's eight images, and below the bounds of 50 and 46.5 dB",
    ),
    _unseen(
        injected="all weights times 1.02, in NVFP4",
        number_format=harmed(_times(1.02), "nvfp4"),
        **WHOLE,
        why="the images change as much as by NVFP4 itself; in MXFP8 they show it",
    ),
    _weights(
        injected="all weights times 1.10, in NVFP4, judged by PSNR",
        number_format=harmed(_times(1.10), "nvfp4"),
        gate="psnr",
        **WHOLE,
        why="the images change more than NVFP4 may change them",
    ),
    _unseen(
        injected="a block of 32 x 32 zeros in one layer",
        number_format=harmed(_zero_block),
        gate="psnr",
        **WHOLE,
        why="one layer's small part: one dB below MXFP8's own error, and four above the bounds",
    ),
    _weights(
        injected="one layer of zeros",
        number_format=harmed(_zero_layer),
        why="one layer of 52 changes the images more than all of MXFP8",
    ),
    _weights(
        injected="one NaN in one layer",
        number_format=harmed(_one_nan),
        expected=Outcome.DEGENERATE,
        said="not-finite",
        why="one NaN spreads to every pixel",
    ),
    _weights(
        injected="the rows of one layer moved by one",
        number_format=harmed(_permuted),
        why="a layer whose scales and rows do not belong together changes the images",
    ),
    _weights(
        injected="the signs of one layer lost",
        number_format=harmed(_sign_lost),
        why="the images change more than MXFP8 may change them",
    ),
    _weights(
        injected="noise of 5 % of each weight's spread",
        number_format=harmed(_noisy(0.05)),
        **WHOLE,
        why="nine times MXFP8's own error in the packaged gate's eight images, and twice its bounds",
    ),
    _unseen(
        injected="noise of 5 % of each weight's spread, in NVFP4",
        number_format=harmed(_noisy(0.05), "nvfp4"),
        **WHOLE,
        why="the images change as much as by NVFP4 itself; in MXFP8 they show it",
    ),
    _weights(
        injected="activations limited at 99.9 %",
        recipe=lambda: _limited(RECIPE),
        why="the loss of one value in a thousand changes the images more than MXFP8 may",
    ),
    _weights(
        injected="activations limited at 99.9 %, in NVFP4",
        number_format=lambda: FORMATS["nvfp4"],
        **{**WHOLE, "recipe": lambda: _limited(DEMO)},
        why="the loss of one value in a thousand changes the images more than NVFP4 may",
    ),
    _weights(
        injected="activations that are not quantized: rounded weights held in BF16",
        number_format=lambda: replace(FORMATS["mxfp8"], emulation=own_format("mxfp8", _rounded).emulation),
        expected=Outcome.NOT_QUANTIZED,
        said="BF16's bytes",
        why="images of it are nearer to BF16 than the format's; the bytes of the weights tell",
    ),
    _weights(
        injected="activations that are not quantized: torchao's weight-only configuration",
        number_format=lambda: replace(FORMATS["float8"], emulation=_weight_only),
        expected=Outcome.NOT_QUANTIZED,
        said="not quantized",
        why="images of it are nearer to BF16 than the format's; the operands of each layer's product tell",
    ),
    _weights(
        injected="the same in a format that says so (weight_only=True)",
        layer=Layer.NOTHING,
        number_format=lambda: replace(FORMATS["float8"], emulation=_weight_only, weight_only=True),
        expected=Outcome.PASS,
        why="no fault: the format quantizes weights alone",
    ),
    _unseen(
        injected="weights that the emulation does not round",
        recipe=_not_rounded,
        why="an error that is too small is below any bound",
    ),
    _weights(
        injected="NVFP4's numerics under MXFP8's name",
        number_format=harmed(_same, "mxfp8", "nvfp4"),
        why="the bounds of MXFP8 are narrower than NVFP4's error",
    ),
    _weights(
        injected="MXFP8's numerics under NVFP4's name",
        number_format=harmed(_same, "nvfp4", "mxfp8"),
        expected=Outcome.NOT_QUANTIZED,
        said="BF16's bytes",
        why="the weights occupy more bytes than the format's",
    ),
]
