"""The peak of one call, on a fake account, and weights measured by what they are made of."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
from torchao.quantization import quantize_
from torchao.quantization.quantize_.common import KernelPreference

from pytest_mxq.profiling.memory import NoPeakError, measure_peak, weight_bytes

GIB = 2**30


class Net(nn.Module):
    """Two Linears without bias, multiples of 128, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(256, 512, bias=False)
        self.second = nn.Linear(512, 128, bias=False)
        self.norm = nn.LayerNorm(128)
        self.to(torch.bfloat16)
        self.requires_grad_(requires_grad=False)


WEIGHTS = 256 * 512 + 512 * 128
NORM_BYTES = 2 * 2 * 128


def mxfp8(net: nn.Module) -> None:
    quantize_(net, MXDynamicActivationMXWeightConfig(kernel_preference=KernelPreference.EMULATED))


def nvfp4(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.weight = nn.Parameter(NVFP4Tensor.to_nvfp4(layer.weight.data), requires_grad=False)


def test_a_module_in_bf16_takes_two_bytes_a_weight() -> None:
    weight = weight_bytes(Net())
    assert (weight.total, weight.quantized, weight.bf16_equivalent) == (2 * WEIGHTS + NORM_BYTES, 0, 0)


@pytest.mark.parametrize(("quantize", "ratio"), [(mxfp8, 0.515625), (nvfp4, 0.28125)])
def test_a_quantized_weight_is_measured_by_its_inner_tensors(
    quantize: Callable[[nn.Module], None], ratio: float
) -> None:
    net = Net()
    quantize(net)
    assert (net.first.weight.dtype, net.first.weight.nbytes) == (torch.bfloat16, 2 * 256 * 512)
    weight = weight_bytes(net)
    assert (weight.quantized, weight.bf16_equivalent) == (ratio * 2 * WEIGHTS, 2 * WEIGHTS)
    assert weight.total == weight.quantized + NORM_BYTES


def test_a_scale_of_the_whole_tensor_counts_too() -> None:
    layer = nn.Linear(128, 128, bias=False, dtype=torch.bfloat16)
    scaled = NVFP4Tensor.to_nvfp4(layer.weight.data, per_tensor_scale=torch.tensor(1.0))
    layer.weight = nn.Parameter(scaled, requires_grad=False)
    assert weight_bytes(layer).quantized == 128 * 128 // 2 + 128 * 128 // 16 + 4


def test_what_is_shared_counts_once() -> None:
    net = Net()
    twin = nn.Linear(256, 512, bias=False, dtype=torch.bfloat16)
    twin.weight = nn.Parameter(net.first.weight.data)  # another parameter over the same storage
    both = nn.ModuleList([net, net.first, twin])
    both.register_buffer("view", net.second.weight.data[:4])
    assert weight_bytes(both).total == weight_bytes(net).total


def test_weights_on_the_meta_device_are_measured_one_by_one() -> None:
    with torch.device("meta"):
        net = Net()
    assert weight_bytes(net).total == 2 * WEIGHTS + NORM_BYTES


def test_there_is_no_peak_on_a_cpu_and_nothing_runs() -> None:
    with pytest.raises(NoPeakError, match="no peak memory on device cpu; the memory gate needs a CUDA device"):
        measure_peak(lambda: pytest.fail("ran"), torch.device("cpu"))


class FakeAccount:
    """torch.cuda's account of allocated memory, in GiB."""

    def __init__(self) -> None:
        self.now, self.peak, self.cached = 3, 40, 2
        self.pending = 0

    def run(self) -> None:
        """Allocate 4 GiB for a while and keep 1; the device gets to it later."""
        self.pending = 4

    def synchronize(self, _: torch.device) -> None:
        self.peak = max(self.peak, self.now + self.pending)
        self.now += self.pending > 0
        self.pending = 0

    def empty_cache(self) -> None:
        self.cached = 0

    def reset_peak_memory_stats(self, _: torch.device) -> None:
        self.peak = self.now

    def memory_allocated(self, _: torch.device) -> int:
        return self.now * GIB

    def max_memory_allocated(self, _: torch.device) -> int:
        return self.peak * GIB

    def max_memory_reserved(self, _: torch.device) -> int:
        return (self.peak + self.cached + 1) * GIB


def test_the_peak_is_that_of_one_finished_call(monkeypatch: pytest.MonkeyPatch) -> None:
    account = FakeAccount()
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, getattr(account, name))
    for name in ("max_memory_allocated", "max_memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, getattr(account, name))
    peak = measure_peak(account.run, torch.device("cuda"))
    assert (peak.allocated_gib, peak.reserved_gib, peak.resident_gib, peak.kept_gib) == (7.0, 8.0, 3.0, 1.0)
