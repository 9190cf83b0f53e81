import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from pytest_mxq.environment import fingerprint
from pytest_mxq.environment.device import Device
from pytest_mxq.environment.fingerprint import Fingerprint, hard_differences, take_fingerprint

GPU = Device(
    kind="cuda",
    name="NVIDIA B200",
    capability=(10, 0),
    slug="nvidia-b200-sm100",
    total_memory_gib=180.0,
    facts={"driver": "580.65.06", "uuid": "GPU-1", "mig": "off", "ecc": "on", "power_limit_w": "1000", "order": "pci"},
)
CPU = Device(
    kind="cpu",
    name="Xeon 9",
    capability=None,
    slug="cpu-x86-64",
    total_memory_gib=None,
    facts={"isa": "avx512+bf16", "ATEN_CPU_CAPABILITY": "avx2", "no_gpu": "no driver"},
)


@pytest.fixture(autouse=True)
def _versions(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"torch": "2.15.0", "torchao": "0.18.0", "diffusers": "0.42.1", "transformers": "5.23.0"}

    def version(package: str) -> str:
        if package not in installed:
            raise PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(fingerprint, "version", version)


SOFTWARE = {"torch": "2.15.0", "torchao": "0.18.0", "diffusers": "0.42.1", "transformers": "5.23.0"}


def test_gpu_modes_driver_major_and_software_are_hard() -> None:
    taken = take_fingerprint(GPU)
    assert taken.hard == SOFTWARE | {
        "device": "nvidia-b200-sm100",
        "gpu": "NVIDIA B200",
        "capability": "10.0",
        "driver_major": "580",
        "mig": "off",
        "ecc": "on",
    }


def test_host_uuid_clocks_and_full_driver_are_recorded_only() -> None:
    recorded = take_fingerprint(GPU).recorded
    assert recorded.keys() == {"host", "python", "platform", "driver", "uuid", "power_limit_w", "order"}
    assert recorded["driver"] == "580.65.06"
    assert recorded["python"].split(".")[0] == "3"


def test_a_cpus_instruction_set_is_hard_and_its_name_recorded() -> None:
    taken = take_fingerprint(CPU)
    expected = {"device": "cpu-x86-64", "isa": "avx512+bf16", "ATEN_CPU_CAPABILITY": "avx2"}
    assert taken.hard == SOFTWARE | expected
    assert (taken.recorded["cpu"], taken.recorded["no_gpu"]) == ("Xeon 9", "no driver")


def test_differences_are_readable_and_name_missing_facts_on_either_side() -> None:
    stored = Fingerprint(hard={"torch": "2.15.0", "triton": "3.9.0", "ecc": "on"}, recorded={"host": "a"})
    current = Fingerprint(hard={"torch": "2.16.0", "mig": "off", "ecc": "on"}, recorded={"host": "b"})
    assert hard_differences(stored, current) == (
        "mig (absent) -> off",
        "torch 2.15.0 -> 2.16.0",
        "triton 3.9.0 -> (absent)",
    )


def test_equal_hard_facts_differ_in_nothing() -> None:
    assert hard_differences(take_fingerprint(GPU), take_fingerprint(GPU)) == ()


def test_versions_come_from_metadata_and_import_nothing_heavy() -> None:
    code = (
        "import sys; from pytest_mxq.environment.device import find_device;"
        "from pytest_mxq.environment.fingerprint import take_fingerprint;"
        "taken = take_fingerprint(find_device()); assert taken.hard['torch'], taken;"
        "sys.exit(bool({'torch', 'torchao', 'diffusers', 'transformers', 'PIL', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
