"""The diagnosis of a machine: one screen, and whether every requested format can be gated natively."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pytest_mxq.baselines.strict_json import LIVE
from pytest_mxq.doctor.packages import (
    CudaFault,
    Lookup,
    Package,
    cuda_fault,
    examine_dependencies,
    examine_kernels,
    examine_video,
)
from pytest_mxq.doctor.screen import Finding, Mark, Section
from pytest_mxq.environment.device import Device
from pytest_mxq.formats import Format
from pytest_mxq.gates.base import Gate, MemoryUse
from pytest_mxq.models import Recipe
from pytest_mxq.planning.requirements import Use, kernel_caution, runs_natively
from pytest_mxq.planning.settings import Settings

BATCH_SIZES = (1, 4, 8)  # of the published results
_ALWAYS_SHOWN = ("torch", "torchvision", "torchao", "diffusers", "transformers")


class Ability(StrEnum):
    """The ways in which a format can be gated on a machine."""

    NATIVE = "native"
    EMULATED = "emulated only"
    NONE = "not at all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One format's answer: how it can be gated, and why.

    Attributes:
        is_whole: Whether every requested gate runs natively.
    """

    format: str
    ability: Ability
    reason: str
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine that the answers depend on.

    Attributes:
        device: The device under test.
        lookup: What finds installed packages.
        lpips_weights: The finding on the LPIPS weights.
        gates: The gates asked for.
    """

    device: Device
    lookup: Lookup
    lpips_weights: Finding
    gates: tuple[Gate, ...]

    def dependencies(self) -> tuple[Package, ...]:
        """Examine every declared dependency, and torchvision."""
        return tuple(examine_dependencies(self.lookup))

    def cuda(self) -> CudaFault | None:
        """Return why torch cannot use the GPU, and what to do; None where it can, and on a CPU."""
        if self.device.kind != "cuda":
            return None
        return cuda_fault(self.lookup, self.device.facts.get("driver", ""), self.device.capability)


def answer(number_format: Format, machine: Machine) -> Answer:
    """Return how a format can be gated here."""
    packages = machine.dependencies()
    broken = [package.fault for package in packages if package.fault and not package.is_for_images]
    cuda = machine.cuda()
    broken += [cuda.reason] if cuda else []
    blind = [package.fault for package in packages if package.fault and package.is_for_images]
    blind += [machine.lpips_weights.text] if machine.lpips_weights.mark is Mark.FAULT else []

    def said(ability: Ability, reason: str, *, is_whole: bool = False) -> Answer:
        return Answer(format=number_format.name, ability=ability, reason=reason, is_whole=is_whole)

    if broken:
        return said(Ability.NONE, broken[0])
    if not runs_natively(number_format, machine.device):
        return said(*_without_instructions(number_format, machine.device, blind))
    kernels = [package.fault for package in _kernels(number_format, machine) if package.fault]
    if kernels:  # no emulation: on a device that is able, a format runs natively or fails
        return said(Ability.NONE, kernels[0])
    if blind and any(gate.needs.trained_weights for gate in machine.gates):
        return said(Ability.NATIVE, f"speed and memory alone: {blind[0]}")
    others = "; its kernels differ" if kernel_caution([number_format], machine.device) else ""
    reason = f"compute capability {_dotted(number_format.capability)} or above is there{others}"
    return said(Ability.NATIVE, reason, is_whole=True)


def _without_instructions(number_format: Format, device: Device, blind: Sequence[str]) -> tuple[Ability, str]:
    """Return what is left of a format that the device cannot run: emulated images, where they can be measured."""
    found = f"this GPU has {_dotted(device.capability)}" if device.capability else "there is no GPU"
    reason = f"needs compute capability {_dotted(number_format.capability)}, {found}"
    if number_format.emulation is None:
        return Ability.NONE, f"{reason}, and it has no emulation"
    return (Ability.NONE, f"{reason}; emulated: {blind[0]}") if blind else (Ability.EMULATED, reason)


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _kernels(number_format: Format, machine: Machine) -> Iterator[Package]:
    return (examine_kernels(text, machine.lookup) for text in number_format.packages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The content of the screen.

    Attributes:
        sections: In the order in which they are shown.
        answers: One per format.
        too_large: Models whose gates do not fit at batch size 1.
        use: What memory is needed for.
        models_requested: Whether models were named, so that each of them must fit.
    """

    sections: tuple[Section, ...]
    answers: tuple[Answer, ...]
    too_large: tuple[str, ...] = ()
    use: Use = Use.BOTH_ARMS
    models_requested: bool = False

    @property
    def is_able(self) -> bool:
        """Return whether every requested format can be gated natively, on every model requested by name."""
        return all(found.is_whole for found in self.answers) and not (self.models_requested and self.too_large)

    @property
    def sentence(self) -> str:
        """The screen's last line."""
        unable = [found.format for found in self.answers if not found.is_whole]
        if unable:
            emulated = any(found.ability is Ability.EMULATED for found in self.answers)
            way = "; accuracy alone with --mxq-emulate" if emulated else ""
            return f"not natively gated on this machine: {', '.join(unable)}{way}"
        gates = "speed and memory" if self.use is Use.BOTH_ARMS else "image"
        too_large = f"; not enough memory for {gates} gates of {', '.join(self.too_large)}" if self.too_large else ""
        return f"natively gated on this machine: {', '.join(found.format for found in self.answers)}{too_large}"


def diagnose(
    machine: Machine,
    settings: Settings,
    formats: Sequence[Format],
    models: Sequence[Recipe],
    around: Sequence[Section],
) -> Diagnosis:
    """Return everything that is shown of a machine.

    Args:
        machine: What the answers depend on.
        settings: The run's settings.
        formats: The requested formats.
        models: The requested models.
        around: Further sections, shown before the answers.
    """
    answers = tuple(answer(number_format, machine) for number_format in formats)
    use = _use(machine, settings, answers)
    needs = {recipe.name: _needs(recipe, settings, use) for recipe in models}
    memory = tuple(_memory(name, need, machine.device) for name, need in needs.items())
    batches = ", ".join(map(str, BATCH_SIZES))
    sections = (
        Section(title="machine", findings=tuple(_machine(machine, formats))),
        Section(title="software", findings=(*_software(machine, formats), *_video(machine, models))),
        Section(title=f"memory of {use.value} at batch sizes {batches}", findings=memory),
        *around,
        Section(title="formats", findings=tuple(map(_as_finding, answers))),
    )
    total = machine.device.total_memory_gib
    return Diagnosis(
        sections=sections,
        answers=answers,
        too_large=tuple(name for name, need in needs.items() if need and total is not None and need[0] > total),
        use=use,
        models_requested=bool(settings.models),
    )


def _use(machine: Machine, settings: Settings, answers: Sequence[Answer]) -> Use:
    """Return what the requested gates need the most memory for."""
    if any(gate.needs.memory is MemoryUse.BOTH_ARMS for gate in machine.gates):
        return Use.BOTH_ARMS
    emulated = settings.emulate and any(found.ability is Ability.EMULATED for found in answers)
    return Use.EMULATED_IMAGES if emulated else Use.IMAGES


def _needs(recipe: Recipe, settings: Settings, use: Use) -> tuple[float, ...]:
    """Return the memory that a model's gates need at the batch sizes shown, GiB; empty where the model states none."""
    memory = recipe.memory
    if memory is None:
        return ()
    if use is Use.BOTH_ARMS:
        return tuple(memory.both_arms(size, random=settings.random_weights) for size in BATCH_SIZES)
    return tuple(memory.images(size, emulated=use is Use.EMULATED_IMAGES) for size in BATCH_SIZES)


def _machine(machine: Machine, formats: Sequence[Format]) -> Iterator[Finding]:
    device = machine.device
    if device.capability is None:
        reason = device.facts.get("no_gpu", "its compute capability is not known")
        yield Finding(
            mark=Mark.NOTE,
            subject="no GPU",
            text=reason,
            fix="compute capability 10.0 (B200) gates every format, 8.9 float8",
        )
        yield Finding(mark=Mark.FINE, subject="CPU", text=f"{device.name}, {device.facts.get('isa', 'unknown')}")
        return
    memory = "memory unknown" if device.total_memory_gib is None else f"{device.total_memory_gib:.0f} GiB"
    text = f"{device.name}, compute capability {_dotted(device.capability)}, {memory}"
    caution = kernel_caution(formats, device)
    yield Finding(mark=Mark.NOTE if caution else Mark.FINE, subject="GPU", text=text, fix=caution)
    fault = machine.cuda()
    if fault:
        yield Finding(mark=Mark.FAULT, subject="driver", text=fault.reason, fix=fault.fix)
    else:
        yield Finding(mark=Mark.FINE, subject="driver", text=device.facts.get("driver", "unknown"))


def _software(machine: Machine, formats: Sequence[Format]) -> Iterator[Finding]:
    """Report the main packages and any other that is broken; kernels are a fault only where a format can use them."""
    packages = {package.name: package for package in machine.dependencies()}
    for package in (packages[name] for name in dict.fromkeys([*_ALWAYS_SHOWN, *packages]) if name in packages):
        if package.fault or package.name in _ALWAYS_SHOWN:
            yield _of_package(package, Mark.FAULT if package.fault else Mark.FINE)
    kernels: dict[str, Finding] = {}
    for number_format in formats:
        could = runs_natively(number_format, machine.device)
        for package in _kernels(number_format, machine):
            mark = (Mark.FAULT if could else Mark.NOTE) if package.fault else Mark.FINE
            kernels.setdefault(package.name, _of_package(package, mark))
    yield from kernels.values()


def _video(machine: Machine, models: Sequence[Recipe]) -> Iterator[Finding]:
    """Report what stores videos, where a model generates them; gates against BF16 of the same run do without it."""
    names = ", ".join(recipe.name for recipe in models if recipe.generates_video)
    package = examine_video(machine.lookup)
    if names and package.fault:
        without = f"without it no --mxq-refresh and no stored baseline of {names}; {LIVE} needs none"
        yield Finding(mark=Mark.NOTE, subject=package.name, text=package.row, fix=f"{package.fix}; {without}")
    elif names:
        yield _of_package(package, Mark.FINE)


def _of_package(package: Package, mark: Mark) -> Finding:
    if mark is Mark.FINE and package.is_older_than_published:
        return Finding(
            mark=Mark.NOTE,
            subject=package.name,
            text=package.row,
            fix="older than what the published numbers were made with: expect others",
        )
    return Finding(mark=mark, subject=package.name, text=package.row, fix=package.fix)


def _memory(name: str, needs: Sequence[float], device: Device) -> Finding:
    if not needs:
        return Finding(mark=Mark.NOTE, subject=name, text="states no need: its memory is not checked")
    total = device.total_memory_gib
    if total is None:  # nothing was compared: no "ok"
        missing = "there is no GPU" if device.capability is None else "the driver does not tell the GPU's memory"
        sizes = "".join(f"{need:>4.0f} GiB      " for need in needs)
        return Finding(mark=Mark.NOTE, subject=name, text=f"{sizes}{missing}")
    cells = [f"{need:>4.0f} GiB {'fits' if need <= total else 'no  '} " for need in needs]
    fits = all(need <= total for need in needs)
    return Finding(
        mark=Mark.FINE if fits else Mark.NOTE,
        subject=name,
        text="".join(cells).rstrip(),
        fix=None
        if fits
        else f"of {total:.0f} GiB: a smaller batch, or a device of {max(needs):.0f} GiB for all of them",
    )


def _as_finding(found: Answer) -> Finding:
    mark = Mark.FINE if found.is_whole else Mark.NOTE if found.ability is Ability.EMULATED else Mark.FAULT
    return Finding(mark=mark, subject=found.format, text=f"{found.ability:<13}  {found.reason}")
