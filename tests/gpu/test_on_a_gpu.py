"""What only a CUDA device can show: native float8, graphs, memory told without moving anything, compiled kernels.

All of it stands in this file: of several workers one may hold the GPU, for a second process on it spoils what is timed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
import torch
from emulation_inputs import (
    ALL,
    BF16,
    FP32,
    MX,
    MX_ELEMENTS,
    awkward,
    emulated,
    linear,
    normal,
    torchao_nvfp4,
    weight_of,
)
from kernel_inputs import block_maxima, same_bits
from torchao.prototype.mx_formats.mx_tensor import MXTensor, ScaleCalculationMode
from torchao.quantization import PerRow
from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor
from torchao.utils import TorchAOBaseTensor

from pytest_mxq.backend.benchmark import TorchBenchmark
from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.environment.device import find_device
from pytest_mxq.formats import built_in_formats
from pytest_mxq.formats.emulation.numerics import NUMERICS, NumberFormat, Operand
from pytest_mxq.formats.emulation.path import path_of
from pytest_mxq.gates.evidence import RunEvidence
from pytest_mxq.metrics.images import to_uint8
from pytest_mxq.models import ModelSource
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines.cache import ArmStore, How
from pytest_mxq.pipelines.compile import CompileMode, compiling_fast
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.settings import CaseSettings, Execution
from pytest_mxq.profiling.memory import measure_peak

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no CUDA device: native formats, CUDA Graphs, peak memory"
    ),
]

FORMATS = {number_format.name: number_format for number_format in built_in_formats()}
ONE_STEP = replace(DEMO, call=MappingProxyType({**DEMO.call, "num_inference_steps": 1}))
SOURCE = ModelSource(recipe=ONE_STEP)
ENCODERS_ON_THE_GPU = How(for_time=True)  # on the CPU they embed a prompt to other last bits
GIB = 2**30


@pytest.fixture
def backend() -> Iterator[TorchBackend]:
    backend = TorchBackend("cuda", lambda _label, _done, _total: None)
    yield backend
    backend.arms.release()


@pytest.fixture
def leave_free() -> Iterator[Callable[[int], None]]:
    """Fill the GPU with a tensor but for some bytes; emptied also where a failure's traceback holds the tensor."""
    fillers: list[torch.Tensor] = []

    def leave(free: int) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        fillers.append(torch.empty(torch.cuda.mem_get_info()[0] - free, dtype=torch.uint8, device="cuda"))

    yield leave
    for filler in fillers:
        filler.untyped_storage().resize_(0)
    torch.cuda.empty_cache()


def ballast(gib: int, device: str) -> torch.Tensor:
    return torch.zeros(gib * GIB, dtype=torch.uint8, device=device)


def case(batch_size: int = 1) -> Case:
    return Case(
        recipe=ONE_STEP,
        name="case",
        settings=CaseSettings(model="demo", batch_size=batch_size),
        prompts=DEMO.prompts[:batch_size],
    )


def generate(pipeline: Any, prompt: Any) -> Any:
    return pipeline(prompt)


def float8_arm(case: Case) -> ArmSpec:
    return ArmSpec(number_format=FORMATS["float8"], emulated=False, execution=case.settings.execution)


def images(arms: ArmStore, name: str | None, *, emulated: bool = False, how: How | None = None) -> torch.Tensor:
    arm = arms.arm(SOURCE, FORMATS[name] if name else None, emulated=emulated, how=how or How())
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in range(2)]
    with torch.no_grad():
        images = arm.pipe(list(DEMO.prompts[:2]), **ONE_STEP.call, generator=generators, output_type="pt").images
    assert isinstance(images, torch.Tensor)
    return images.float().cpu()


def test_native_float8_generates_nearly_what_bf16_generates_and_not_the_same(backend: TorchBackend) -> None:
    bf16, float8 = images(backend.arms, None), images(backend.arms, "float8")
    assert not torch.equal(bf16, float8)
    assert (bf16 - float8).abs().mean() < 0.01


@pytest.mark.parametrize("name", ["mxfp8", "nvfp4", "mxfp4"])
def test_an_emulated_format_generates_on_a_gpu_what_it_generates_on_a_cpu(backend: TorchBackend, name: str) -> None:
    """Up to what BF16 itself differs by: the emulation adds nothing to it."""
    cpu = ArmStore("cpu")
    moved = (images(backend.arms, None) - images(cpu, None)).abs().mean()
    change = (images(backend.arms, name, emulated=True) - images(cpu, name, emulated=True)).abs().mean()
    damage = (images(cpu, name, emulated=True) - images(cpu, None)).abs().mean()
    assert change < max(4 * moved, 0.5 * damage)
    assert change < 0.02


def test_cuda_graphs_change_no_bit_of_the_images(backend: TorchBackend) -> None:
    with compiling_fast():
        default = images(backend.arms, "float8", how=How(compiled=CompileMode.DEFAULT, for_time=True))
        graphs = How(compiled=CompileMode.REDUCE_OVERHEAD, for_time=True)
        for _ in range(3):  # warm, recorded, replayed
            replayed = images(backend.arms, "float8", how=graphs)
    assert torch.equal(default, replayed)


def test_the_peak_of_a_known_allocation() -> None:
    device = torch.device("cuda")

    def run() -> None:
        torch.empty(2**28, dtype=torch.uint8, device=device)

    peak = measure_peak(run, device)
    assert peak.allocated_gib - peak.resident_gib == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("batch_size", [1, 4], ids=["graphs", "no-graphs"])
def test_the_peak_is_the_one_of_the_arm_alone_on_the_device(backend: TorchBackend, batch_size: int) -> None:
    benchmark = TorchBenchmark(backend, find_device(), None)
    told, _ = benchmark.measure_memory(case(batch_size), generate, FORMATS["float8"])
    arm = benchmark._arm(case(batch_size), FORMATS["float8"])
    with benchmark._watching():
        warm = benchmark._warm(case(batch_size), generate, FORMATS["float8"])
        used = {p.data_ptr() for p in arm.pipe.transformer.parameters() if type(p) is torch.nn.Parameter}
        idle = [p for p in backend.arms.base(SOURCE).pipe.transformer.parameters() if p.data_ptr() not in used]
        moved = sum(p.nbytes for p in idle) / 2**30
        for parameter in idle:
            parameter.data = parameter.data.cpu()
        alone = measure_peak(warm.run, torch.device("cuda"))
    assert moved > 0.003  # there was something to move
    assert told.allocated_gib == pytest.approx(alone.allocated_gib, abs=0.0005)
    assert told.reserved_gib == pytest.approx(alone.reserved_gib, abs=0.05)


@pytest.mark.parametrize("execution", Execution)
def test_what_multiplies_natively_in_float8_is_told_as_native(backend: TorchBackend, execution: Execution) -> None:
    arm = replace(float8_arm(case()), execution=execution)
    evidence = backend.generate(case(), generate, arm, label="float8").evidence
    assert evidence is not None
    assert evidence.run is not None
    share = evidence.run.arithmetic_share
    assert share == pytest.approx(0.989, abs=0.001)
    assert evidence.run == RunEvidence(
        ran=evidence.chosen, denoiser_calls=1, arithmetic_share=share, multiplied="native"
    )


def test_float8_weights_that_are_dequantized_before_the_product_are_told_so(backend: TorchBackend) -> None:
    arm = backend._arm(case(), float8_arm(case()))
    for module in arm.pipe.transformer.modules():
        if isinstance(module, torch.nn.Linear) and isinstance(module.weight, TorchAOBaseTensor):
            setattr(module, "forward", partial(multiply_dequantized, module))  # noqa: B010 - mypy: no method is assigned
    evidence = backend.generate(case(), generate, float8_arm(case()), label="float8").evidence
    assert evidence is not None
    assert evidence.run is not None
    assert evidence.run.multiplied == "dequantized"


def multiply_dequantized(module: torch.nn.Linear, values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(values, module.weight.dequantize(), module.bias)


def test_speed_and_memory_of_the_demo_are_measured_to_the_end(backend: TorchBackend) -> None:
    benchmark = TorchBenchmark(backend, find_device(), None)
    timed = benchmark.time_bf16(case(), generate)
    assert len(timed.seconds) >= 8
    assert timed.conditions.execution == "compiled blocks, reduce-overhead"
    assert timed.peak_gib is not None
    assert timed.peak_gib > 0


def test_text_encoders_leave_the_gpu_for_images_and_come_back_for_speed(backend: TorchBackend) -> None:
    several = case(2)
    plain = images(backend.arms, None, how=ENCODERS_ON_THE_GPU)
    outputs = backend.generate(several, generate, ArmSpec.bf16(several), label="bf16")
    backend.evidence(several, float8_arm(several))
    encoder = backend.arms.base(several.source).pipe.text_encoder
    assert next(encoder.parameters()).device.type == "cpu"
    assert torch.equal(outputs.images, to_uint8(plain))
    quantized = backend.generate(several, generate, float8_arm(several), label="float8")
    assert not torch.equal(quantized.images, outputs.images)
    assert next(encoder.parameters()).device.type == "cpu"
    TorchBenchmark(backend, find_device(), None).time_bf16(several, generate)
    assert next(encoder.parameters()).device.type == "cuda"


def test_on_a_full_gpu_the_idle_arm_is_freed_for_the_encoders(
    backend: TorchBackend, leave_free: Callable[[int], None]
) -> None:
    several = case(2)
    plain = images(backend.arms, None, how=ENCODERS_ON_THE_GPU)  # and its kernels are loaded
    backend.evidence(several, float8_arm(several))
    encoder = backend.arms.base(several.source).pipe.text_encoder  # on the CPU by now
    encoder.register_buffer("ballast", ballast(1, "cpu"))
    backend.arms._arms["float8"][1].pipe.transformer.register_buffer("ballast", ballast(2, "cuda"))
    leave_free(GIB // 2)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        ballast(1, "cuda")
    outputs = backend.generate(several, generate, ArmSpec.bf16(several), label="bf16")
    assert "float8" not in backend.arms._arms
    assert torch.equal(outputs.images, to_uint8(plain))
    assert encoder.ballast.device.type == next(encoder.parameters()).device.type == "cpu"
    backend.evidence(several, float8_arm(several))
    assert backend.arms.builds["demo", "float8"] == 2


def kernels(x: torch.Tensor, number_format: NumberFormat, dtype: torch.dtype = BF16) -> Operand:
    path = path_of(number_format, x.device)
    assert path.text == "Triton kernels"
    return path.numerics.quantize_activation(x, dtype)


@MX
def test_mx_kernels_give_torchaos_bits_for_every_pattern(number_format: NumberFormat) -> None:
    for on_cpu in (block_maxima(32), *(awkward(10.0**power) for power in range(-30, 31, 5))):
        x = on_cpu.cuda()
        native = MXTensor.to_mx(x, MX_ELEMENTS[number_format], 32, scaling_mode=ScaleCalculationMode.RCEIL)
        assert same_bits(kernels(x, number_format).values, native.dequantize(BF16), zeros=True)


@pytest.mark.parametrize("group", range(1, 16))
def test_the_nvfp4_kernel_gives_torchaos_bits_for_every_pattern(group: int) -> None:
    """Each tensor has the patterns of 16 exponents, whose largest scales it."""
    x = block_maxima(16)
    x = x[((x[:, 0].view(torch.int16) >> 11 & 15) == group) & x.isfinite().all(1)].cuda()
    assert len(x) == (4096 if group < 15 else 3840)  # the last exponent is that of NaN and Inf
    values, scale = torchao_nvfp4(x)
    mine = kernels(x, NumberFormat.NVFP4)
    assert mine.scale is not None
    assert same_bits(mine.scale, scale)
    assert same_bits(mine.values.float(), values, zeros=True)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_the_nvfp4_kernel_is_not_finite_where_torchao_is_not(broken: float) -> None:
    x = awkward(1.0).cuda()
    x[10, 20] = broken
    values, scale = torchao_nvfp4(x)
    mine = kernels(x, NumberFormat.NVFP4)
    assert mine.scale is not None
    assert same_bits(mine.scale, scale)
    assert same_bits(mine.values.float(), values)


@pytest.mark.parametrize("columns", [16, 96, 4096, 15360])
def test_the_float8_kernel_gives_torchaos_bits_for_every_pattern(columns: int) -> None:
    patterns = block_maxima(96).repeat(1, columns // 96) if columns > 4096 else block_maxima(columns)
    for on_cpu in (patterns, awkward(1e-3), awkward(1e30)):
        x = on_cpu.cuda()
        native = Float8Tensor.from_hp(x, torch.float8_e4m3fn, PerRow())
        mine = kernels(x, NumberFormat.FLOAT8, FP32)
        assert mine.scale is not None
        assert same_bits(mine.scale, native.scale)
        assert same_bits(mine.values, native.qdata.float(), zeros=True)


@ALL
def test_kernels_and_plain_operations_multiply_alike(number_format: NumberFormat) -> None:
    """What follows the GEMM too; activations that are not contiguous, and those of no numbers."""
    layer = emulated(linear(), number_format).cuda()
    assert weight_of(layer).computed_by == "Triton kernels"
    weight, plain = Operand(weight_of(layer).values, weight_of(layer).scale), NUMERICS[number_format]
    x = normal(6, 192, 5, magnitude=3.0).cuda()
    for view in (x.transpose(1, 2), x.transpose(1, 2)[::2], x[:, :, 0], x[:, :, :0].transpose(1, 2)):
        operand = plain.quantize_activation(view.contiguous(), weight.values.dtype)
        assert same_bits(layer(view), plain.linear(operand, weight, layer.bias))


@ALL
def test_kernels_reach_beyond_2_31_elements(number_format: NumberFormat) -> None:
    if torch.cuda.mem_get_info()[0] < 24 * GIB:
        pytest.skip("needs 24 GiB of free GPU memory")
    tail = normal(64, 4096, magnitude=3.0).cuda()
    x = normal(1, 4096).cuda().repeat(2**31 // 4096 + 64, 1)
    x[-64:] = tail
    mine, alone = kernels(x, number_format), kernels(tail, number_format)
    assert same_bits(mine.values[-64:], alone.values)  # the largest of all is the tail's
    head = kernels(torch.cat([x[:64], tail]), number_format)
    assert same_bits(mine.values[:64], head.values[:64])
    if mine.scale is not None and mine.scale.dim():
        assert alone.scale is not None
        assert same_bits(mine.scale[-64:], alone.scale)


def test_the_record_says_which_code_emulates(backend: TorchBackend) -> None:
    arm = ArmSpec(number_format=FORMATS["nvfp4"], emulated=True, execution=case().settings.execution)
    assert backend.evidence(case(), arm).emulated_by == "Triton kernels"
