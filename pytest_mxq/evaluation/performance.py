"""Gates that measure whole calls of the compiled arms: speed and peak memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import SystemRandom
from typing import TYPE_CHECKING, NoReturn

import msgspec

from pytest_mxq.baselines.identity import check_same_calls
from pytest_mxq.baselines.manifest import Identity, Manifest, TimingSession, identity_differences
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.baselines.strict_json import LIVE
from pytest_mxq.baselines.work import ObservedRun, work_changes
from pytest_mxq.environment.fingerprint import Fingerprint, hard_differences
from pytest_mxq.errors import BaselineMissingError, MxqError
from pytest_mxq.evaluation.protocols import Benchmark, Workload
from pytest_mxq.evaluation.staleness import KnownWeights, move_of_renamed, timing_differences
from pytest_mxq.gates.evidence import judge_evidence, judge_run
from pytest_mxq.gates.memory import MemoryBound, MemoryFacts, MemoryGate
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.sampling import Sampling
from pytest_mxq.gates.speed_statistics import MIN_SESSIONS
from pytest_mxq.gates.speedup import SpeedBound, SpeedGate, SpeedSamples
from pytest_mxq.gates.verdict import ReferenceNote, Verdict
from pytest_mxq.planning.settings import Reference

if TYPE_CHECKING:
    from pytest_mxq.planning.plans import GatePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one gate is judged on: its plan, its workload, and the stored baseline if there is one."""

    plan: GatePlan
    workload: Workload
    draft: Verdict
    manifest: Manifest | None
    path: str


WHY_LIVE = "no reference workload is stable to better than 1 %, so stored timings cannot rule out machine drift"
"""Why `auto` times a speedup beside BF16, whatever is stored (benchmarks/results/gpu-speed-2026-11-22.md, Canary)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bf16Peak:
    """BF16's peak memory in GiB, and where it comes from: what was observed in this run, or a stored session."""

    gib: float
    source: ObservedRun | TimingSession


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """The stored sessions that are comparable with this run, the newest last.

    Attributes:
        why_not: what sets the newest of the others apart, in brackets; None where all are usable.
    """

    usable: tuple[TimingSession, ...]
    why_not: str | None

    @property
    def seconds(self) -> tuple[tuple[float, ...], ...]:
        """Seconds of each session's timed calls."""
        return tuple(session.seconds for session in self.usable)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceStrategy:
    """Judges speed and memory.

    Attributes:
        benchmark: measures.
        store: the stored baselines.
        mode: where BF16's numbers come from.
        alpha: level of each one-sided bound of a speedup.
        weights: tells the name of a case's weights, where it is known before they are loaded.
    """

    benchmark: Benchmark
    store: BaselineStore
    fingerprint: Fingerprint
    mode: Reference
    strict: bool
    alpha: float
    weights: KnownWeights

    def evaluate(self, plan: GatePlan, workload: Workload, draft: Verdict) -> Verdict:
        """Return the verdict of a speed or memory gate.

        Raises:
            Stop: there is no proof of quantization, the machine is not fit to be timed on, or the baseline does not
                serve.
            MxqError: it could not be done.
        """
        case = plan.case
        job = Job(
            plan=plan,
            workload=workload,
            draft=draft,
            manifest=self._manifest(plan),
            path=str(self.store.manifest_path(case.recipe.name, case.name)),
        )
        if isinstance(plan.gate, SpeedGate):
            return self._speed(job, plan.gate, plan.bound)
        if isinstance(plan.gate, MemoryGate):
            return self._memory(job, plan.gate, plan.bound)
        raise TypeError(f"{type(plan.gate).__name__} measures neither speed nor memory")

    def _manifest(self, plan: GatePlan) -> Manifest | None:
        if self.mode is Reference.LIVE:
            return None
        try:
            return self.store.load(plan.case.recipe.name, plan.case.name)
        except BaselineMissingError:
            return None

    def _proved(self, job: Job) -> Verdict:
        """Build the quantized arm, and return the draft with the proof that it is quantized.

        Raises:
            Stop: it is not.
        """
        evidence = self.benchmark.evidence(job.plan.case, job.plan.number_format)
        stored = job.manifest.selections.get(job.plan.number_format.name) if job.manifest is not None else None
        wrong = judge_evidence(evidence, min_share=job.plan.case.min_share, stored=stored)
        if wrong is not None:
            raise Stop(*wrong, evidence=evidence)
        return replace(job.draft, evidence=evidence)

    def _proved_run(self, job: Job, draft: Verdict) -> Verdict:
        """Return the draft with the proof that what was measured ran quantized.

        Raises:
            Stop: it did not.
        """
        evidence = self.benchmark.run_evidence(job.plan.case, job.plan.number_format)
        wrong = judge_run(evidence, native=True, weight_only=job.plan.number_format.weight_only)
        if wrong is not None:
            raise Stop(*wrong, evidence=evidence)
        return replace(draft, evidence=evidence)

    def _speed(self, job: Job, gate: SpeedGate, bound: SpeedBound) -> Verdict:
        found = self._find_sessions(job)
        if self.mode is Reference.STORED:
            samples, note, draft = self._time_stored(job, found)
        else:
            draft = self._proved(job)
            seed = SystemRandom().randrange(2**31)
            sampling = Sampling(alpha=self.alpha, max_rounds=bound.max_rounds, max_seconds=bound.max_seconds)
            live, _ = self.benchmark.time_live(
                job.plan.case, job.workload, job.plan.number_format, sampling=sampling, seed=seed
            )
            samples = replace(live, sessions=found.seconds)
            draft = self._proved_run(job, draft)
            reason = LIVE if self.mode is Reference.LIVE else WHY_LIVE
            note = ReferenceNote(mode="live", reason=reason)
        outcome, sentence, facts = gate.decide(samples, bound, alpha=self.alpha)
        return replace(
            draft,
            outcome=outcome,
            sentence=sentence,
            observed=facts.speedup if facts else None,
            bound=bound.speedup,
            speed=facts,
            reference=note,
        )

    def _time_stored(self, job: Job, found: Sessions) -> tuple[SpeedSamples, ReferenceNote, Verdict]:
        """One session of the quantized arm against stored ones of BF16.

        Raises:
            Stop: there are too few, or they are of another case.
        """
        count = len(found.usable)
        if count < MIN_SESSIONS:
            self._offer_move(job)
            stored = len(job.manifest.sessions) if job.manifest is not None else 0
            raise Stop(
                Outcome.MISSING,
                f"{count} of {stored} stored timing sessions are of this hardware, software and execution"
                f"{found.why_not or ''}, {MIN_SESSIONS} are needed; add some",
                sessions=MIN_SESSIONS - count,
            )
        _check_stated(job, self.weights(job.plan.case), sessions=MIN_SESSIONS)
        draft = self._proved(job)
        samples, observed = self.benchmark.time_quantized(
            job.plan.case, job.workload, job.plan.number_format, found.seconds
        )
        _check_sessions(job, found.usable, observed)
        draft = self._proved_run(job, draft)
        reason = f"{count} sessions, same hardware and software"
        note = ReferenceNote(mode="stored", reason=reason, manifest=job.path, created=found.usable[-1].created)
        return samples, note, draft

    def _memory(self, job: Job, gate: MemoryGate, bound: MemoryBound) -> Verdict:
        bf16, note = self._bf16_peak(job, bound)
        draft = self._proved(job)
        peak, observed = self.benchmark.measure_memory(job.plan.case, job.workload, job.plan.number_format)
        if bf16 is not None:
            _check_same_run(job, bf16.source, observed)
        draft = self._proved_run(job, draft)
        evidence = draft.evidence
        if evidence is None:
            raise MxqError("the quantized arm carries no evidence")
        memory = MemoryFacts(
            peak_gib=peak.allocated_gib,
            reserved_gib=peak.reserved_gib,
            bf16_peak_gib=bf16.gib if bf16 else None,
            weight_ratio=evidence.weight_bytes / evidence.bf16_bytes,
        ).against(bound)
        outcome, sentence = gate.decide(memory, bound)
        deciding = memory.deciding
        return replace(
            draft,
            outcome=outcome,
            sentence=sentence,
            scale=replace(gate.scale, unit=deciding.unit) if deciding else gate.scale,
            observed=deciding.value if deciding else None,
            bound=deciding.limit if deciding else None,
            memory=memory,
            reference=note,
        )

    def _bf16_peak(self, job: Job, bound: MemoryBound) -> tuple[Bf16Peak | None, ReferenceNote | None]:
        """BF16's peak, stored or measured now, and where it comes from; nothing where no bound compares with it.

        Raises:
            Stop: a stored one is wanted, and none fits.
        """
        if bound.max_ratio is None:
            return None, None
        found = self._find_sessions(job)
        for session in reversed(found.usable):
            if session.peak_gib:
                reason = f"peak of {session.created[:10]}, same hardware and software"
                note = ReferenceNote(mode="stored", reason=reason, manifest=job.path, created=session.created)
                _check_stated(job, self.weights(job.plan.case), sessions=1)
                return Bf16Peak(gib=session.peak_gib, source=session), note
        reason = f"no stored peak memory of this hardware and software{found.why_not or ''}"
        if self.mode is Reference.STORED or (self.strict and self.mode is not Reference.LIVE):
            self._offer_move(job)
            raise Stop(Outcome.MISSING, f"{reason}; refresh it")
        peak, observed = self.benchmark.measure_memory(job.plan.case, job.workload, None)
        reason = LIVE if self.mode is Reference.LIVE else reason
        return Bf16Peak(gib=peak.allocated_gib, source=observed), ReferenceNote(mode="live", reason=reason)

    def _offer_move(self, job: Job) -> None:
        """Raise with the command that moves it where the missing baseline is surely a renamed test's.

        Raises:
            BaselineMissingError: it is.
        """
        case = job.plan.case
        move = move_of_renamed(self.store, case, self.weights(case)) if job.manifest is None else None
        if move is not None:
            raise BaselineMissingError(f"no baseline of case {case.name!r}, and a renamed test's fits it", command=move)

    def _find_sessions(self, job: Job) -> Sessions:
        """Return the stored sessions of this hardware, software, Inductor configuration and execution."""
        if job.manifest is None or self.mode is Reference.LIVE:
            return Sessions(usable=(), why_not=None)
        here = timing_fingerprint(self.fingerprint, self.benchmark.inductor_digest())
        execution = self.benchmark.execution(job.plan.case)
        usable: list[TimingSession] = []
        why_not: str | None = None
        for session in job.manifest.sessions:
            differences = _machine_differences(session, here, execution)
            if differences:
                why_not = f" (the newest that is not: {'; '.join(differences)})"
            else:
                usable.append(session)
        return Sessions(usable=tuple(usable), why_not=why_not)


def _machine_differences(session: TimingSession, here: Fingerprint, execution: str) -> tuple[str, ...]:
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


def _check_same_run(job: Job, source: ObservedRun | TimingSession, observed: ObservedRun) -> None:
    """Refuse a quantized run that did something else than the one in which BF16 was measured, now or earlier."""
    if isinstance(source, TimingSession):
        _check_sessions(job, [source], observed)
        return
    check_same_calls(source.identity, observed.identity)
    _check_work(work_changes(source.work, observed.work), "BF16 of this run")


def session_differences(manifest: Manifest, session: TimingSession, observed: ObservedRun) -> tuple[str, ...]:
    """In what a timed run, such as one call of 28 steps, differs from that of a stored session; () if in nothing."""
    return _identity_differences(manifest, session, observed.identity) or _work_differences(session, observed)


def _identity_differences(manifest: Manifest, session: TimingSession, observed: Identity) -> tuple[str, ...]:
    stored = msgspec.structs.replace(manifest.identity, calls=session.calls)
    here = msgspec.structs.replace(observed, prompts=stored.prompts, execution=stored.execution)
    return identity_differences(stored, here)


def _work_differences(session: TimingSession, observed: ObservedRun) -> tuple[str, ...]:
    return () if session.work is None else work_changes(session.work, observed.work)


def _check_sessions(job: Job, sessions: Sequence[TimingSession], observed: ObservedRun) -> None:
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


def _check_stated(job: Job, weights: str | None, *, sessions: int) -> None:
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
