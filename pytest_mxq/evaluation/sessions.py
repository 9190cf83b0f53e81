"""Stored timing sessions: which are comparable with this run, and that BF16 did the same in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import msgspec

from pytest_mxq.baselines.identity import check_same_calls
from pytest_mxq.baselines.manifest import Identity, Manifest, ShortPeak, TimingSession, identity_differences
from pytest_mxq.baselines.work import ObservedRun, WorkRecord, is_shorter, work_changes
from pytest_mxq.environment.fingerprint import Fingerprint, hard_differences
from pytest_mxq.evaluation.protocols import Workload
from pytest_mxq.evaluation.staleness import timing_differences
from pytest_mxq.gates.base import CallLength
from pytest_mxq.gates.extrapolation import LEAST_MODEL_ERROR, model_error
from pytest_mxq.gates.measured import Measured
from pytest_mxq.gates.memory import SHORT_STEPS
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.speed_statistics import MIN_SESSIONS
from pytest_mxq.gates.speedup import SpeedBound
from pytest_mxq.gates.verdict import Verdict

if TYPE_CHECKING:
    from pytest_mxq.planning.plans import CallsPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one gate is judged on: its plan, its workload, and the stored baseline if there is one."""

    plan: CallsPlan
    workload: Workload
    draft: Verdict
    manifest: Manifest | None
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """The stored sessions that are comparable with this run, the newest last.

    Attributes:
        why_not: what sets the newest of the others apart, in brackets; None where all are usable.
    """

    usable: tuple[TimingSession, ...]
    why_not: str | None

    @property
    def model_error(self) -> float:
        """Half-width that extrapolating from short calls adds: the most by which it missed BF16, or the least."""
        told = [model_error(one.predicted, one.seconds) for one in self.usable if one.predicted is not None]
        return max(told, default=LEAST_MODEL_ERROR)

    @property
    def short(self) -> tuple[tuple[float, ...], ...]:
        """Seconds of the short calls of each session that has some."""
        return tuple(session.short_seconds for session in self.usable if session.short_seconds)

    @property
    def seconds(self) -> tuple[tuple[float, ...], ...]:
        """Seconds of each session's timed calls."""
        return tuple(session.seconds for session in self.usable)


def why_live(sessions: Sequence[TimingSession], bound: SpeedBound) -> str | None:
    """Return why `auto` times BF16 in this run, whatever is stored; None where stored sessions may decide.

    They may where short calls of BF16 were stored with them, which are timed in this run as well and tell whether the
    machine is as fast as then.

    Args:
        sessions: the stored ones of this hardware and software.
        bound: the gate's.
    """
    if bound.steps is CallLength.SHORT:
        return "short calls of both arms are timed in turn"
    if len(sessions) < MIN_SESSIONS:
        return f"{len(sessions)} stored timing sessions of this hardware and software, {MIN_SESSIONS} needed"
    if not all(session.short_seconds for session in sessions):
        return "stored sessions without short calls of BF16 cannot tell whether the machine is as fast as then"
    return None


def machine_differences(session: TimingSession, here: Fingerprint, execution: str) -> tuple[str, ...]:
    """Why a stored session cannot be compared with whatever would be timed here."""
    differences = hard_differences(session.fingerprint, here)
    if session.execution != execution:
        differences += (f"execution {session.execution} -> {execution}",)
    if not session.calls:
        differences += ("it does not say what it called: an older pytest-mxq stored it",)
    return differences


# Recorded for images, and hard for times: another limit or clock is another machine.
_TIMING_FACTS = ("power_limit_w", "max_sm_clock_mhz", "max_memory_clock_mhz", "persistence")


def timing_fingerprint(fingerprint: Fingerprint, inductor: str) -> Fingerprint:
    """Return the fingerprint of a timing session: Inductor's configuration and the GPU's limits belong to it."""
    limits = {name: fingerprint.recorded[name] for name in _TIMING_FACTS if name in fingerprint.recorded}
    return Fingerprint(hard={**fingerprint.hard, **limits, "inductor": inductor}, recorded=fingerprint.recorded)


def check_same_run(job: Job, source: ObservedRun | TimingSession, observed: ObservedRun) -> None:
    """Refuse a quantized run that did something else than the one in which BF16 was measured, now or earlier."""
    if isinstance(source, TimingSession):
        check_sessions(job, [source], observed)
        return
    check_same_calls(source.identity, observed.identity)
    _check_work(work_changes(source.work, observed.work), "BF16 of this run")


def short_peak(measured: Measured | None, full: WorkRecord) -> ShortPeak | None:
    """Return what a session stores of a short call; None where its denoiser was not called less often."""
    if measured is None or not is_shorter(measured[1].work, full):
        return None
    peak, observed = measured
    return ShortPeak(steps=SHORT_STEPS, peak_gib=peak.allocated_gib, work=observed.work)


def session_differences(manifest: Manifest, session: TimingSession, observed: ObservedRun) -> tuple[str, ...]:
    """In what a timed run, such as one call of 28 steps, differs from that of a stored session; () if in nothing."""
    return _identity_differences(manifest, session, observed.identity) or _work_differences(session, observed)


def _identity_differences(manifest: Manifest, session: TimingSession, observed: Identity) -> tuple[str, ...]:
    stored = msgspec.structs.replace(manifest.identity, calls=session.calls)
    here = msgspec.structs.replace(observed, prompts=stored.prompts, execution=stored.execution)
    return identity_differences(stored, here)


def _work_differences(session: TimingSession, observed: ObservedRun) -> tuple[str, ...]:
    return () if session.work is None else work_changes(session.work, observed.work)


def check_sessions(job: Job, sessions: Sequence[TimingSession], observed: ObservedRun) -> None:
    """28 steps turned into 20, or two calls into one, must never look like a speedup.

    Raises:
        Stop: a stored session is of other calls, other weights or another batch, or BF16 did other work in it.
    """
    if job.manifest is None:
        return
    for session in sessions:
        differences = _identity_differences(job.manifest, session, observed.identity)
        if differences:
            _refuse(differences, sessions=len(sessions))
        _check_work(_work_differences(session, observed), f"BF16 of {session.created[:10]}")


def _check_work(differences: Sequence[str], reference: str) -> None:
    if differences:
        raise Stop(
            Outcome.ERROR,
            f"the quantized arm did other work than {reference} (BF16 -> quantized): {'; '.join(differences)}; the "
            "test's body must do the same on every arm, and if it was changed, refresh the baseline",
        )


def check_stated(job: Job, weights: str | None, *, sessions: int) -> None:
    """Refuse stored sessions of another case as far as that is known before a model is loaded.

    Raises:
        Stop: they are of another seed or batch size, or of other weights.
    """
    differences = timing_differences(job.plan.case, job.manifest, weights) if job.manifest is not None else ()
    if differences:
        _refuse(differences, sessions=sessions)


def _refuse(differences: tuple[str, ...], *, sessions: int) -> NoReturn:
    text = f"the stored sessions belong to another case: {'; '.join(differences)}; refresh them"
    raise Stop(Outcome.STALE, text, sessions=sessions)
