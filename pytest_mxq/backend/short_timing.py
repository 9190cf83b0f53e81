"""Time arms in whole calls, or in calls of two lengths from which whole ones are extrapolated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from pytest_mxq.backend.warm_arm import WarmArm, check_same_work, with_steps
from pytest_mxq.gates.extrapolation import SHORT_LENGTHS, Extrapolation
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.profiling.timing import TimedRounds, time_session

if TYPE_CHECKING:
    from pytest_mxq.gates.sampling import Sampling
    from pytest_mxq.planning.case import Case
    from pytest_mxq.profiling.timing import Clock, Inspect

Workload = Callable[..., object]

_ROUNDS = 4
"""Calls of each length that tell a refresh by how much the line misses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedArms:
    """What is run in each round, and how the seconds of each arm follow from it.

    Attributes:
        calls: a call of each arm, BF16's first; of two lengths the shorter and the longer one of each arm.
        extrapolation: how a whole call follows from two short ones; None: calls are whole.
    """

    calls: tuple[WarmArm, ...]
    extrapolation: Extrapolation | None = None

    def seconds(self, rounds: TimedRounds) -> list[tuple[float, ...]]:
        """Return the seconds of each arm, round by round, BF16 first."""
        runs = [rounds.of(run) for run in range(len(self.calls))]
        line = self.extrapolation
        if line is None:
            return runs
        return [line.seconds(few, many) for few, many in zip(runs[::2], runs[1::2], strict=True)]

    def check(self) -> None:
        """Find out that a timed call did something else than the first, observed one.

        Raises:
            CaseFaultError: it did.
        """
        for call in self.calls:
            call.check()


def timed_arms(case: Case, workload: Workload, arms: Sequence[WarmArm], sampling: Sampling) -> TimedArms:
    """Return what is timed of warm arms, BF16's first: their calls, or those and shorter ones.

    Raises:
        Stop: the workload's steps are not alike, or not more than those of the short calls.
        MxqError: the arms did not do the same in a shorter call.
    """
    if sampling.lengths is None:
        return TimedArms(calls=tuple(arms))
    few, _ = sampling.lengths
    shorter = [with_steps(case, workload, arm, few) for arm in arms]
    for arm in shorter[1:]:
        check_same_work(shorter[0], arm)
    line = find_line(case, sampling.lengths, shorter[0], arms[0])
    if line is None:
        raise Stop(
            Outcome.ERROR,
            f"the speed of {case.recipe.name} cannot be extrapolated from calls of {few} and {sampling.lengths[1]} "
            "steps: the workload does not take more, or its steps are not alike (the denoiser's calls do not grow in "
            "proportion); leave out --mxq-timing=short or mxq_speedup(steps='short')",
        )
    calls = (call for pair in zip(shorter, arms, strict=True) for call in pair)
    return TimedArms(calls=tuple(calls), extrapolation=replace(line, model_error=sampling.model_error))


def has_short_calls(case: Case) -> bool:
    """Tell whether a case's calls can be as short as both lengths, and are longer."""
    return (case.usual_steps or 0) > SHORT_LENGTHS[1]


def time_short(call: WarmArm, clock: Clock, inspect: Inspect) -> tuple[float, ...]:
    """Return the seconds of some short calls; () where something disturbed them."""
    session = time_session(call.run, clock, inspect=inspect, rounds=_ROUNDS)
    call.check()
    return () if session.disturbed else session.seconds


def predict(
    case: Case, workload: Workload, bf16: WarmArm, clock: Clock, inspect: Inspect
) -> tuple[float | None, tuple[float, ...]]:
    """Return the seconds of a whole call by the line through short ones, and those of the shorter ones.

    None and () where there is no such line, or something disturbed them.
    """
    if not has_short_calls(case):
        return None, ()
    few, many = (with_steps(case, workload, bf16, steps) for steps in SHORT_LENGTHS)
    line = find_line(case, SHORT_LENGTHS, few, many)
    if line is None:
        return None, ()
    shorter, longer = (time_short(call, clock, inspect) for call in (few, many))
    if not shorter or not longer:
        return None, ()
    return line.seconds([median(shorter)], [median(longer)])[0], shorter


def find_line(case: Case, lengths: tuple[int, int], few: WarmArm, many: WarmArm) -> Extrapolation | None:
    """Return how whole calls follow from two short ones; None where the workload takes no more steps, or unlike ones.

    Args:
        case: the case.
        lengths: steps of both calls.
        few: an arm in the shorter call.
        many: the same in the longer one.
    """
    asked = {call.get(str(case.recipe.steps)) for call in many.identity.calls}
    steps = asked.pop() if len(asked) == 1 else None
    one, two = few.observed.work.denoiser_calls, many.observed.work.denoiser_calls
    is_alike = one.keys() == two.keys() and all(one[name] * lengths[1] == two[name] * lengths[0] for name in one)
    if not isinstance(steps, int) or steps <= lengths[1] or not is_alike or not any(one.values()):
        return None
    return Extrapolation(lengths=lengths, steps=steps)
