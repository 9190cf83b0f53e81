"""The facts that must be equal for numbers to be comparable, and those that are only recorded."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import msgspec

PACKAGES = ("torch", "torchao", "diffusers", "transformers", "triton")

# Facts of a device that change images or times; every other fact is recorded only.
HARD_FACTS = ("mig", "ecc", "isa", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of a machine when something was measured on it.

    Attributes:
        hard: Facts that must be equal for numbers to be comparable.
        recorded: Facts kept for a reader who looks for a reason.
    """

    hard: dict[str, str]
    recorded: dict[str, str]


class DeviceFacts(Protocol):
    """The facts that a fingerprint takes from a `pytest_mxq.environment.device.Device`."""

    @property
    def name(self) -> str:
        """The maker's name."""

    @property
    def slug(self) -> str:
        """The folder name of this kind of device."""

    @property
    def capability(self) -> tuple[int, int] | None:
        """CUDA compute capability; None on a CPU."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Raw facts; `HARD_FACTS` are hard, the others recorded."""


def take_fingerprint(device: DeviceFacts) -> Fingerprint:
    """Return the fingerprint of this process on `device`; package versions are read from metadata, without an import.

    A CPU's name is recorded only: clouds rename the same processor, and its instruction set decides.
    """
    hard = {"device": device.slug} | dict(_versions())
    recorded = {"host": platform.node(), "python": platform.python_version(), "platform": platform.platform()}
    if device.capability is None:
        recorded["cpu"] = device.name
    else:
        hard |= {"gpu": device.name, "capability": "{}.{}".format(*device.capability)}
    if "driver" in device.facts:
        hard["driver_major"] = device.facts["driver"].partition(".")[0]
    for fact, value in device.facts.items():
        (hard if fact in HARD_FACTS else recorded)[fact] = value
    return Fingerprint(hard=hard, recorded=recorded)


def hard_differences(stored: Fingerprint, current: Fingerprint) -> tuple[str, ...]:
    """List every hard fact in which two fingerprints differ, such as `torch 2.15.0 -> 2.16.0`, sorted by name.

    A fact that one side lacks is a difference: `triton 3.9.0 -> (absent)`.
    """
    keys = sorted(stored.hard.keys() | current.hard.keys())
    pairs = ((key, stored.hard.get(key, "(absent)"), current.hard.get(key, "(absent)")) for key in keys)
    return tuple(f"{key} {old} -> {new}" for key, old, new in pairs if old != new)


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue
