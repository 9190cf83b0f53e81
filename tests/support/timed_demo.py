"""The demo on a clock of its own, on which its blocks cost what a test says: for tests of what is timed."""

from __future__ import annotations

import gc
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from gate_bench import CPU

from pytest_mxq.backend.benchmark import TorchBenchmark
from pytest_mxq.formats import built_in_formats
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines import cache as arm_store
from pytest_mxq.pipelines.compile import compile_blocks, repeated_blocks
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.settings import CaseSettings
from pytest_mxq.profiling.timing import Clock

if TYPE_CHECKING:
    import pytest

    from pytest_mxq.backend.generation import TorchBackend

# Decoding is most of a call on a CPU, and no time of the fake clock.
ONE_STEP = replace(DEMO, call=MappingProxyType({**DEMO.call, "num_inference_steps": 1, "height": 64, "width": 64}))
BUILT_IN = next(number_format for number_format in built_in_formats() if number_format.name == "mxfp8")
# The emulation stands in for the hardware: what is shown here is the path, on a clock of its own.
MXFP8 = replace(BUILT_IN, native=BUILT_IN.emulation or BUILT_IN.native)
BF16_BLOCK, QUANTIZED_BLOCK = 1.0, 0.75


class FakeTime:
    """The blocks cost their time on this clock, with a little scatter."""

    def __init__(self) -> None:
        self.now = 0.0
        self.count = 0

    def spend(self, seconds: float) -> None:
        self.count += 1
        self.now += seconds * (1 + 0.002 * ((self.count * 7919) % 11 - 5) / 5)


def is_quantized(weight: torch.Tensor) -> bool:
    return type(weight).__name__ == "EmulatedTensor"


def quantized_share(denoiser: torch.nn.Module) -> float:
    """The share of the weights of the blocks' Linear layers that is quantized, 0 to 1."""
    linears = [
        module
        for block in repeated_blocks(denoiser)
        for module in block.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    quantized = sum(linear.weight.numel() for linear in linears if is_quantized(linear.weight))
    return quantized / sum(linear.weight.numel() for linear in linears)


def charge_blocks(backend: TorchBackend, patch: pytest.MonkeyPatch) -> FakeTime:
    """Have blocks compiled by the backend that changes nothing, and spend their time on a fake clock.

    It falls from BF16's to the quantized in proportion to the quantized weights.
    """
    time = FakeTime()

    def compile_and_charge(denoiser: torch.nn.Module, **_: Any) -> None:
        compile_blocks(denoiser, backend="eager")
        cost = BF16_BLOCK - (BF16_BLOCK - QUANTIZED_BLOCK) * quantized_share(denoiser)
        blocks = len(repeated_blocks(denoiser))
        denoiser.register_forward_hook(lambda *_: time.spend(cost * blocks))

    patch.setattr(arm_store, "compile_blocks", compile_and_charge)
    backend.arms.release()
    gc.freeze()  # what the tests before have imported: each timed call looks through all that is not frozen
    return time


def make_benchmark(backend: TorchBackend, time: FakeTime) -> TorchBenchmark:
    """A benchmark that reads the fake clock."""
    return TorchBenchmark(backend, CPU, None, Clock(now=lambda: time.now, synchronize=lambda: None))


def demo_case(recipe: Any = ONE_STEP) -> Case:
    """One prompt of the demo."""
    return Case(recipe=recipe, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])
