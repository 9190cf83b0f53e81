"""Devices to pretend."""

from __future__ import annotations

from pytest_mxq.environment.device import Device


def _gpu(name: str, capability: tuple[int, int], total_memory_gib: float) -> Device:
    slug = f"{name.lower().replace(' ', '-')}-sm{capability[0]}{capability[1]}"
    return Device(kind="cuda", name=name, capability=capability, slug=slug, total_memory_gib=total_memory_gib, facts={})


CPU = Device(kind="cpu", name="a CPU", capability=None, slug="cpu-x86-64", total_memory_gib=None, facts={})
"""A machine without a GPU: every built-in format is emulated."""

H100 = _gpu("NVIDIA H100 80GB HBM3", (9, 0), 79.6)
"""Compute capability 9.0: float8 is native."""

B200 = _gpu("NVIDIA B200", (10, 0), 180.0)
"""Compute capability 10.0: every built-in format is native."""

RTX_PRO_6000 = _gpu("NVIDIA RTX PRO 6000 Blackwell", (12, 0), 95.0)
"""Compute capability 12.0: native, with other kernels than 10.0."""
