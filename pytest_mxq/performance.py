"""The path of speed and memory gates, from a plan to its verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import SystemRandom
from typing import TYPE_CHECKING

import msgspec

from pytest_mxq.baselines.fingerprint import Fingerprint, hard_differences
from pytest_mxq.baselines.schema import Identity, Manifest, TimingSession, identity_differences
from pytest_mxq.errors import MxqError
from pytest_mxq.gates.bounds import MemoryBound, SpeedBound
from pytest_mxq.gates.evidence import judge_evidence
from pytest_mxq.gates.performance import AUTO_SESSIONS, decide, decide_memory, estimate, is_trusted
from pytest_mxq.gates.statistics import MIN_SESSIONS
from pytest_mxq.gates.verdict import Outcome, ReferenceNote, Stop, Verdict
from pytest_mxq.protocols import Stopwatch, Workload
from pytest_mxq.settings import Reference

if TYPE_CHECKING:
    from pytest_mxq.cases import Case, Plan
    from pytest_mxq.formats import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one gate is to be judged on: the case's arms, its workload, and the stored baseline if there is one."""

    case: Case
    number_format: Format
    workload: Workload
    draft: Verdict
    manifest: Manifest | None
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """Judges speed and memory.

    Attributes:
        alpha: level of each one-sided bound of a speedup.
        device_gib: memory of the device; None: not known.
    """

    stopwatch: Stopwatch
    fingerprint: Fingerprint
    reference: Reference
    strict: bool
    alpha: float
    device_gib: float | None = None

    def judge(self, plan: Plan, workload: Workload, draft: Verdict, manifest: Manifest | None, path: str) -> Verdict:
        """The verdict of a speed or memory gate.

        Args:
            plan: a plan of such a gate.
            workload: the test's body.
            draft: the verdict so far.
            manifest: the stored baseline, if there is one.
            path: where it lies.
        """
        case, number_format, bound = plan.case, plan.number_format, plan.bound
        if case is None or number_format is None:
            raise MxqError(f"{plan.cell.nodeid} has no gate")
        self._check_room(case)
        evidence = self.stopwatch.evidence(case, number_format)
        stored = manifest.selections.get(number_format.name) if manifest is not None else None
        wrong = judge_evidence(evidence, min_share=case.min_share, stored=stored)
        if wrong is not None:
            raise Stop(*wrong, evidence=evidence)
        job = Job(
            case=case,
            number_format=number_format,
            workload=workload,
            draft=replace(draft, evidence=evidence),
            manifest=manifest,
            path=path,
        )
        if isinstance(bound, SpeedBound):
            return self._judge_speed(job, bound)
        if isinstance(bound, MemoryBound):
            return self._judge_memory(job, bound)
        raise MxqError(f"{plan.cell.nodeid} has no bound of speed or memory")

    def _check_room(self, case: Case) -> None:
        """Find out before loading that both arms do not fit.

        Raises:
            Stop: with the numbers.
        """
        memory = case.recipe.memory
        if memory is None or self.device_gib is None:
            return
        batch_size = case.settings.batch_size
        need = memory.both_arms(batch_size, random=case.random_weights)
        if need > self.device_gib:
            raise Stop(
                Outcome.ENVIRONMENT,
                f"both arms of {case.recipe.name} at batch size {batch_size} need about {need:.0f} GiB and the device "
                f"has {self.device_gib:.0f}; nothing was loaded. A device of {need:.0f} GiB or a smaller batch does",
            )

    def _judge_speed(self, job: Job, bound: SpeedBound) -> Verdict:
        case, number_format, workload = job.case, job.number_format, job.workload
        manifest, path = job.manifest, job.path
        sessions, why_not = self._sessions(manifest)
        samples, note = None, ReferenceNote(mode="live", reason=why_not, manifest=path if manifest else "")
        if not why_not:
            samples, identity = self.stopwatch.time_quantized(case, workload, number_format, sessions)
            _check_identity(manifest, identity)
            reason = f"{len(sessions)} sessions, same hardware and software"
            note = ReferenceNote(mode="stored", reason=reason, manifest=path)
            if self.reference is Reference.AUTO and not samples.environment:
                found = estimate(samples, alpha=self.alpha)
                if not is_trusted(len(sessions), found):
                    samples = None
                    reason = f"the {len(sessions)} stored sessions give a half-width of {found.half_width:.1%}"
                    note = ReferenceNote(mode="live", reason=reason, manifest=path)
        if samples is None:
            seed = SystemRandom().randrange(2**31)
            live, _ = self.stopwatch.time_live(case, workload, number_format, alpha=self.alpha, seed=seed)
            samples = replace(live, sessions=sessions)
        outcome, sentence, facts = decide(samples, bound, alpha=self.alpha)
        return replace(
            job.draft,
            outcome=outcome,
            sentence=sentence,
            observed=facts.speedup if facts else None,
            bound=bound.speedup,
            speed=facts,
            reference=note,
        )

    def _sessions(self, manifest: Manifest | None) -> tuple[tuple[tuple[float, ...], ...], str]:
        """The stored sessions that can be used here, and why they are not enough (empty: they are).

        Raises:
            Stop: stored ones were asked for, and there are too few.
        """
        if self.reference is Reference.LIVE:
            return (), "--mxq-reference=live"
        usable = tuple(session.seconds for session in self._comparable(manifest))
        found = manifest.sessions if manifest is not None else ()
        wanted = MIN_SESSIONS if self.reference is Reference.STORED else AUTO_SESSIONS
        if len(usable) >= wanted:
            return usable, ""
        text = (
            f"{len(usable)} of {len(found)} stored timing sessions are of this hardware and software, wanted {wanted}"
        )
        if self.reference is Reference.STORED or (self.strict and len(usable) < MIN_SESSIONS):
            raise Stop(
                Outcome.MISSING, f"{text}; add some: pytest --mxq-refresh --mxq-refresh-sessions={wanted - len(usable)}"
            )
        return usable, text

    def _judge_memory(self, job: Job, bound: MemoryBound) -> Verdict:
        case, number_format, workload = job.case, job.number_format, job.workload
        manifest, path = job.manifest, job.path
        peak, reason = self._stored_peak(manifest)
        memory, identity = self.stopwatch.weigh(case, workload, number_format, peak)
        if peak is not None:
            _check_identity(manifest, identity)
        outcome, sentence = decide_memory(memory, bound)
        return replace(
            job.draft,
            outcome=outcome,
            sentence=sentence,
            observed=memory.ratio,
            bound=bound.max_ratio,
            memory=memory,
            reference=ReferenceNote(
                mode="stored" if peak else "live", reason=reason, manifest=path if manifest is not None else ""
            ),
        )

    def _stored_peak(self, manifest: Manifest | None) -> tuple[float | None, str]:
        if self.reference is Reference.LIVE:
            return None, "--mxq-reference=live"
        usable = [session for session in self._comparable(manifest) if session.peak_gib]
        if usable:
            return usable[-1].peak_gib, f"peak of {usable[-1].created[:10]}, same hardware and software"
        if self.reference is Reference.STORED or self.strict:
            raise Stop(Outcome.MISSING, "no stored peak memory of this hardware and software: pytest --mxq-refresh")
        return None, "no stored peak memory of this hardware and software"

    def _comparable(self, manifest: Manifest | None) -> list[TimingSession]:
        """The stored sessions of this hardware, software and Inductor configuration."""
        if manifest is None:
            return []
        here = with_inductor(self.fingerprint, self.stopwatch.inductor_digest())
        return [session for session in manifest.sessions if not hard_differences(session.fingerprint, here)]


def with_inductor(fingerprint: Fingerprint, digest: str) -> Fingerprint:
    """The fingerprint of a timing session: Inductor's configuration belongs to it."""
    return Fingerprint(hard={**fingerprint.hard, "inductor": digest}, recorded=fingerprint.recorded)


def _check_identity(manifest: Manifest | None, observed: Identity) -> None:
    """28 steps turned into 20 must never look like a speedup.

    Raises:
        Stop: the stored sessions are of another call, other weights or another batch.
    """
    if manifest is None:
        return
    stored = manifest.identity
    calls = stored.calls if all(call in stored.calls for call in observed.calls) else observed.calls
    here = msgspec.structs.replace(observed, calls=calls, prompts=stored.prompts, execution=stored.execution)
    differences = identity_differences(stored, here)
    if differences:
        raise Stop(
            Outcome.STALE,
            f"the stored sessions belong to another case: {'; '.join(differences)}; refresh: pytest --mxq-refresh",
        )
