"""Products with weights from outside count however they are written, and what a call computes itself does not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_denoiser import LAYERS, ONE, WIDTH, Denoiser, observed, quantized, sample, scripted
from torch.nn import functional

from pytest_mxq.pipelines.execution import Execution
from pytest_mxq.pipelines.observe import observe_execution

Multiply = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def added(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    rows = x.reshape(-1, WIDTH)
    return torch.zeros_like(rows).addmm_(rows, weight.t()).view_as(x)


def bilinear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.bilinear(x, torch.ones_like(x[..., :1]), weight.unsqueeze(-1))


WRITTEN: dict[str, Multiply] = {
    "linear": functional.linear,
    "matmul": lambda x, weight: x @ weight.t(),
    "inner": torch.inner,
    "einsum": lambda x, weight: torch.einsum("...i,oi,o->...o", x, weight, torch.ones_like(weight[0])),
    "bilinear": bilinear,
    "addmm_": added,
    "multi_dot": lambda x, weight: torch.linalg.multi_dot([x.reshape(-1, WIDTH), weight.t()]).view_as(x),
    "scripted": scripted,
    "multiplied and added": lambda x, weight: (x[..., None, :] * weight).sum(-1),
}


def with_bf16(multiply: Multiply) -> Any:
    """Return a quantized denoiser whose blocks return BF16's products, with weights that are no parameters."""
    denoiser = quantized(Denoiser())
    for block in denoiser.blocks:
        first, second = torch.randn(2, WIDTH, WIDTH).bfloat16().unbind()
        weights = first.clone(), second.clone()

        def hook(_module: Any, args: Any, _out: Any, weights: Any = weights) -> torch.Tensor:
            return multiply(multiply(args[0], weights[0]), weights[1])

        block.register_forward_hook(hook)
    return denoiser


@pytest.mark.parametrize("multiply", WRITTEN.values(), ids=WRITTEN)
def test_a_product_with_a_weight_from_outside_counts_however_it_is_written(multiply: Multiply) -> None:
    execution = observed(with_bf16(multiply))
    assert execution.layers == LAYERS
    assert execution.foreign_share == execution.weight_share == 0.5
    assert execution.total_arithmetic == 8 * ONE


def test_tensors_that_the_call_was_given_or_computed_are_no_weights() -> None:
    denoiser = quantized(Denoiser())
    denoiser.register_forward_hook(lambda _m, args, out: out + args[0] @ (args[0].transpose(-1, -2) @ out))
    execution = observed(denoiser, calls=2)
    assert (execution.foreign_share, execution.weight_share) == (0.0, 1.0)


def test_a_module_with_matrices_that_is_no_component_counts_wherever_it_is_called() -> None:
    pipe = SimpleNamespace(transformer=quantized(Denoiser()), components={"text_encoder": torch.nn.Linear(WIDTH, 2)})
    beside, convolution = Denoiser(), torch.nn.Conv1d(3, 3, 1).bfloat16()
    with observe_execution(pipe, ["transformer"]) as recorder, torch.no_grad():
        pipe.transformer(sample())
        pipe.components["text_encoder"](sample().float())
        convolution(sample())
        beside(sample())
    execution = recorder.execution
    assert execution.foreign_share == execution.weight_share == 0.5
    assert execution.denoiser_calls == (("transformer", 1),)


class Pipeline:
    """Calls its denoiser twice, and something between the calls."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.transformer = quantized(Denoiser())
        self.vae = torch.nn.Linear(WIDTH, WIDTH).bfloat16()
        self.components = {"transformer": self.transformer, "vae": self.vae}
        self._between = between

    def __call__(self) -> torch.Tensor:
        image: torch.Tensor = self.vae(self.transformer(self._between(self.transformer(sample()))))
        return image @ torch.ones(WIDTH, WIDTH).bfloat16()


def observed_between(between: Callable[[torch.Tensor], torch.Tensor]) -> Execution:
    pipe = Pipeline(between)
    with observe_execution(pipe, ["transformer"]) as recorder, torch.no_grad():
        pipe()
        Denoiser()(sample())  # beside the pipeline's call: what it generates is not changed by it
    return recorder.execution


@pytest.mark.parametrize("written", ["linear", "matmul", "multiplied and added"])
def test_products_between_the_calls_of_a_denoiser_count(written: str) -> None:
    weight = torch.randn(WIDTH, WIDTH).bfloat16()
    assert observed_between(lambda x: WRITTEN[written](x, weight)).foreign_share == pytest.approx(1 / 9)


@pytest.mark.parametrize("is_module", [True, False])
def test_weights_unlike_the_denoisers_are_beside_and_leave_its_shares_alone(is_module: bool) -> None:
    ranker = torch.nn.Linear(WIDTH, 2 * WIDTH, bias=False).bfloat16()

    def rank(x: torch.Tensor) -> torch.Tensor:
        ranker(x) if is_module else x @ ranker.weight.T
        return x

    execution = observed_between(rank)
    assert execution.beside_share == pytest.approx(2 / 10)
    assert (execution.foreign_share, execution.weight_share, execution.total_arithmetic) == (0.0, 1.0, 8 * ONE)


def test_what_a_scheduler_computes_and_what_follows_the_denoiser_does_not_count() -> None:
    execution = observed_between(lambda x: x + torch.full((3, 1), 0.5).bfloat16() * x)
    assert (execution.foreign_share, execution.beside_share) == (0.0, 0.0)
