"""An arm that is ready to be timed or measured, and what must hold of it before it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from pytest_mxq.baselines.manifest import Identity
from pytest_mxq.baselines.work import ObservedRun
from pytest_mxq.errors import MxqError
from pytest_mxq.gates.memory import SHORT_TOLERANCE
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.pipelines.generate import Generated, Series, TimedCall, timed_call
from pytest_mxq.pipelines.work import work_differences
from pytest_mxq.profiling.timing import WarmUp

if TYPE_CHECKING:
    from pytest_mxq.formats import Format
    from pytest_mxq.planning.case import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmArm:
    """An arm ready to be timed.

    Attributes:
        call: one whole call, and what it does.
        pipe: its pipeline.
        denoisers: names of its denoisers.
        first_call: seconds of the case's first call of it in this process; what an earlier case compiled is compiled.
        regions: compiled regions that one forward pass of the denoiser enters.
        identity: what was observed.
    """

    call: TimedCall
    pipe: Any
    denoisers: tuple[str, ...]
    first_call: float
    regions: int
    identity: Identity

    @property
    def observed(self) -> ObservedRun:
        """What the first call was, and the work that it did."""
        (work,) = self.call.once.works.values()
        return ObservedRun(identity=self.identity, work=work.record)

    @property
    def run(self) -> Callable[[], object]:
        """One whole call."""
        return self.call.run

    def check(self) -> None:
        """Find out that a timed call did something else than the first, observed one.

        Raises:
            CaseFaultError: it did.
        """
        self.call.check()


def series_of(case: Case, denoisers: tuple[str, ...], steps: int | None) -> Series:
    """Return what one call generates; ``steps``: how many it takes, None: the workload's own."""
    argument = case.recipe.steps
    return Series(
        prompts=case.prompts,
        batch_size=case.settings.batch_size,
        seed=case.settings.seed,
        denoisers=denoisers,
        forced={} if steps is None or argument is None else {argument: steps},
    )


def with_steps(case: Case, workload: Callable[..., object], arm: WarmArm, steps: int | None) -> WarmArm:
    """Return a warm arm in calls of another number of steps (None: the workload's own), with the same compiled code."""
    call = timed_call(workload, arm.pipe, case.recipe.call, series_of(case, arm.denoisers, steps))
    return replace(arm, call=call)


def name_of(number_format: Format | None) -> str:
    """Return the name of an arm as people read it."""
    return "BF16" if number_format is None else number_format.name


def label_of(case: Case, number_format: Format | None) -> str:
    """Return what progress calls an arm."""
    return f"{case.recipe.name} {name_of(number_format)}"


def check_images(generated: Generated, number_format: Format | None) -> None:
    """Refuse outputs that hold NaN or infinity.

    Raises:
        Stop: they do.
    """
    if not torch.isfinite(generated.images).all():
        raise Stop(Outcome.DEGENERATE, f"what the timed {name_of(number_format)} arm generated holds NaN or infinity")


def check_settled(warmed: WarmUp, number_format: Format | None) -> None:
    """Refuse an arm whose last two calls of warm-up differ.

    Raises:
        Stop: they do.
    """
    if not warmed.settled:
        last, before = warmed.seconds[-1], warmed.seconds[-2]
        raise Stop(
            Outcome.ENVIRONMENT,
            f"{name_of(number_format)} did not settle in {len(warmed.seconds)} calls of warm-up: the last two took "
            f"{before:.3f} and {last:.3f} s (code that is still being compiled, or a machine that is not steady)",
        )


def check_same_work(bf16: WarmArm, quantized: WarmArm) -> None:
    """Refuse to compare arms that did another amount of work.

    Raises:
        MxqError: names what differs.
    """
    pairs = zip(bf16.call.once.works.values(), quantized.call.once.works.values(), strict=True)
    found = [text for one, other in pairs for text in work_differences(one, other)]
    if found:
        raise MxqError(f"the arms did not do the same work (BF16 -> quantized): {'; '.join(found)}")


def check_same_regions(bf16: WarmArm, quantized: WarmArm) -> None:
    """Refuse arms of which one fell back to eager execution.

    Raises:
        Stop: one did.
    """
    if bf16.regions != quantized.regions:
        raise Stop(
            Outcome.REGRESSION,
            f"the arms do not run alike: one forward pass enters {bf16.regions} compiled regions in BF16 and "
            f"{quantized.regions} in the quantized arm: a block fell back to eager execution",
        )


def check_nothing_kept(kept_gib: float, peak_gib: float, steps: int, all_steps: int) -> None:
    """Refuse a short call that leaves memory allocated: BF16's calls agree, and this arm's full one may need more.

    Raises:
        Stop: what it keeps would move the peak of a full call.
    """
    in_all = kept_gib / steps * all_steps
    if in_all > SHORT_TOLERANCE * peak_gib:
        raise Stop(
            Outcome.ERROR,
            f"a call of {steps} steps leaves {kept_gib:.3g} GiB allocated, about {in_all:.2g} GiB in {all_steps} steps "
            f"beside a peak of {peak_gib:.2f} GiB: a full call may need more than a short one tells; "
            "mxq_memory(steps='full') measures full calls",
        )
