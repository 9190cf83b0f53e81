"""The device that torch would call `cuda:0`, or the CPU, found without importing torch."""

import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_mxq.environment.nvml import Nvml, NvmlSession, NvmlUnavailableError, as_number, as_text, open_nvml

__all__ = ["Device", "Nvml", "cpu_isa", "find_device"]

CPUINFO = Path("/proc/cpuinfo")

# More than any machine has: an answer beyond them is not a count.
_MOST_GPUS, _MOST_SLICES = 1024, 64

_STATES: Mapping[int | None, str] = {0: "off", 1: "on"}  # nvmlEnableState_t of nvml.h

# Each changes which kernels a CPU uses, and with them the last bits of an image.
CPU_NUMERICS_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The device under test, as the gates and baselines see it.

    Attributes:
        kind: `"cuda"` or `"cpu"`.
        name: The maker's name, such as `NVIDIA B200`.
        capability: CUDA compute capability (major, minor); None on a CPU.
        slug: Folder name of this kind of device, such as `nvidia-b200-sm100` or `cpu-x86-64`.
        total_memory_gib: Memory of the GPU or of its MIG slice in GiB; None on a CPU or if the driver does not tell.
        facts: Raw facts. GPU: driver, uuid, pci, mig, ecc, order, and whatever else the driver answered
            (power limits in W, clocks in MHz). CPU: isa, no_gpu (why no GPU is used), and the variables that
            limit the instruction set.
    """

    kind: str
    name: str
    capability: tuple[int, int] | None
    slug: str
    total_memory_gib: float | None
    facts: Mapping[str, str]


def find_device(nvml: Nvml | None = None) -> Device:
    """Return the device that torch would call `cuda:0` in this process, or the CPU where there is no GPU.

    `CUDA_VISIBLE_DEVICES` is read as CUDA reads it. Indices count in PCI order. CUDA itself counts so under
    `CUDA_DEVICE_ORDER=PCI_BUS_ID` or among equal GPUs; its default order (fastest first) is not documented, so for
    unequal GPUs without that variable the PCI order is assumed, and `facts["order"]` says so.

    Args:
        nvml: A stand-in for the module `pynvml`.
    """
    try:
        with open_nvml(nvml) as session:
            return _first_gpu(session) or _cpu(no_gpu=f"none visible, CUDA_VISIBLE_DEVICES={_visible()!r}")
    except NvmlUnavailableError as error:
        return _cpu(no_gpu=str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """A GPU or a MIG slice: what one entry of `CUDA_VISIBLE_DEVICES` can name; a slice knows its board."""

    handle: Any
    uuid: str
    board: "_Unit | None" = None
    mig: str = "unsupported"
    slices: "tuple[_Unit, ...]" = ()


def _first_gpu(ask: NvmlSession) -> Device | None:
    gpus = _list_gpus(ask)
    units = _enumerated(_select(_visible(), gpus))
    return _describe(ask, units[0], _order(ask, gpus)) if units else None


def _visible() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def _list_gpus(ask: NvmlSession) -> list[_Unit]:
    count = min(ask.number("DeviceGetCount") or 0, _MOST_GPUS)
    handles = (ask.ask("DeviceGetHandleByIndex", index) for index in range(count))
    gpus = [_gpu(ask, handle) for handle in handles if handle is not None]
    # NVML promises no order of its own; without PCI addresses (some virtual machines) the sort changes nothing.
    return sorted(gpus, key=lambda gpu: _pci(ask, gpu) or "")


def _gpu(ask: NvmlSession, handle: object) -> _Unit:
    mode = _switch(ask.pair("DeviceGetMigMode", handle))
    board = _Unit(handle=handle, uuid=ask.text("DeviceGetUUID", handle) or "unknown", mig=mode)
    slices = tuple(_slices(ask, board)) if mode == "on" else ()
    return _Unit(handle=handle, uuid=board.uuid, mig=mode, slices=slices)


def _slices(ask: NvmlSession, board: _Unit) -> Iterator[_Unit]:
    for index in range(min(ask.number("DeviceGetMaxMigDeviceCount", board.handle) or 0, _MOST_SLICES)):
        handle = ask.ask("DeviceGetMigDeviceHandleByIndex", board.handle, index)
        if handle is not None:
            yield _Unit(handle=handle, uuid=ask.text("DeviceGetUUID", handle) or "unknown", board=board, mig="on")


def _select(visible: str | None, gpus: Sequence[_Unit]) -> list[_Unit]:
    """Return the units that `CUDA_VISIBLE_DEVICES` leaves, by CUDA's rules.

    The first entry that names nothing (out of range, negative, unknown or ambiguous UUID) ends the list; an entry
    named twice empties it. Source: CUDA programming guide, and `torch.cuda._parse_visible_devices`.
    """
    if visible is None:
        return list(gpus)
    chosen: list[_Unit] = []
    for entry in visible.split(","):
        unit = _named(entry.strip(), gpus)
        if unit is None:
            break
        if unit in chosen:
            return []
        chosen.append(unit)
    return chosen


def _named(entry: str, gpus: Sequence[_Unit]) -> _Unit | None:
    if entry.startswith(("GPU-", "MIG-")):
        units = [*gpus, *(piece for gpu in gpus for piece in gpu.slices)]
        matches = [unit for unit in units if unit.uuid.startswith(entry)]
        return matches[0] if len(matches) == 1 else None
    # CUDA reads an index as C's strtoul does: "1gpu" is 1, "-1" is out of range.
    index = re.match(r"\+?(\d+)", entry)
    return gpus[int(index[1])] if index and int(index[1]) < len(gpus) else None


def _enumerated(units: Sequence[_Unit]) -> list[_Unit]:
    """Return what CUDA then enumerates: one MIG slice and nothing beside it, or whole GPUs.

    A board in MIG mode is no device of its own. Source: NVIDIA MIG user guide, "CUDA Device Enumeration".
    """
    pieces = [piece for unit in units for piece in ((unit,) if unit.board else unit.slices)]
    return pieces[:1] or [unit for unit in units if unit.mig != "on"]


def _describe(ask: NvmlSession, unit: _Unit, order: str) -> Device:
    board = unit.board or unit
    name = ask.text("DeviceGetName", unit.handle) or ask.text("DeviceGetName", board.handle) or "unknown GPU"
    capability = ask.pair("DeviceGetCudaComputeCapability", board.handle)
    memory = as_number(ask.field("total", "DeviceGetMemoryInfo", unit.handle))
    suffix = "-sm{}{}".format(*capability) if capability else ""
    return Device(
        kind="cuda",
        name=name,
        capability=capability,
        slug=(_slugify(name) or "unknown-gpu") + suffix,
        total_memory_gib=memory / 2**30 if memory else None,
        facts=dict(_facts(ask, unit, board)) | {"order": order},
    )


def _facts(ask: NvmlSession, unit: _Unit, board: _Unit) -> Iterator[tuple[str, str]]:
    yield "uuid", unit.uuid
    yield "mig", board.mig
    yield "ecc", _switch(ask.pair("DeviceGetEccMode", board.handle))
    answers = {
        "driver": ask.text("SystemGetDriverVersion"),
        "pci": _pci(ask, board),
        "persistence": _STATES.get(ask.number("DeviceGetPersistenceMode", board.handle)),
        "power_limit_w": _watts(ask.number("DeviceGetPowerManagementLimit", board.handle)),
        "power_limit_default_w": _watts(ask.number("DeviceGetPowerManagementDefaultLimit", board.handle)),
        "max_sm_clock_mhz": ask.number("DeviceGetMaxClockInfo", board.handle, 1),  # NVML_CLOCK_SM
        "max_memory_clock_mhz": ask.number("DeviceGetMaxClockInfo", board.handle, 2),  # NVML_CLOCK_MEM
    }
    yield from ((key, str(answer)) for key, answer in answers.items() if answer is not None)


def _order(ask: NvmlSession, gpus: Sequence[_Unit]) -> str:
    names = {ask.text("DeviceGetName", gpu.handle) for gpu in gpus}
    if len(names) == 1 or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return "pci"
    return "pci assumed: the GPUs differ and CUDA_DEVICE_ORDER is not PCI_BUS_ID"


def _pci(ask: NvmlSession, unit: _Unit) -> str | None:
    return as_text(ask.field("busId", "DeviceGetPciInfo", unit.handle))


def _switch(modes: tuple[int, int] | None) -> str:
    """Return `on`, `off` or `unsupported` from NVML's pair (current, pending)."""
    return "unsupported" if modes is None else _STATES.get(modes[0], "unsupported")


def _watts(milliwatts: int | None) -> str | None:
    return None if milliwatts is None else f"{milliwatts / 1000:g}"


def _slugify(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _cpu(*, no_gpu: str) -> Device:
    machine = platform.machine()
    info = _read_cpuinfo()
    limits = {name: os.environ[name] for name in CPU_NUMERICS_VARIABLES if name in os.environ}
    return Device(
        kind="cpu",
        name=info.get("model name") or platform.processor() or machine,
        capability=None,
        slug=f"cpu-{_slugify({'AMD64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine))}",
        total_memory_gib=None,
        facts={"isa": cpu_isa(info.get("flags") or info.get("Features") or ""), "no_gpu": no_gpu} | limits,
    )


def _read_cpuinfo() -> dict[str, str]:
    """Return the first processor's entries; empty on a system without the file."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_isa(flags: str) -> str:
    """Return the instruction set that decides a CPU's numerics in torch and oneDNN.

    Args:
        flags: Linux's list: `flags` on x86, `Features` on Arm.

    Returns:
        The vector level torch would choose, then matrix extras: `avx512+bf16+amx`, `avx2`, `sve+bf16`, `unknown`.

    >>> cpu_isa("fma avx2 avx512f avx512bw avx512dq avx512vl avx512_bf16 amx_bf16 amx_tile")
    'avx512+bf16+amx'
    """
    have = set(flags.split())
    levels = {
        # torch's AVX512 kernels ask for all of these (aten/src/ATen/native/DispatchStub.cpp, cpuinfo).
        "avx512": {"fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
        "avx2": {"fma", "avx2"},
        "sve": {"sve"},
        "neon": {"asimd"},
    }
    level = next((name for name, needed in levels.items() if needed <= have), "baseline" if have else "unknown")
    extras = {"bf16": {"avx512_bf16", "bf16"}, "amx": {"amx_bf16"}}
    return "+".join([level, *(name for name, any_of in extras.items() if any_of & have)])
