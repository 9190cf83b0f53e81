"""Whether a case fits on the device, found out before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

from pytest_mxq.gates.verdict import Outcome, Stop

if TYPE_CHECKING:
    from pytest_mxq.cases import Case


def check_room_for_pictures(case: Case, device_gib: float | None, *, emulated: bool) -> None:
    """Refuse a picture gate that does not fit.

    A test may draw several pictures of a prompt; that is known only once it calls, so one is counted.

    Args:
        case: the gate's case; one whose model says nothing of its memory is not checked.
        device_gib: memory of the device, GiB; None: not known, and not checked.
        emulated: whether the format is emulated: its weights then take no less than BF16's.

    Raises:
        Stop: it needs more than the device has; with the numbers, and with what would fit.
    """
    memory = case.recipe.memory
    if memory is not None:
        _check(case, "the pictures", partial(memory.pictures, emulated=emulated), device_gib)


def check_room_for_both_arms(case: Case, device_gib: float | None) -> None:
    """Refuse a gate of speed or memory that does not fit; arguments and error as for pictures."""
    memory = case.recipe.memory
    if memory is not None:
        _check(case, "both arms", partial(memory.both_arms, random=case.random_weights), device_gib)


def check_room_for_bf16(case: Case, device_gib: float | None) -> None:
    """Refuse a refresh that does not fit; arguments and error as for pictures."""
    memory = case.recipe.memory
    if memory is not None:
        _check(case, "the BF16 calls", partial(memory.one_arm, random=case.random_weights), device_gib)


def _check(case: Case, what: str, need: Callable[[int], float], device_gib: float | None) -> None:
    batch_size = case.settings.batch_size
    if device_gib is None or need(batch_size) <= device_gib:
        return
    fitting = [size for size in range(1, batch_size) if need(size) <= device_gib]
    smaller = f" Batch size {fitting[-1]} fits." if fitting else ""
    raise Stop(
        Outcome.ENVIRONMENT,
        f"{what} of {case.recipe.name} at batch size {batch_size} need about {need(batch_size):.0f} GiB and the device "
        f"has {device_gib:.0f}; nothing was loaded.{smaller} A device of {ceil(need(batch_size))} GiB fits",
    )
