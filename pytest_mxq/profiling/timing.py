"""Timing: synchronised calls, warm-up until settled, rounds of all arms, sessions.

Timed is what lies between two synchronisations, with the garbage collector off and nothing else inside. A round in
which torch.compile was at work, or in which the caller's `Inspect` saw the machine slow down, is voided and repeated.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch

from pytest_mxq.errors import MxqError
from pytest_mxq.gates.sampling import MIN_WARM_UP, Order, Sampling, enough, round_orders
from pytest_mxq.gates.speed_statistics import MIN_SESSION_ROUNDS, minimum_rounds
from pytest_mxq.profiling.compilation import count_compilations

Run: TypeAlias = Callable[[], object]
"""One whole call of the workload on one arm."""
Inspect: TypeAlias = Callable[[], str | None]
"""Asked after each round, outside the timed region: why the round must not count, or None."""

MAX_WARM_UP = 6
"""Calls after which warming up ends, settled or not."""
SETTLED_WITHIN = 0.02
"""Relative difference under which the last two calls of a warm-up agree."""
MAX_VOIDED_SHARE = 0.25
"""Share of voided rounds above which the machine, not the model, is measured."""


class TimingError(MxqError):
    """A clock that cannot have measured anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """How time is taken on a device.

    Attributes:
        now: seconds from any start, monotonic.
        synchronize: waits until the device has done all it was given.
    """

    now: Callable[[], float]
    synchronize: Callable[[], object]


def cpu_clock() -> Clock:
    """Return the clock of a CPU, where every call has ended when it returns."""
    return Clock(now=time.perf_counter, synchronize=lambda: None)


def cuda_clock() -> Clock:
    """Return the clock of the current CUDA device."""
    return Clock(now=time.perf_counter, synchronize=torch.cuda.synchronize)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """The calls before the first timed one.

    Attributes:
        seconds: time of each call.
        graphs: graphs compiled meanwhile; 0 is possible for a compiled arm, if another one left it its graphs.
        settled: whether the last call compiled nothing, and the calls get neither faster nor slower any more: the last
            two agree, or `MAX_WARM_UP` of them go up and down. Of a warm-up that need not be steady: the former.
    """

    seconds: tuple[float, ...]
    graphs: int
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One call of each arm.

    Attributes:
        seconds: of each arm, BF16's first.
        order: in which they ran.
        voided: why the round does not count; None if it counts.
    """

    seconds: tuple[float, ...]
    order: Order
    voided: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRounds:
    """The rounds of a live comparison.

    Attributes:
        rounds: all of them, in order, the voided ones too.
        start_seed: what generated the order of the arms.
        elapsed_seconds: from before the first round to after the last.
    """

    rounds: tuple[Round, ...]
    start_seed: int
    elapsed_seconds: float

    @property
    def bf16(self) -> tuple[float, ...]:
        """Return the seconds of the BF16 arm in the rounds that count."""
        return self.of(0)

    def of(self, arm: int) -> tuple[float, ...]:
        """Return the seconds of an arm in the rounds that count; BF16 is arm 0."""
        return tuple(round_.seconds[arm] for round_ in self.rounds if not round_.voided)

    @property
    def voided(self) -> tuple[str, ...]:
        """Return the reason of each voided round."""
        return tuple(round_.voided for round_ in self.rounds if round_.voided)

    @property
    def voided_share(self) -> float:
        """Return the share of the rounds that do not count, 0 to 1."""
        return _share(len(self.voided), len(self.bf16))

    @property
    def disturbed(self) -> bool:
        """Return whether too many rounds were voided for a verdict."""
        return self.voided_share > MAX_VOIDED_SHARE


Arms: TypeAlias = Callable[[TimedRounds], Sequence[Sequence[float]]]
"""Tells the seconds of each arm from those of the runs, round by round, BF16 first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The rounds of one arm in one process.

    Attributes:
        seconds: of the rounds that count.
        voided: the reason of each round that does not.
    """

    seconds: tuple[float, ...]
    voided: tuple[str, ...]

    @property
    def voided_share(self) -> float:
        """Return the share of the rounds that do not count, 0 to 1."""
        return _share(len(self.voided), len(self.seconds))

    @property
    def disturbed(self) -> bool:
        """Return whether too many rounds were voided for a verdict."""
        return self.voided_share > MAX_VOIDED_SHARE


def warm_up(run: Run, clock: Clock, *, steady: bool = True) -> WarmUp:
    """Call the workload until it compiles nothing any more and two calls agree, `MAX_WARM_UP` times at most.

    Short calls may never agree: noise, which the interval will show, and no reason to measure nothing. After
    `MAX_WARM_UP` calls only those that have gone one way ever since the first still warm up; of five independent times
    2 in 120 do so by chance.

    Args:
        run: calls the workload.
        clock: of the device.
        steady: whether the last two calls must agree; peak memory asks only that nothing is compiled any more.

    Raises:
        TimingError: the clock stands still, runs backwards or is not a number.
    """
    seconds: list[float] = []
    first = count_compilations()
    settled = False
    with _collector_off():
        while not settled and len(seconds) < MAX_WARM_UP:
            before = count_compilations()
            seconds.append(_measure(run, clock))
            ready = len(seconds) >= MIN_WARM_UP and count_compilations() == before
            settled = ready and (not steady or _agree_at_last(seconds))
    return WarmUp(seconds=tuple(seconds), graphs=count_compilations().graphs - first.graphs, settled=settled)


def every_run(rounds: TimedRounds) -> list[tuple[float, ...]]:
    """Return the seconds of each run, where each is an arm."""
    return [rounds.of(run) for run in range(len(rounds.rounds[0].seconds))]


def time_rounds(
    runs: Sequence[Run],
    clock: Clock,
    *,
    sampling: Sampling,
    seed: int,
    inspect: Inspect,
    arms: Arms = every_run,
) -> TimedRounds:
    """Time warm arms in rounds until `enough` of them count for each quantized arm, or too many were voided.

    A voided round is repeated in its own order, so that the rounds that count are balanced all the same. It is given up
    as soon as too many would be voided even if every further round that an interval needs counted.

    Args:
        runs: each calls an arm; the first one BF16.
        clock: of the device.
        sampling: how long.
        seed: generates the order of the arms.
        inspect: judges each round by the machine.
        arms: tells the seconds of each arm from those of the runs.

    Raises:
        SamplesError: there is no interval at this alpha.
        TimingError: the clock stands still, runs backwards or is not a number.
    """
    orders = round_orders(len(runs), max(sampling.max_rounds, minimum_rounds(sampling.alpha)), seed)
    rounds: list[Round] = []
    with _collector_off():
        guard, start = _Guard(inspect), clock.now()
        while True:
            samples = TimedRounds(rounds=tuple(rounds), start_seed=seed, elapsed_seconds=clock.now() - start)
            if _complete(samples, arms, sampling):
                return samples
            rounds.append(_time_round(runs, clock, orders[len(samples.bf16)], guard))


def time_session(run: Run, clock: Clock, *, inspect: Inspect, rounds: int = MIN_SESSION_ROUNDS) -> Session:
    """Time one warm arm until `rounds` calls count, or too many were voided.

    Raises:
        TimingError: the clock stands still, runs backwards or is not a number.
    """
    seconds: list[float] = []
    voided: list[str] = []
    with _collector_off():
        guard = _Guard(inspect)
        while True:
            session = Session(seconds=tuple(seconds), voided=tuple(voided))
            if len(seconds) >= rounds or _hopeless(len(voided), rounds):
                return session
            taken, reason = _measure(run, clock), guard()
            if reason:
                voided.append(reason)
            else:
                seconds.append(taken)


class _Guard:
    """Tells why what ran since the last question must not count."""

    def __init__(self, inspect: Inspect) -> None:
        self._inspect = inspect
        self._seen = count_compilations()

    def __call__(self) -> str | None:
        before, self._seen = self._seen, count_compilations()
        # Always asked: what it reports is what happened since it was asked last.
        machine = self._inspect()
        graphs, failures = self._seen.graphs - before.graphs, self._seen.failures - before.failures
        compiled = (
            f"torch.compile compiled {graphs} graphs and gave up {failures} frames" if graphs or failures else None
        )
        return "; ".join(filter(None, (compiled, machine))) or None


@contextmanager
def _collector_off() -> Iterator[None]:
    """Freeze everything that exists, so that the collections between the calls look at what the calls left.

    Where the process has frozen something itself, that is left as it is: nothing can be unfrozen alone.
    """
    was_enabled, was_frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.collect()
    gc.disable()
    if not was_frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not was_frozen:
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def _measure(run: Run, clock: Clock) -> float:
    gc.collect()
    clock.synchronize()
    start = clock.now()
    result = run()
    clock.synchronize()
    seconds = clock.now() - start
    del result  # freed before the next call, and not on the clock
    if not 0 < seconds < math.inf:
        raise TimingError(f"a call took {seconds} s by the clock; allowed: finite and above 0. Is the workload empty?")
    return seconds


def _time_round(runs: Sequence[Run], clock: Clock, order: Order, guard: _Guard) -> Round:
    seconds = {arm: _measure(runs[arm], clock) for arm in order}
    return Round(seconds=tuple(seconds[arm] for arm in range(len(runs))), order=order, voided=guard())


def _complete(samples: TimedRounds, arms: Arms, sampling: Sampling) -> bool:
    counting = len(samples.bf16)
    if _hopeless(len(samples.voided), max(counting, minimum_rounds(sampling.alpha))):
        return True
    if counting < minimum_rounds(sampling.alpha) or counting % 2:
        return False
    bf16, *formats = arms(samples)
    return all(enough(bf16, one, sampling, elapsed_seconds=samples.elapsed_seconds) for one in formats)


def _share(voided: int, counting: int) -> float:
    return voided / (voided + counting) if voided else 0.0


def _hopeless(voided: int, counting_in_the_end: int) -> bool:
    return _share(voided, counting_in_the_end) > MAX_VOIDED_SHARE


def _agree_at_last(seconds: Sequence[float]) -> bool:
    return _agree(*seconds[-2:]) or (len(seconds) == MAX_WARM_UP and _up_and_down(seconds[1:]))


def _agree(one: float, another: float) -> bool:
    return abs(one - another) < SETTLED_WITHIN * min(one, another)


def _up_and_down(seconds: Sequence[float]) -> bool:
    return len({before < after for before, after in pairwise(seconds)}) == 2
