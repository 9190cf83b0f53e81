import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never

import pytest

from pytest_mxq.environment import device
from pytest_mxq.environment.device import cpu_isa, find_device


class NvmlError(Exception):
    pass


@dataclass
class FakeGpu:
    uuid: str
    bus: str = "00000000:01:00.0"
    name: str = "NVIDIA B200"
    capability: tuple[int, int] = (10, 0)
    ecc: int | None = 1
    mig: int | None = 0
    memory_gib: int = 180
    slices: list["FakeGpu"] = field(default_factory=list)


class FakeNvml:
    """A table of GPUs behind NVML's function names; what it does not hold is NotSupported, as on real drivers."""

    NVMLError: type[Exception] = NvmlError

    def __init__(self, *gpus: FakeGpu, init_error: str = "", unanswered: Sequence[str] = ()) -> None:
        self.shutdowns: list[str] = []
        self.answers: dict[str, Callable[..., Any]] = {
            "Init": lambda: self.fail(init_error) if init_error else None,
            "Shutdown": lambda: self.shutdowns.append("done"),
            "SystemGetDriverVersion": lambda: "580.65.06",
            "DeviceGetCount": lambda: len(gpus),
            "DeviceGetHandleByIndex": lambda index: gpus[index],
            "DeviceGetUUID": lambda gpu: gpu.uuid,
            "DeviceGetName": lambda gpu: gpu.name,
            "DeviceGetPciInfo": lambda gpu: SimpleNamespace(busId=gpu.bus),
            "DeviceGetCudaComputeCapability": lambda gpu: gpu.capability,
            "DeviceGetMemoryInfo": lambda gpu: SimpleNamespace(total=gpu.memory_gib * 2**30),
            "DeviceGetPowerManagementLimit": lambda _: 1_000_000,
            "DeviceGetEccMode": lambda gpu: self.mode(gpu.ecc),
            "DeviceGetMigMode": lambda gpu: self.mode(gpu.mig),
            "DeviceGetMaxMigDeviceCount": lambda _: 7,
            "DeviceGetMigDeviceHandleByIndex": lambda gpu, index: (
                gpu.slices[index] if index < len(gpu.slices) else self.fail("Not Found")
            ),
        }
        for function in unanswered:
            del self.answers[function]

    def __getattr__(self, function: str) -> Callable[..., Any]:
        return self.answers.get(function.removeprefix("nvml"), lambda *_: self.fail("Not Supported"))

    def fail(self, why: str) -> Never:
        raise NvmlError(why)

    def mode(self, current: int | None) -> list[int]:
        return self.fail("Not Supported") if current is None else [current, 1 - current]


A = FakeGpu("GPU-aaaa1111-0000", bus="00000000:01:00.0")
B = FakeGpu("GPU-aabb2222-0000", bus="00000000:02:00.0")
C = FakeGpu("GPU-cccc3333-0000", bus="00000000:81:00.0")
SLICE_1 = FakeGpu("MIG-1111-aaaa", name="NVIDIA B200 MIG 1g.23gb", memory_gib=20)
SLICE_2 = FakeGpu("MIG-2222-bbbb", name="NVIDIA B200 MIG 2g.45gb", memory_gib=20)


def sliced(*slices: FakeGpu) -> FakeGpu:
    return FakeGpu("GPU-dddd4444-0000", bus="00000000:03:00.0", mig=1, slices=list(slices))


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", *device.CPU_NUMERICS_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def test_gpu_is_described_by_name_capability_memory_and_modes() -> None:
    nvml = FakeNvml(A)
    found = find_device(nvml)
    assert (found.kind, found.name, found.capability) == ("cuda", "NVIDIA B200", (10, 0))
    assert (found.slug, found.total_memory_gib) == ("nvidia-b200-sm100", 180.0)
    assert found.facts == {
        "driver": "580.65.06",
        "uuid": A.uuid,
        "pci": A.bus,
        "mig": "off",
        "ecc": "on",
        "power_limit_w": "1000",
        "order": "pci",
    }
    assert nvml.shutdowns == ["done"]


def test_slug_of_a_long_name() -> None:
    gpu = FakeGpu("GPU-1", name="NVIDIA H100 80GB HBM3", capability=(9, 0))
    assert find_device(FakeNvml(gpu)).slug == "nvidia-h100-80gb-hbm3-sm90"


def test_what_a_driver_does_not_support_is_said_not_raised() -> None:
    facts = find_device(FakeNvml(FakeGpu("GPU-1", ecc=None, mig=None))).facts
    assert (facts["ecc"], facts["mig"]) == ("unsupported", "unsupported")


def test_a_gpu_that_answers_nothing_is_still_found() -> None:
    unanswered = ["DeviceGetName", "DeviceGetMemoryInfo", "DeviceGetCudaComputeCapability", "DeviceGetPciInfo"]
    found = find_device(FakeNvml(A, unanswered=unanswered))
    assert (found.kind, found.capability, found.total_memory_gib, found.slug) == ("cuda", None, None, "unknown-gpu")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, A),
        ("0", A),
        ("1", B),
        (" 2 , 0", C),
        ("1gpu", B),
        ("+1", B),
        ("1,9,0", B),
        ("9,0", None),
        ("-1", None),
        ("-1,0", None),
        ("", None),
        ("NoDevFiles", None),
        ("1,-1,0", B),
        ("1,1", None),
        ("0,1,0", None),
        ("1,9,1", B),
        ("GPU-aabb2222-0000", B),
        ("GPU-aab", B),
        ("GPU-aa", None),
        ("GPU-ffff", None),
        ("GPU-cccc,GPU-ffff,GPU-aabb", C),
        ("GPU-aabb,GPU-aabb2222", None),
        ("MIG-1111", None),
    ],
)
def test_visible_devices_is_read_as_cuda_reads_it(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: FakeGpu | None
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_device(FakeNvml(A, B, C))
    assert found.facts.get("uuid") == (expected.uuid if expected else None)
    assert found.kind == ("cuda" if expected else "cpu")


def test_indices_count_in_pci_order_whatever_nvmls_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert find_device(FakeNvml(C, B, A)).facts["uuid"] == C.uuid


def test_unequal_gpus_in_cudas_default_order_are_reported_as_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    other = FakeGpu("GPU-eeee", bus="00000000:09:00.0", name="NVIDIA L4", capability=(8, 9))
    assert find_device(FakeNvml(A, other)).facts["order"].startswith("pci assumed")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert find_device(FakeNvml(A, other)).facts["order"] == "pci"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, SLICE_1), ("0", SLICE_1), ("MIG-2222-bbbb", SLICE_2), ("MIG-2222", SLICE_2), ("GPU-dddd", SLICE_1)],
)
def test_a_mig_slice_stands_for_its_board(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: FakeGpu
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_device(FakeNvml(sliced(SLICE_1, SLICE_2)))
    assert (found.facts["uuid"], found.facts["mig"], found.total_memory_gib) == (expected.uuid, "on", 20.0)
    assert found.slug == expected.name.lower().replace(" ", "-").replace(".", "-") + "-sm100"


def test_beside_a_mig_slice_cuda_enumerates_no_whole_gpu() -> None:
    assert find_device(FakeNvml(A, sliced(SLICE_1))).facts["uuid"] == SLICE_1.uuid


def test_a_board_in_mig_mode_without_slices_is_no_device() -> None:
    assert find_device(FakeNvml(sliced(), C)).facts["uuid"] == C.uuid
    assert find_device(FakeNvml(sliced())).kind == "cpu"


def test_without_a_driver_the_cpu_is_the_device_and_says_why() -> None:
    found = find_device(FakeNvml(init_error="Driver Not Loaded"))
    assert (found.kind, found.capability, found.total_memory_gib) == ("cpu", None, None)
    assert found.facts["no_gpu"] == "Driver Not Loaded"


def test_without_pynvml_the_cpu_is_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_device().facts["no_gpu"] == "nvidia-ml-py is not installed"


def test_hidden_gpus_are_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_device(FakeNvml(A)).facts["no_gpu"] == "none visible, CUDA_VISIBLE_DEVICES=''"


@pytest.mark.parametrize(
    ("machine", "slug"),
    [("x86_64", "cpu-x86-64"), ("AMD64", "cpu-x86-64"), ("aarch64", "cpu-aarch64"), ("arm64", "cpu-aarch64")],
)
def test_cpu_slug_is_the_normalised_machine(monkeypatch: pytest.MonkeyPatch, machine: str, slug: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert find_device(FakeNvml()).slug == slug


def test_cpu_name_and_instruction_set_come_from_cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Xeon 9\nflags\t\t: fma avx2\n\nprocessor: 1\nmodel name: Other\n")
    monkeypatch.setattr(device, "CPUINFO", cpuinfo)
    found = find_device(FakeNvml())
    assert (found.name, found.facts["isa"]) == ("Xeon 9", "avx2")
    monkeypatch.setattr(device, "CPUINFO", tmp_path / "absent")
    assert find_device(FakeNvml()).facts["isa"] == "unknown"


def test_variables_that_limit_the_instruction_set_are_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(device.CPU_NUMERICS_VARIABLES) & find_device(FakeNvml()).facts.keys()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    facts = find_device(FakeNvml()).facts
    assert (facts["ATEN_CPU_CAPABILITY"], facts["ONEDNN_MAX_CPU_ISA"]) == ("avx2", "AVX512_CORE")


@pytest.mark.parametrize(
    ("flags", "isa"),
    [
        ("fma avx2 avx512f avx512bw avx512dq avx512vl", "avx512"),
        ("fma avx2 avx512f", "avx2"),
        ("fma avx2 avx512f avx512bw avx512dq avx512vl avx512_bf16 amx_bf16 amx_tile", "avx512+bf16+amx"),
        ("sse2", "baseline"),
        ("fp asimd sve bf16", "sve+bf16"),
        ("fp asimd", "neon"),
        ("", "unknown"),
    ],
)
def test_instruction_sets(flags: str, isa: str) -> None:
    assert cpu_isa(flags) == isa


def test_finding_the_device_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from pytest_mxq.environment.device import find_device; find_device();"
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
