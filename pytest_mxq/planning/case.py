"""What is planned: the case of a test, and the plan of one gate item."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_mxq.errors import CaseFaultError
from pytest_mxq.models import ModelSource
from pytest_mxq.planning.settings import PromptSet

if TYPE_CHECKING:
    from pytest_mxq.environment.device import Device
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.bounds import AnyBound, GateKind
    from pytest_mxq.gates.verdict import Cell
    from pytest_mxq.models import Recipe, SelectionRule
    from pytest_mxq.planning.settings import CaseSettings


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test's workload on one model with its settings.

    Attributes:
        prompts: the prompts in the order in which they are generated; empty until a named set has been fetched.
        random_weights: whether it runs on random weights (speed and memory alone).
        is_timed: whether the test has a gate of speed or memory.
    """

    recipe: Recipe
    name: str
    settings: CaseSettings
    prompts: tuple[str, ...]
    random_weights: bool = False
    is_timed: bool = False

    @property
    def source(self) -> ModelSource:
        """What its arms are built from."""
        return ModelSource(recipe=self.recipe, revision=self.settings.revision, random=self.random_weights)

    @property
    def rule(self) -> SelectionRule:
        """Which layers of its quantized arms are quantized."""
        return self.recipe.selection(self.settings.selection)

    @property
    def key(self) -> tuple[str, str]:
        """What no two tests of a session share: the model and the case's name."""
        return self.recipe.name, self.name

    @cached_property
    def drift_check_chunks(self) -> tuple[int, ...]:
        """Chunks that are regenerated in BF16 to see whether BF16 moved: two images where there are two."""
        last = (len(self.prompts) - 1) // self.settings.batch_size
        return (0,) if self.settings.batch_size > 1 or last == 0 else (0, last)

    @property
    def min_share(self) -> float:
        """Smallest share of the Linear weights that must be quantized."""
        return self.recipe.min_share if self.settings.min_share is None else self.settings.min_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One gate item, ready to run, to skip with a reason, or to fail with a fault.

    Attributes:
        kind, number_format, bound: None at refresh.
        drift_limit: how far BF16 may have moved: min(0.02, bound / 4) of the test's LPIPS bound.
        fault: what is wrong with the test; raised in its setup.
        skip: why it cannot run here.
    """

    cell: Cell
    case: Case | None = None
    kind: GateKind | None = None
    number_format: Format | None = None
    bound: AnyBound | None = None
    emulated: bool = False
    drift_limit: float = 0.02
    fault: str = ""
    skip: str = ""

    @property
    def batch_caution(self) -> str:
        """What is known to go wrong with this format at this batch size; empty: nothing, or it runs emulated."""
        caution = self.number_format.batch_caution if self.number_format else None
        if caution is None or self.case is None or self.case.settings.batch_size < caution.from_size:
            return ""
        if self.emulated and not self.skip:
            return ""
        said = caution.said_of(self.case.recipe.name)
        return f"{self.cell.format} at batch size {self.case.settings.batch_size}: {said}"

    @property
    def order(self) -> tuple[str, ...]:
        """Items in this order build every arm once: model, weights, format, images before speed, case, gate.

        An arm for images is another one than that for speed and memory, and their text encoders are elsewhere.
        """
        revision = (self.case.settings.revision or "") if self.case else ""
        family = "accuracy" if self.kind is None or self.kind.family == "images" else "performance"
        return self.cell.model, revision, self.cell.format, family, self.cell.case, self.cell.gate


def batch_cautions(plans: Iterable[Plan]) -> list[str]:
    """What is known to go wrong with some of the plans, once a caution, with the tests that it concerns."""
    tests: dict[str, list[str]] = {}
    for plan in plans:
        if plan.batch_caution and not plan.fault:
            tests.setdefault(plan.batch_caution, []).append(plan.cell.nodeid)
    return [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {caution}"
        for caution, names in tests.items()
    ]


def kernel_cautions(plans: Iterable[Plan], device: Device) -> list[str]:
    """The caution of `kernel_caution` for what is going to run natively, where there is one."""
    run = [plan for plan in plans if not plan.emulated and not plan.skip and not plan.fault]
    formats = {plan.number_format.name: plan.number_format for plan in run if plan.number_format is not None}
    caution = kernel_caution(formats.values(), device)
    return [caution] if caution else []


def stated_prompts(settings: CaseSettings, recipe: Recipe) -> tuple[str, ...]:
    """The prompts of a case as far as they are known at collection: none of a named set, which is fetched later.

    Raises:
        CaseFaultError: more prompts than the model has.
    """
    if isinstance(settings.prompts, PromptSet):
        return ()
    if isinstance(settings.prompts, tuple):
        return settings.prompts
    count = len(recipe.prompts) if settings.prompts is None else settings.prompts
    if count > len(recipe.prompts):
        raise CaseFaultError(
            f"mxq(prompts={count}): model {recipe.name!r} has {len(recipe.prompts)} prompts; "
            f"at most that many, or a list of your own"
        )
    return recipe.prompts[:count]


def runs_natively(number_format: Format, device: Device) -> bool:
    """Whether this device has the format's instructions."""
    return device.capability is not None and device.capability >= number_format.capability


def kernel_caution(formats: Iterable[Format], device: Device) -> str:
    """That some formats run natively with other kernels than those of the capability they ask for; empty: none does.

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
        return ""
    names = ", ".join(number_format.name for number_format in others)
    asked = ", ".join(sorted({f"{number_format.capability[0]}.x" for number_format in others}))
    return (
        f"{names} on compute capability {found[0]}.{found[1]} ({device.name}): native, but with other kernels than "
        f"{asked}, which the published numbers are of; they differ between releases of torch and torchao, and bounds "
        f"from {asked} may not hold"
    )


def refusal_of_emulation(number_format: Format, device: Device) -> str:
    """Why a gate of speed or memory does not run where the format would be emulated."""
    return f"{refusal(number_format, device, emulate=False).partition(';')[0]}; speed and memory are never emulated"


def refusal(number_format: Format, device: Device, *, emulate: bool) -> str:
    """Why a format that the device lacks does not run: empty if it runs emulated."""
    if emulate and number_format.emulation is not None:
        return ""
    needed = ".".join(map(str, number_format.capability))
    found = (
        f"{device.name} with {'.'.join(map(str, device.capability))}" if device.capability else "no CUDA device (cpu)"
    )
    way = (
        "--mxq-emulate runs its accuracy gates with emulated numerics"
        if number_format.emulation is not None
        else "it has no emulation"
    )
    return f"{number_format.name} needs compute capability {needed}, found {found}; {way}"
