"""The fused kernels' code by Triton's interpreter on the CPU; on a GPU it is compiled and seen in tests/gpu."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from emulation_inputs import ALL, BF16, FP32, MX_ELEMENTS, awkward, normal
from kernel_inputs import Call, Result, block_maxima, same_bits
from torch import Tensor
from torchao.prototype.mx_formats.mx_tensor import MXTensor, ScaleCalculationMode

from pytest_mxq.formats.emulation.numerics import NUMERICS, MxNumerics, NumberFormat, Operand
from pytest_mxq.formats.emulation.path import path_of, try_kernels

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="no triton: it comes with torch for CUDA")
CPU = torch.device("cpu")
KERNELS = "pytest_mxq.formats.emulation.kernels"
AWKWARD = [
    Call(number_format=number_format, x=awkward(magnitude), dtype=dtype)
    for number_format in NumberFormat
    for magnitude, dtype in ((1e-28, FP32), (1e-3, FP32), (1.0, BF16), (37.0, FP32), (1e30, FP32))
]
PATTERNS = [Call(number_format=number_format, x=block_maxima(32), dtype=BF16) for number_format in MX_ELEMENTS]


def shapes() -> list[Call]:
    """Return activations of odd shapes, no numbers among them, to be multiplied with and without a bias."""
    calls = []
    for number_format, plain in NUMERICS.items():
        dtype = plain.gemm_dtype(CPU)
        for shape in ((96,), (3, 5, 96), (0, 96), (2, 0, 96), (5, 4128)):
            quantized = plain.quantize_weight(normal(64, shape[-1], seed=1)).operand
            weight = Operand(quantized.values.to(dtype), quantized.scale)
            products = ((weight, None), (weight, normal(64, seed=2)))
            calls.append(Call(number_format=number_format, x=normal(*shape), dtype=dtype, products=products))
    return calls


SHAPES = shapes()


def run_script(name: str, *arguments: str, **environment: str) -> str:
    support = Path(__file__).parents[2] / "support"
    found = os.pathsep.join([str(support), str(support.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(support / name), *arguments]
    environment = os.environ | {"PYTHONPATH": found, **environment}
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """What the interpreted kernels give for ``AWKWARD``, ``PATTERNS`` and ``SHAPES``."""
    folder = tmp_path_factory.mktemp("kernels")
    torch.save([*AWKWARD, *PATTERNS, *SHAPES], folder / "calls.pt")
    run_script("interpret_kernels.py", str(folder / "calls.pt"), str(folder / "results.pt"), TRITON_INTERPRET="1")
    results: list[Result] = torch.load(folder / "results.pt", weights_only=False)
    return results


def assert_same(mine: Operand, plain: Operand) -> None:
    assert same_bits(mine.values, plain.values)
    assert (mine.scale is None) is (plain.scale is None)
    if mine.scale is not None:
        assert plain.scale is not None
        assert same_bits(mine.scale, plain.scale)


@needs_triton
def test_activations_are_quantized_as_by_plain_operations(results: list[Result]) -> None:
    for call, result in zip(AWKWARD, results[: len(AWKWARD)], strict=True):
        assert_same(result.operand, NUMERICS[call.number_format].quantize_activation(call.x, call.dtype))


@needs_triton
def test_every_bit_pattern_as_the_largest_of_an_mx_block_as_by_torchao(results: list[Result]) -> None:
    for call, result in zip(PATTERNS, results[len(AWKWARD) : -len(SHAPES)], strict=True):
        element = MX_ELEMENTS[call.number_format]
        native = MXTensor.to_mx(call.x, element, 32, scaling_mode=ScaleCalculationMode.RCEIL)
        assert same_bits(result.operand.values, native.dequantize(BF16), zeros=True)


@needs_triton
def test_odd_and_empty_shapes_are_multiplied_as_by_plain_operations(results: list[Result]) -> None:
    for call, result in zip(SHAPES, results[-len(SHAPES) :], strict=True):
        plain = NUMERICS[call.number_format]
        operand = plain.quantize_activation(call.x, call.dtype)
        assert_same(result.operand, operand)
        for product, (weight, bias) in zip(result.products, call.products, strict=True):
            assert product.shape == (*call.x.shape[:-1], 64)
            assert same_bits(product, plain.linear(operand, weight, bias))


@needs_triton
def test_every_kernel_compiles_for_hopper_and_blackwell(tmp_path: Path) -> None:
    compiled = run_script("compile_kernels.py", "90", "100", TRITON_CACHE_DIR=str(tmp_path))
    assert compiled.split().count("_quantize_nvfp4") == 4  # two devices, with and without a reciprocal
    assert len(compiled.splitlines()) == 20


@needs_triton
@ALL
def test_kernels_that_agree_are_taken(number_format: NumberFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{KERNELS}.FUSED", NUMERICS)
    assert try_kernels(number_format, CPU).text == "Triton kernels"


class OneOff(MxNumerics):
    """Kernels with one wrong number."""

    def quantize_activation(self, x: Tensor, dtype: torch.dtype) -> Operand:
        operand = NUMERICS[NumberFormat.MXFP8].quantize_activation(x, dtype)
        operand.values.view(-1)[100] *= 2
        return operand


@needs_triton
def test_kernels_that_compute_other_values_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = NUMERICS[NumberFormat.MXFP8]
    assert isinstance(plain, MxNumerics)
    wrong = OneOff(element=plain.element, carry=plain.carry, span=plain.span, magic=plain.magic)
    monkeypatch.setattr(f"{KERNELS}.FUSED", {NumberFormat.MXFP8: wrong})
    path = try_kernels(NumberFormat.MXFP8, CPU)
    assert path.numerics is plain
    assert path.text == "PyTorch operations: the Triton kernels compute other values here"


@ALL
def test_where_the_kernels_cannot_run_the_plain_operations_serve(number_format: NumberFormat) -> None:
    """On a CPU triton has no driver, or is not installed."""
    path = try_kernels(number_format, CPU)
    assert path.numerics is NUMERICS[number_format]
    assert path.text.startswith("PyTorch operations: the Triton kernels do not run here (")


@ALL
def test_on_a_cpu_no_kernel_is_tried(number_format: NumberFormat) -> None:
    path = path_of(number_format, CPU)
    assert path.numerics is NUMERICS[number_format]
    assert path.text == "PyTorch operations"
