"""Compute by the fused kernels in Triton's interpreter: python interpret_kernels.py CALLS.pt RESULTS.pt.

The interpreter is chosen when triton is imported, hence a process of its own, with TRITON_INTERPRET=1.
"""

import sys
from typing import Any

import torch
from kernel_inputs import Call, Result
from triton.runtime import interpreter

from pytest_mxq.formats.emulation import kernels


def convert(data: Any, source: Any, _target: object, _rounding: object) -> Any:
    """Convert as a GPU does: the interpreter cuts FP32 off where BF16 ends."""
    if str(source) == "fp32":
        return torch.from_numpy(data.copy()).bfloat16().view(torch.int16).numpy().view("uint16")
    return torch.from_numpy(data.copy().view("int16")).view(torch.bfloat16).float().numpy()


def compute(call: Call) -> Result:
    kernels.ELEMENTS = max(4096, call.x.numel() // 8)  # the interpreter runs one program after the other
    numerics = kernels.FUSED[call.number_format]
    operand = numerics.quantize_activation(call.x, call.dtype)
    return Result(operand=operand, products=tuple(numerics.linear(operand, *product) for product in call.products))


if __name__ == "__main__":
    interpreter._convert_float = convert
    calls, results = sys.argv[1:]
    torch.save([compute(call) for call in torch.load(calls, weights_only=False)], results)
