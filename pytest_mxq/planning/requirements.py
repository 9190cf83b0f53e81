"""Whether a case fits on the device, found out before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mxq.environment.device import Device
    from pytest_mxq.gates.bounds import GateKind
    from pytest_mxq.models import MemoryNeed
    from pytest_mxq.planning.case import Case

# GiB that the driver, a CUDA context and its kernels take of a device that nobody else uses; no need counts them.
_OVERHEAD = 1.5


class Use(Enum):
    """What memory is needed for; the value is what messages call it, of a model that generates images."""

    IMAGES = "the images"
    EMULATED_IMAGES = "the emulated images"  # whose weights take no less than BF16's
    BOTH_ARMS = "both arms"
    BF16 = "the BF16 calls"

    @classmethod
    def of(cls, kind: GateKind | None, *, emulated: bool) -> Use:
        """What a gate needs memory for; None: a refresh."""
        if kind is None:
            return cls.BF16
        if kind.family != "images":
            return cls.BOTH_ARMS
        return cls.EMULATED_IMAGES if emulated else cls.IMAGES


def insufficient_memory(case: Case, device: Device, use: Use) -> str:
    """Why a case does not run for want of memory, with the numbers and with what would fit; empty: it fits.

    A test may generate several images of a prompt; that is known only once it calls, so one is counted. A model that
    says nothing of its memory is not checked, and neither is a CUDA device that does not tell its own.

    Args:
        case: the case.
        device: what it would run on; a model that states its need is not for a CPU.
        use: what for.
    """
    memory, batch_size = case.recipe.memory, case.settings.batch_size
    if memory is None:
        return ""
    need = _need(memory, use, batch_size, random=case.random_weights)
    what = _what(case, use, need)
    if device.kind != "cuda":
        return f"{what} on a CUDA device, found none (cpu)"
    found = device.total_memory_gib
    if found is None or need <= found:
        return ""
    fitting = [size for size in range(1, batch_size) if _need(memory, use, size, random=case.random_weights) <= found]
    least = ceil(_need(memory, use, 1, random=case.random_weights))
    fits = f"batch size {fitting[-1]} fits" if fitting else f"no batch size fits on less than {least} GiB"
    return f"{what}, found {found:.0f} on {device.name}; {fits}"


def memory_in_use(case: Case, device: Device, use: Use, *, free: float, others: Sequence[str]) -> str:
    """Why a case that would fit on the device cannot be loaded now, with the numbers; empty: it can.

    Args:
        case: the case, of a model that is not loaded yet.
        device: the CUDA device.
        use: what for.
        free: what this process could have of the device, what it holds included, GiB.
        others: the processes that the driver lists beside this one.
    """
    memory = case.recipe.memory
    if memory is None:
        return ""
    need = _need(memory, use, case.settings.batch_size, random=case.random_weights)
    if need <= free + _OVERHEAD:
        return ""
    total = "" if device.total_memory_gib is None else f" of {device.total_memory_gib:.0f}"
    held = f"the driver lists {', '.join(others)}" if others else "the driver lists no other process"
    return (
        f"{_what(case, use, need)}, {free:.1f}{total} GiB are free on {device.name}: {held}; end what holds it, or "
        "choose another GPU by CUDA_VISIBLE_DEVICES"
    )


def _what(case: Case, use: Use, need: float) -> str:
    generated = use.value.replace("images", "videos") if case.recipe.generates_video else use.value
    return f"{generated} of {case.recipe.name} at batch size {case.settings.batch_size} need about {ceil(need)} GiB"


def _need(memory: MemoryNeed, use: Use, batch_size: int, *, random: bool) -> float:
    if use is Use.BOTH_ARMS:
        return memory.both_arms(batch_size, random=random)
    if use is Use.BF16:
        return memory.one_arm(batch_size, random=random)
    return memory.images(batch_size, emulated=use is Use.EMULATED_IMAGES)
