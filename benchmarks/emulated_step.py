"""One denoising step of the demo model's transformer: BF16, emulated formats, and those from plain torchao primitives.

Prints the median time of interleaved rounds for each arm and batch size, and its ratio to BF16. On a quiet machine:

    OMP_NUM_THREADS=2 python benchmarks/emulated_step.py --rounds 30 --out emulated_step.json

``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`` in front shows a machine without AVX-512 and AMX.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
from torchao.quantization import quantize_
from torchao.quantization.quantize_.common import KernelPreference

import pytest_mxq
from pytest_mxq.formats.emulation.numerics import NumberFormat, fast_gemm_dtype
from pytest_mxq.formats.emulation.tensor import EmulationConfig

TRANSFORMER = Path(pytest_mxq.__file__).parent / "assets" / "demo_model" / "transformer"
BATCHES = (1, 8)
IMAGE_TOKENS, TEXT_TOKENS = 64, 16  # 128x128 pixels, VAE /8, 2x2 packing; the demo's max_sequence_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table; times in milliseconds."""

    batch: int
    arm: str
    median_ms: float
    ratio_to_bf16: float


class PlainNvfp4Linear(nn.Module):
    """NVFP4 from torchao's primitives as they stand: quantize the activation, dequantize both, multiply in FP32."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = per_tensor_amax_to_scale(linear.weight.abs().max())
        self.weight = self._quantize(linear.weight.detach(), self.scale)
        self.bias = linear.bias

    @staticmethod
    def _quantize(x: Tensor, scale: Tensor) -> NVFP4Tensor:
        quantized = NVFP4Tensor.to_nvfp4(x, per_tensor_scale=scale)
        quantized.per_tensor_scale = None
        return quantized

    def forward(self, x: Tensor) -> Tensor:
        """Multiply ``x`` (..., in) in NVFP4."""
        scale = per_tensor_amax_to_scale(x.abs().max())
        left = self._quantize(x.reshape(-1, x.shape[-1]), scale).dequantize(torch.float32)
        out = (left @ self.weight.dequantize(torch.float32).t()).bfloat16()
        out = out * (scale * self.scale).bfloat16() + self.bias
        result: Tensor = out.view(*x.shape[:-1], -1)
        return result


def selected(module: nn.Module, name: str) -> bool:
    """Return the demo's selection: the published FLUX rule with 192 in place of 1024."""
    return (
        isinstance(module, nn.Linear)
        and min(module.in_features, module.out_features) >= 192
        and not ("embed" in name or "norm_out" in name or name == "proj_out")
    )


def step_arguments(batch: int) -> dict[str, Tensor | bool]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).bfloat16()

    grid = torch.zeros(IMAGE_TOKENS, 3)
    grid[:, 1], grid[:, 2] = torch.arange(IMAGE_TOKENS) // 8, torch.arange(IMAGE_TOKENS) % 8
    return {
        "hidden_states": normal(batch, IMAGE_TOKENS, 64),
        "encoder_hidden_states": normal(batch, TEXT_TOKENS, 128),
        "pooled_projections": normal(batch, 128),
        "timestep": torch.full((batch,), 0.5).bfloat16(),
        "guidance": torch.full((batch,), 3.5),
        "img_ids": grid,
        "txt_ids": torch.zeros(TEXT_TOKENS, 3),
        "return_dict": False,
    }


def plain_nvfp4(model: nn.Module) -> None:
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and selected(module, name):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, PlainNvfp4Linear(module))


def plain_mxfp8(model: nn.Module) -> None:
    quantize_(model, MXDynamicActivationMXWeightConfig(kernel_preference=KernelPreference.EMULATED), selected)


def emulated(number_format: NumberFormat) -> Callable[[nn.Module], None]:
    return lambda model: quantize_(model, EmulationConfig(number_format=number_format), selected)


def build_arms() -> dict[str, nn.Module]:
    base = FluxTransformer2DModel.from_pretrained(TRANSFORMER, dtype=torch.bfloat16)
    changes = {
        "mxfp8": emulated(NumberFormat.MXFP8),
        "nvfp4": emulated(NumberFormat.NVFP4),
        "mxfp8 plain": plain_mxfp8,
        "nvfp4 plain": plain_nvfp4,
    }
    arms = {"bf16": base}
    for name, change in changes.items():
        arms[name] = copy.deepcopy(base)
        change(arms[name])
    return arms


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.no_grad()
def measure(arms: dict[str, nn.Module], batch: int, rounds: int) -> list[Row]:
    arguments = step_arguments(batch)
    samples: dict[str, list[float]] = {name: [] for name in arms}
    for round_index in range(rounds + 3):  # the first three warm up
        for name, model in arms.items():
            taken = seconds(partial(model, **arguments))
            if round_index >= 3:
                samples[name].append(taken)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return [
        Row(batch=batch, arm=name, median_ms=1e3 * median, ratio_to_bf16=median / medians["bf16"])
        for name, median in medians.items()
    ]


def machine() -> dict[str, object]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "cpu": model,
        "isa": torch.backends.cpu.get_cpu_capability(),
        "gemm_dtype": str(fast_gemm_dtype(torch.device("cpu"))),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "torchao", "diffusers")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds per batch size (default 20)")
    parser.add_argument("--out", type=Path, help="also write the table as JSON")
    options = parser.parse_args()
    facts, arms = machine(), build_arms()
    rows = [row for batch in BATCHES for row in measure(arms, batch, options.rounds)]
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    print(f"{'batch':>5}  {'arm':<12} {'median ms':>10} {'x BF16':>7}")
    for row in rows:
        print(f"{row.batch:>5}  {row.arm:<12} {row.median_ms:>10.2f} {row.ratio_to_bf16:>7.2f}")
    if options.out:
        options.out.write_text(json.dumps({"machine": facts, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
