"""Compile every fused kernel for compute capabilities, without a GPU: python compile_kernels.py 90 100.

A process of its own, for the interpreter of `interpret_kernels` and the compiler cannot both be chosen.
"""

import inspect
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pytest_mxq.formats.emulation import kernels
from pytest_mxq.formats.emulation.kernels import E2M1, E4M3

POINTERS = {
    "x_ptr": "*bf16",
    "out_ptr": "*bf16",
    "bits_ptr": "*i32",
    "product_ptr": "*fp32",
    "bias_ptr": "*bf16",
    "scale_ptr": "*fp32",
    "x_scale_ptr": "*fp32",
    "w_scale_ptr": "*fp32",
}
MX = {"EXPONENT": 8, "CARRY": E4M3.carry, "BLOCKS": 128}
GRID = {"LARGEST": E4M3.largest, "SMALLEST": E4M3.smallest_bits, "MAGIC": E4M3.magic}
NVFP4 = {"SCALE_SMALLEST": E4M3.smallest_bits, "SCALE_MAGIC": E4M3.magic, "BLOCKS": 256}
TILE = {"R": kernels.ROWS, "C": kernels.COLUMNS}
CONSTANTS: list[tuple[Any, dict[str, Any]]] = [
    (kernels._quantize_mx, GRID | MX),
    (kernels._largest_magnitude, {"BLOCK": kernels.AMAX_ELEMENTS}),
    *((kernels._quantize_nvfp4, GRID | NVFP4 | {"RECIPROCAL": value}) for value in (0.0, 1 / E2M1.largest)),
    *((kernels._quantize_float8, GRID | {"BLOCK": 4096, "RECIPROCAL": value}) for value in (0.0, 1 / E4M3.largest)),
    *((kernel, TILE | {"BIAS": True}) for kernel in (kernels._finish_nvfp4, kernels._finish_float8)),
    *((kernel, TILE | {"BIAS": False, "bias_ptr": None}) for kernel in (kernels._finish_nvfp4, kernels._finish_float8)),
]


def compile_kernel(kernel: Any, constants: dict[str, Any], capability: int) -> None:
    names = list(inspect.signature(kernel.fn).parameters)
    triton.compile(
        ASTSource(
            fn=kernel,
            signature={name: "constexpr" if name in constants else POINTERS.get(name, "i32") for name in names},
            constexprs={(names.index(name),): value for name, value in constants.items()},
        ),
        target=GPUTarget("cuda", capability, 32),
        options={"enable_fp_fusion": False},
    )
    sys.stdout.write(f"{kernel.fn.__name__}\n")


if __name__ == "__main__":
    for capability in map(int, sys.argv[1:]):
        for kernel, constants in CONSTANTS:
            compile_kernel(kernel, constants, capability)
