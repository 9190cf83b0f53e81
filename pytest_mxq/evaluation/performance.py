"""Gates that measure whole calls of the compiled arms: speed and peak memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import SystemRandom
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from pytest_mxq.baselines.manifest import Manifest, TimingSession
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.baselines.strict_json import LIVE
from pytest_mxq.baselines.work import ObservedRun, is_shorter
from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.errors import BaselineMissingError
from pytest_mxq.evaluation.protocols import Benchmark, Workload
from pytest_mxq.evaluation.sessions import (
    Job,
    Sessions,
    check_same_run,
    check_sessions,
    check_stated,
    machine_differences,
    timing_fingerprint,
    why_live,
)
from pytest_mxq.evaluation.staleness import KnownWeights, move_of_renamed
from pytest_mxq.gates.base import CallLength
from pytest_mxq.gates.evidence import Evidence, judge_evidence, judge_run
from pytest_mxq.gates.extrapolation import SHORT_LENGTHS
from pytest_mxq.gates.machine_drift import MachineDrift
from pytest_mxq.gates.measured import Measured
from pytest_mxq.gates.memory import MemoryBound, MemoryFacts, ShortCalls
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.sampling import Sampling
from pytest_mxq.gates.speed_statistics import MIN_SESSIONS
from pytest_mxq.gates.speedup import SpeedSamples
from pytest_mxq.gates.verdict import ReferenceNote, Verdict
from pytest_mxq.planning.plans import SpeedPlan
from pytest_mxq.planning.settings import Reference

if TYPE_CHECKING:
    from pytest_mxq.formats import Format
    from pytest_mxq.planning.plans import CallsPlan, MemoryPlan


DISTURBED = "short calls of BF16 were disturbed and cannot tell whether the machine is as fast as then"
"""Why stored sessions that have such calls do not decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bf16Peak:
    """BF16's peak memory, and where it comes from.

    Attributes:
        gib: of a call as the quantized arm's is going to be, GiB.
        source: what was observed of it in this run, or a stored session.
        short_calls: its peaks in a short and in a full call; None where they were not compared.
    """

    gib: float
    source: ObservedRun | TimingSession
    short_calls: ShortCalls | None

    @property
    def steps(self) -> int | None:
        """Steps of a call; None: the workload's own."""
        return self.short_calls.steps if self.short_calls is not None and self.short_calls.agree else None

    @classmethod
    def stored(cls, session: TimingSession, full_gib: float, steps: int | None) -> Self:
        """Return that of a session; ``steps``: of a short call, None where calls have to be full."""
        short = session.short
        if short is None or short.steps != steps:
            return cls(gib=full_gib, source=session, short_calls=None)
        compared = ShortCalls(steps=short.steps, short_gib=short.peak_gib, full_gib=full_gib)
        if not compared.agree:
            return cls(gib=full_gib, source=session, short_calls=compared)
        source = msgspec.structs.replace(session, work=short.work)
        return cls(gib=short.peak_gib, source=source, short_calls=compared)

    @classmethod
    def live(cls, short: Measured | None, full: Measured, steps: int | None) -> Self:
        """Return what was measured in this run."""
        peak, observed = full
        if short is None or steps is None or not is_shorter(short[1].work, observed.work):
            return cls(gib=peak.allocated_gib, source=observed, short_calls=None)
        compared = ShortCalls(steps=steps, short_gib=short[0].allocated_gib, full_gib=peak.allocated_gib)
        chosen, observed = short if compared.agree else full
        return cls(gib=chosen.allocated_gib, source=observed, short_calls=compared)


class Timed(NamedTuple):
    """What was timed for a speed gate, where BF16's times come from, and the draft with what ran."""

    samples: SpeedSamples
    note: ReferenceNote
    draft: Verdict


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
    _sessions: dict[tuple[str, ...], dict[str, SpeedSamples]] = field(default_factory=dict)

    def evaluate(self, plan: CallsPlan, workload: Workload, draft: Verdict) -> Verdict:
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
        return self._speed(job, plan) if isinstance(plan, SpeedPlan) else self._memory(job, plan)

    def _manifest(self, plan: CallsPlan) -> Manifest | None:
        if self.mode is Reference.LIVE:
            return None
        try:
            return self.store.load(plan.case.recipe.name, plan.case.name)
        except BaselineMissingError:
            return None

    def _proved(self, job: Job, beside: Sequence[Format] = ()) -> Verdict:
        """Build the quantized arm, and return the draft with the proof that it is quantized.

        Raises:
            Stop: it is not.
        """
        evidence = self.benchmark.evidence(job.plan.case, job.plan.number_format, beside)
        stored = job.manifest.selections.get(job.plan.number_format.name) if job.manifest is not None else None
        wrong = judge_evidence(evidence, min_share=job.plan.case.min_share, stored=stored)
        if wrong is not None:
            raise Stop(*wrong, evidence=evidence)
        return replace(job.draft, evidence=evidence)

    def _proved_run(self, job: Job) -> Evidence:
        """Return the proof that what was measured ran quantized.

        Raises:
            Stop: it did not.
        """
        evidence = self.benchmark.run_evidence(job.plan.case, job.plan.number_format)
        wrong = judge_run(evidence, native=True, weight_only=job.plan.number_format.weight_only)
        if wrong is not None:
            raise Stop(*wrong, evidence=evidence)
        return evidence

    def _speed(self, job: Job, plan: SpeedPlan) -> Verdict:
        samples, note, draft = self._timed(job, plan)
        outcome, sentence, facts = plan.gate.decide(samples, plan.bound, alpha=self.alpha)
        return replace(
            draft,
            outcome=outcome,
            sentence=sentence,
            observed=facts.speedup if facts else None,
            bound=plan.bound.speedup,
            speed=facts,
            reference=note,
        )

    def _timed(self, job: Job, plan: SpeedPlan) -> Timed:
        """Return what was timed: by `auto` against stored sessions where the machine is as fast as then, else live.

        Raises:
            Stop: stored sessions are to decide, and cannot.
        """
        found = self._find_sessions(job)
        reason = LIVE if self.mode is Reference.LIVE else why_live(found.usable, plan.bound)
        if self.mode is Reference.STORED:
            self._check_stored(job, found)
            timed = self._time_stored(job, plan, found)
            drift = timed.samples.drift
            if found.short and drift is None and not timed.samples.environment:
                raise Stop(Outcome.ENVIRONMENT, f"{DISTURBED}; run it again, or compare live (--mxq-reference=live)")
            if drift is not None and not drift.is_small:
                text = f"{drift.text}: the machine is not as fast as then; compare live (--mxq-reference=live)"
                raise Stop(Outcome.ENVIRONMENT, text)
            return timed
        if reason is None:
            try:
                self._check_stored(job, found)
                timed = self._time_stored(job, plan, found)
            except Stop as stop:
                if stop.outcome not in (Outcome.STALE, Outcome.ERROR):
                    raise
                reason = str(stop)
            else:
                drift = timed.samples.drift
                if timed.samples.environment or (drift is not None and drift.is_small):
                    return timed
                reason = DISTURBED if drift is None else drift.text
        draft = self._proved(job, plan.together)
        samples = replace(self._time_live(job, plan, found.model_error), sessions=found.seconds)
        draft = replace(draft, evidence=self._proved_run(job))
        return Timed(samples, ReferenceNote(mode="live", reason=reason), draft)

    def _time_live(self, job: Job, plan: SpeedPlan, error: float) -> SpeedSamples:
        """Return what was timed beside BF16: in the case's session with its other formats, or alone.

        The session is the first of its formats'. Where it cannot be had, each is timed alone and says itself what is
        wrong with it, so that no format answers for another.
        """
        key = (*plan.case.key, plan.gate.name)
        if plan.together and key not in self._sessions:
            self._sessions[key] = self._time_together(job, plan, error)
        timed = self._sessions.get(key, {})
        if plan.cell.format in timed:
            return timed[plan.cell.format]
        return self._time(job, plan, [plan.number_format], error)[0]

    def _time_together(self, job: Job, plan: SpeedPlan, error: float) -> dict[str, SpeedSamples]:
        formats = plan.together
        try:
            timed = self._time(job, plan, formats, error)
        except Exception:  # noqa: BLE001  of whichever arm; alone, the one that it belongs to raises it again
            return {}
        named = {kind.name: samples for kind, samples in zip(formats, timed, strict=True)}
        return {} if timed[0].environment else named

    def _time(self, job: Job, plan: SpeedPlan, formats: Sequence[Format], error: float) -> list[SpeedSamples]:
        bound = plan.bound
        is_short = bound.steps is CallLength.SHORT
        sampling = Sampling(
            alpha=self.alpha,
            max_rounds=bound.max_rounds,
            max_seconds=bound.max_seconds * (1 + len(formats)) / 2,  # the marker's limit is of two arms
            lengths=SHORT_LENGTHS if is_short else None,
            model_error=error if is_short else 0.0,
        )
        seed = SystemRandom().randrange(2**31)
        timed = self.benchmark.time_live(job.plan.case, job.workload, formats, sampling=sampling, seed=seed)
        return [timed[kind.name] for kind in formats]

    def _check_stored(self, job: Job, found: Sessions) -> None:
        """Refuse too few stored sessions, and those of another case.

        Raises:
            Stop: they are.
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
        check_stated(job, self.weights(job.plan.case), sessions=MIN_SESSIONS)

    def _time_stored(self, job: Job, plan: SpeedPlan, found: Sessions) -> Timed:
        """One session of the quantized arm against stored ones of BF16.

        Raises:
            Stop: they are of another case.
        """
        short = found.short
        draft = self._proved(job, plan.together)
        samples, observed = self.benchmark.time_quantized(
            plan.case, job.workload, plan.number_format, found.seconds, with_short=bool(short)
        )
        check_sessions(job, found.usable, observed)
        draft = replace(draft, evidence=self._proved_run(job))
        drift = MachineDrift.between(short, samples.short_bf16, steps=SHORT_LENGTHS[0])
        reason = f"{len(found.usable)} sessions, same hardware and software{'' if drift is None else f'; {drift.text}'}"
        note = ReferenceNote(mode="stored", reason=reason, manifest=job.path, created=found.usable[-1].created)
        return Timed(replace(samples, drift=drift), note, draft)

    def _memory(self, job: Job, plan: MemoryPlan) -> Verdict:
        gate, bound = plan.gate, plan.bound
        bf16, note = self._bf16_peak(job, bound)
        draft = self._proved(job)
        peak, observed = self.benchmark.measure_memory(
            job.plan.case, job.workload, job.plan.number_format, steps=bf16.steps if bf16 is not None else None
        )
        if bf16 is not None:
            check_same_run(job, bf16.source, observed)
        evidence = self._proved_run(job)
        memory = MemoryFacts(
            peak_gib=peak.allocated_gib,
            reserved_gib=peak.reserved_gib,
            bf16_peak_gib=bf16.gib if bf16 else None,
            weight_ratio=evidence.weight_bytes / evidence.bf16_bytes,
            short_calls=bf16.short_calls if bf16 is not None else None,
        ).against(bound)
        outcome, sentence = gate.decide(memory, bound)
        deciding = memory.deciding
        return replace(
            draft,
            evidence=evidence,
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
        steps = job.plan.case.short_steps if bound.steps is CallLength.SHORT else None
        found = self._find_sessions(job)
        for session in reversed(found.usable):
            if session.peak_gib:
                reason = f"peak of {session.created[:10]}, same hardware and software"
                note = ReferenceNote(mode="stored", reason=reason, manifest=job.path, created=session.created)
                check_stated(job, self.weights(job.plan.case), sessions=1)
                return Bf16Peak.stored(session, session.peak_gib, steps), note
        reason = f"no stored peak memory of this hardware and software{found.why_not or ''}"
        if self.mode is Reference.STORED or (self.strict and self.mode is not Reference.LIVE):
            self._offer_move(job)
            raise Stop(Outcome.MISSING, f"{reason}; refresh it")
        short, full = self.benchmark.measure_bf16(job.plan.case, job.workload, steps=steps)
        reason = LIVE if self.mode is Reference.LIVE else reason
        return Bf16Peak.live(short, full, steps), ReferenceNote(mode="live", reason=reason)

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
        conditions = self.benchmark.conditions(job.plan.case)
        here = timing_fingerprint(self.fingerprint, conditions.inductor)
        usable: list[TimingSession] = []
        why_not: str | None = None
        for session in job.manifest.sessions:
            differences = machine_differences(session, here, conditions.execution)
            if differences:
                why_not = f" (the newest that is not: {'; '.join(differences)})"
            else:
                usable.append(session)
        return Sessions(usable=tuple(usable), why_not=why_not)
