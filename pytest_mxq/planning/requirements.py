"""Whether a gate can run on a device: its format's capability, and memory, found out before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from math import ceil, floor
from typing import TYPE_CHECKING

from pytest_mxq.gates.base import MemoryUse

if TYPE_CHECKING:
    from pytest_mxq.environment.device import Device
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.base import Gate
    from pytest_mxq.models import MemoryNeed
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.settings import Settings

# GiB that the driver, a CUDA context and its kernels take of a device that nobody else uses; no need counts them.
_OVERHEAD = 1.5


class Use(Enum):
    """What memory is needed for; the value is what messages call it, of a model that generates images."""

    IMAGES = "the images"
    EMULATED_IMAGES = "the emulated images"  # whose weights take no less than BF16's
    BOTH_ARMS = "both arms"
    BF16 = "the BF16 calls"

    @classmethod
    def of(cls, gate: Gate, *, emulated: bool) -> Use:
        """Return what a gate needs memory for."""
        if gate.needs.memory is MemoryUse.BOTH_ARMS:
            return cls.BOTH_ARMS
        return cls.EMULATED_IMAGES if emulated else cls.IMAGES


def runs_natively(number_format: Format, device: Device) -> bool:
    """Tell whether this device has the format's instructions."""
    return device.capability is not None and device.capability >= number_format.capability


class Emulation(Enum):
    """Whether formats that the device lacks are emulated."""

    NO = "no"
    YES = "yes"
    REFUSED = "refused"  # asked for where it does not count

    @classmethod
    def of(cls, settings: Settings) -> Emulation:
        """Return what a run's options ask for."""
        if settings.emulation_refused:
            return cls.REFUSED
        return cls.YES if settings.emulate else cls.NO


def gate_refusal(case: Case, gate: Gate, number_format: Format, device: Device, *, emulation: Emulation) -> str | None:
    """Return why a gate does not run here, and what would help; None: it does."""
    if case.random_weights and case.recipe.random is None:
        return f"--mxq-weights=random: model {case.recipe.name!r} cannot be built with random weights"
    if case.random_weights and gate.needs.trained_weights:
        return "--mxq-weights=random: outputs of random weights mean nothing; speed and memory gates alone run"
    emulated = not runs_natively(number_format, device)
    if emulated:
        incapable = (
            native_refusal(number_format, device)
            if gate.needs.native
            else capability_refusal(number_format, device, emulation)
        )
        if incapable is not None:
            return incapable
    return memory_refusal(case, device, Use.of(gate, emulated=emulated))


def native_refusal(number_format: Format, device: Device) -> str:
    """Return why a gate that needs the native format does not run where it would be emulated."""
    return f"{_incapable(number_format, device)}; speed and memory are never emulated"


def capability_refusal(number_format: Format, device: Device, emulation: Emulation) -> str | None:
    """Return why a format that the device lacks does not run; None: it runs emulated."""
    if number_format.emulation is None:
        return f"{_incapable(number_format, device)}; it has no emulation"
    if emulation is Emulation.YES:
        return None
    way = "--mxq-emulate runs its accuracy gates with emulated numerics"
    if emulation is Emulation.REFUSED:
        way = (
            "--mxq-strict counts an emulated verdict only if --mxq-emulate stands on the command line itself, not in "
            "an ini file, addopts or PYTEST_ADDOPTS"
        )
    return f"{_incapable(number_format, device)}; {way}"


def _incapable(number_format: Format, device: Device) -> str:
    needed = ".".join(map(str, number_format.capability))
    found = (
        f"{device.name} with {'.'.join(map(str, device.capability))}" if device.capability else "no CUDA device (cpu)"
    )
    return f"{number_format.name} needs compute capability {needed}, found {found}"


def kernel_caution(formats: Iterable[Format], device: Device) -> str | None:
    """Return that some formats run natively with other kernels than those of the capability they ask for; or None.

    The instructions of the tensor cores are each generation's own since 9.0 (PTX ISA: sm_90a, sm_100a, sm_120a), but
    torchao, as `runs_natively`, asks for a capability at or above the format's.
    """
    found = device.capability
    others = [
        number_format
        for number_format in formats
        if found and runs_natively(number_format, device) and found[0] > number_format.capability[0] >= 9
    ]
    if not found or not others:
        return None
    names = ", ".join(number_format.name for number_format in others)
    asked = ", ".join(sorted({f"{number_format.capability[0]}.x" for number_format in others}))
    return (
        f"{names} on compute capability {found[0]}.{found[1]} ({device.name}): native, but with other kernels than "
        f"{asked}, which the published numbers are of; they differ between releases of torch and torchao, and bounds "
        f"from {asked} may not hold"
    )


def memory_refusal(case: Case, device: Device, use: Use) -> str | None:
    """Return why a case does not fit on a device, with the numbers and with what would fit; None: it fits.

    A test may generate several images of a prompt; that is known only once it calls, so one is counted. A model that
    says nothing of its memory is not checked, and neither is a CUDA device that does not tell its own.

    Args:
        case: the case.
        device: what it would run on; a model that states its need is not for a CPU.
        use: what for.
    """
    memory, batch_size = case.recipe.memory, case.settings.batch_size
    if memory is None:
        return None
    need = _need(memory, use, batch_size, random=case.random_weights)
    what = _what(case, use, need)
    if device.kind != "cuda":
        return f"{what} on a CUDA device, found none (cpu)"
    found = device.total_memory_gib
    if found is None or need <= found:
        return None
    fitting = [size for size in range(1, batch_size) if _need(memory, use, size, random=case.random_weights) <= found]
    least = ceil(_need(memory, use, 1, random=case.random_weights))
    fits = f"batch size {fitting[-1]} fits" if fitting else f"no batch size fits on less than {least} GiB"
    return f"{what}, found {found:.0f} on {device.name}; {fits}"


def memory_need(case: Case, use: Use, *, formats: int = 1) -> float | None:
    """Return what a case needs of a device, GiB; None: its model does not say.

    Args:
        case: the case.
        use: what for.
        formats: of how many formats arms stand beside BF16, where it is for both arms.
    """
    memory, size = case.recipe.memory, case.settings.batch_size
    if memory is None:
        return None
    if use is Use.BOTH_ARMS:
        return memory.both_arms(size, random=case.random_weights, formats=formats)
    return _need(memory, use, size, random=case.random_weights)


def most_arms(case: Case, device: Device) -> int:
    """Return how many quantized arms fit beside BF16 while they are timed; 1 where model or device do not say."""
    memory, found = case.recipe.memory, device.total_memory_gib
    if memory is None or found is None:
        return 1
    none, one = (
        memory.both_arms(case.settings.batch_size, random=case.random_weights, formats=count) for count in (0, 1)
    )
    return max(1, floor((found - none) / (one - none)))


def memory_in_use(case: Case, device: Device, use: Use, *, free: float, others: Sequence[str]) -> str | None:
    """Return why a case that would fit on the device cannot be loaded now, with the numbers; None: it can.

    Args:
        case: the case, of a model that is not loaded yet.
        device: the CUDA device.
        use: what for.
        free: what this process could have of the device, what it holds included, GiB.
        others: the processes that the driver lists beside this one.
    """
    memory = case.recipe.memory
    if memory is None:
        return None
    need = _need(memory, use, case.settings.batch_size, random=case.random_weights)
    if need <= free + _OVERHEAD:
        return None
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
