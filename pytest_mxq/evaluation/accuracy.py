"""One gate of images from start to verdict; those of speed and memory go on in `performance`.

The backend (arms and probes) arrive as an argument, so that the path can be tested without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isnan, nan
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic

import msgspec

from pytest_mxq.baselines.manifest import Identity, Manifest, identity_differences
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.environment.fingerprint import Fingerprint, hard_differences
from pytest_mxq.errors import BaselineInvalidError, BaselineMissingError, MxqError, WeightsUnavailableError
from pytest_mxq.evaluation.comparisons import (
    MAX_COMPARISONS,
    Comparisons,
    ComparisonWriter,
    Spot,
    prompt_of,
    worst_spots,
)
from pytest_mxq.evaluation.performance import Performance
from pytest_mxq.evaluation.protocols import Backend, S, Workload
from pytest_mxq.gates.accuracy import decide, summarize
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.evidence import judge_evidence
from pytest_mxq.gates.verdict import Evidence, Outcome, ReferenceNote, Stop, Verdict
from pytest_mxq.planning.settings import Reference

if TYPE_CHECKING:
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.bounds import GateKind
    from pytest_mxq.planning.case import Case, Plan

REFRESH_COMMAND = "pytest --mxq-refresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencePictures(Generic[S]):
    """The BF16 images or videos of a case and where they come from."""

    outputs: S
    note: ReferenceNote
    manifest: Manifest | None


@dataclass(slots=True, kw_only=True)
class Workflow(Generic[S]):
    """Runs gates of one session; images that several gates need are generated once."""

    backend: Backend[S]
    store: BaselineStore
    fingerprint: Fingerprint
    reference: Reference
    strict: bool
    write_comparison: ComparisonWriter
    performance: Callable[[], Performance]
    _live: dict[tuple[str, str], S] = field(default_factory=dict)
    _drift_checks: dict[tuple[str, str], S] = field(default_factory=dict)
    _stored: dict[tuple[str, str], tuple[Manifest, S]] = field(default_factory=dict)
    _quantized: tuple[object, S] | None = None
    _model: str = ""

    def judge(self, plan: Plan, workload: Workload, *, next_command: str) -> Verdict:
        """One gate, from start to verdict.

        Args:
            plan: a plan without fault or skip.
            workload: the test's body, called with (pipeline, prompt).
            next_command: the command that runs this item again.
        """
        start = perf_counter()
        draft = Verdict(
            cell=plan.cell,
            outcome=Outcome.ERROR,
            sentence="",
            emulated=plan.emulated,
            next_command=next_command,
            fingerprint=dict(self.fingerprint.hard),
        )
        try:
            if plan.kind is not None and plan.kind.family != "images":
                verdict = self._judge_performance(plan, workload, draft)
            else:
                verdict = self._judge(plan, workload, draft)
        except Stop as stop:
            verdict = replace(draft, outcome=stop.outcome, sentence=str(stop), **stop.facts)
        except WeightsUnavailableError as error:
            verdict = draft.because(Outcome.SKIPPED, str(error))
        except MxqError as error:
            verdict = draft.because(Outcome.ERROR, str(error))
        return replace(verdict, seconds=perf_counter() - start)

    def _judge_performance(self, plan: Plan, workload: Workload, draft: Verdict) -> Verdict:
        if plan.case is None:
            raise MxqError(f"{plan.cell.nodeid} has no case")
        manifest, path = None, self.store.manifest_path(plan.case.recipe.name, plan.case.name)
        if self.reference is not Reference.LIVE:
            try:
                manifest = self.store.load(plan.case.recipe.name, plan.case.name)
            except BaselineMissingError:
                manifest = None
        return self.performance().judge(plan, workload, draft, manifest, str(path))

    def _judge(self, plan: Plan, workload: Workload, draft: Verdict) -> Verdict:
        case, kind, number_format, bound = plan.case, plan.kind, plan.number_format, plan.bound
        if case is None or kind is None or number_format is None or not isinstance(bound, Bound):
            raise MxqError(f"{plan.cell.nodeid} has no gate")
        self._forget_other_models(case)
        manifest = self._manifest(case)
        differences = self._differences(manifest, kind)
        usable = manifest if isinstance(manifest, Manifest) and not differences else None
        evidence = self._proved(case, number_format, usable, emulated=plan.emulated)
        reference = self._reference(plan, case, manifest, differences, workload)
        facts: dict[str, Any] = {"evidence": evidence, "reference": reference.note}
        quantized = self._generate_quantized(plan, case, number_format, workload)
        self._check_images(plan, case, reference, quantized, facts)
        values = self.backend.score(kind.name, reference.outputs, quantized)
        frames = len(values) // len(quantized.positions)
        scores = summarize(values, higher_is_better=kind.higher_is_better, frames=frames)
        outcome, sentence = decide(kind, scores, bound)
        spots = worst_spots(kind, scores, MAX_COMPARISONS if outcome.is_failure else 1)
        return replace(
            draft,
            outcome=outcome,
            sentence=sentence,
            observed=scores.mean,
            bound=bound.mean,
            worst_bound=bound.worst,
            worst_prompt=prompt_of(case, quantized, scores.worst_index // frames),
            scores=scores,
            images=self._comparisons.of(plan, case, reference.outputs, quantized, spots),
            **facts,
        )

    def _forget_other_models(self, case: Case) -> None:
        if self._model != case.recipe.name:
            self._live.clear()
            self._drift_checks.clear()
            self._stored.clear()
            self._quantized = None
            self._model = case.recipe.name

    def _manifest(self, case: Case) -> Manifest | BaselineMissingError | None:
        """The stored baseline; None where none is wanted; the error where it is missing.

        Raises:
            Stop: it is there and cannot be used.
        """
        if self.reference is Reference.LIVE:
            return None
        try:
            return self.store.load(case.recipe.name, case.name)
        except BaselineMissingError as error:
            if self.strict or self.reference is Reference.STORED:
                raise Stop(Outcome.MISSING, str(error)) from None
            return error
        except BaselineInvalidError as error:
            raise Stop(Outcome.ERROR, str(error)) from None

    def _proved(self, case: Case, number_format: Format, manifest: Manifest | None, *, emulated: bool) -> Evidence:
        evidence = self.backend.evidence(case, number_format, emulated=emulated)
        stored = manifest.selections.get(number_format.name) if manifest is not None else None
        wrong = judge_evidence(evidence, min_share=case.min_share, stored=stored)
        if wrong is not None:
            raise Stop(*wrong, evidence=evidence)
        return evidence

    def _differences(self, manifest: Manifest | BaselineMissingError | None, kind: GateKind) -> tuple[str, ...]:
        """In what a baseline's hardware, software or LPIPS is not this run's."""
        if not isinstance(manifest, Manifest):
            return ()
        differences = hard_differences(manifest.fingerprint, self.fingerprint)
        if kind.name == "lpips" and manifest.lpips != self.backend.lpips_info():
            differences += (f"LPIPS {manifest.lpips} -> {self.backend.lpips_info()}",)
        return differences

    def _reference(
        self,
        plan: Plan,
        case: Case,
        manifest: Manifest | BaselineMissingError | None,
        differences: tuple[str, ...],
        workload: Workload,
    ) -> ReferencePictures[S]:
        if manifest is None:
            return self._live_reference(case, workload, "--mxq-reference=live")
        if isinstance(manifest, BaselineMissingError):
            return self._live_reference(case, workload, "no stored baseline")
        path = str(self.store.manifest_path(case.recipe.name, case.name))
        if differences:
            reason = f"the baseline is of other hardware or software: {'; '.join(differences)}"
            return self._moved(case, workload, reason, path)
        drift_check = self._drift_check(case, workload)
        self._check_identity(case, manifest, drift_check)
        stored = self._stored_outputs(case, manifest)
        same = self.backend.subset(stored, drift_check.positions)
        self._check_same_case(self.backend.differences(same, drift_check))
        moved = largest_lpips(self.backend, same, drift_check)
        if not moved <= plan.drift_limit:
            found = f"LPIPS {moved:.4f} > {plan.drift_limit:.4f}"
            text = f"regenerated BF16 differs from the stored {stored.noun}s by {found}"
            return self._moved(case, workload, text, path)
        if text := self._moved_audio(plan, same, drift_check):
            return self._moved(case, workload, text, path)
        note = ReferenceNote(
            mode="stored",
            reason="same hardware and software; regenerated BF16 "
            + (
                "is bit-identical" if self.backend.are_identical(same, drift_check) else f"differs by LPIPS {moved:.4f}"
            ),
            manifest=path,
            drift_check=moved,
            noise_repeat=manifest.noise_floor.repeat if manifest.noise_floor else None,
            noise_compiled=manifest.noise_floor.eager_vs_compiled if manifest.noise_floor else None,
        )
        return ReferencePictures(outputs=stored, note=note, manifest=manifest)

    def _moved(self, case: Case, workload: Workload, reason: str, path: str) -> ReferencePictures[S]:
        """BF16 is not what it was: stale, or in ``auto`` judged against BF16 of this run."""
        if self.strict or self.reference is Reference.STORED:
            note = ReferenceNote(mode="stored", reason=reason, manifest=path)
            raise Stop(Outcome.STALE, f"{reason}; refresh the baseline: {REFRESH_COMMAND}", reference=note)
        return self._live_reference(case, workload, reason, path)

    def _live_reference(self, case: Case, workload: Workload, reason: str, path: str = "") -> ReferencePictures[S]:
        if case.key not in self._live:
            self._live[case.key] = self.backend.generate(case, workload, label="bf16")
        outputs = self._live[case.key]
        note = ReferenceNote(mode="live", reason=reason, manifest=path)
        if outputs.faults:
            raise Stop(
                Outcome.DEGENERATE,
                f"the BF16 arm itself generates degenerate {outputs.noun}s: {outputs.faults[0].sentence}",
                reference=note,
            )
        return ReferencePictures(outputs=outputs, note=note, manifest=None)

    def _drift_check(self, case: Case, workload: Workload) -> S:
        if case.key not in self._drift_checks:
            chunks = case.drift_check_chunks
            self._drift_checks[case.key] = self.backend.generate(
                case, workload, label="bf16 drift check", chunks=chunks
            )
        return self._drift_checks[case.key]

    def _check_identity(self, case: Case, manifest: Manifest, drift_check: S) -> None:
        observed = drift_check.identity
        if all(call in manifest.identity.calls for call in observed.calls):
            observed = _with_calls(
                observed, manifest.identity
            )  # a drift check may not see every call that the case makes
        self._check_same_case(identity_differences(manifest.identity, observed))
        expected = len(case.prompts) * observed.images_per_prompt
        if len(manifest.outputs) != expected:
            raise Stop(Outcome.ERROR, f"the baseline holds {manifest.generated} for {expected}")

    def _check_same_case(self, differences: tuple[str, ...]) -> None:
        if differences:
            raise Stop(
                Outcome.STALE,
                f"the baseline belongs to another case: {'; '.join(differences)}; refresh it: {REFRESH_COMMAND}",
            )

    def _stored_outputs(self, case: Case, manifest: Manifest) -> S:
        known = self._stored.get(case.key)
        if known is None or known[0] != manifest:
            try:
                media = self.store.read_outputs(manifest)
            except (BaselineInvalidError, BaselineMissingError) as error:
                raise Stop(Outcome.ERROR, str(error)) from None
            known = self._stored[case.key] = (manifest, self.backend.stored(manifest, media))
        return known[1]

    def _moved_audio(self, plan: Plan, stored: S, drift_check: S) -> str:
        """For a gate on audio: how BF16's audio is not what it was; empty where it is."""
        if plan.kind is None or plan.kind.name != "audio" or not isinstance(plan.bound, Bound):
            return ""
        limit = plan.bound.mean / 4
        values = self.backend.score("audio", stored, drift_check)
        if all(value <= limit for value in values):
            return ""
        shown = ", ".join(map(plan.kind.show, values))
        return f"regenerated BF16 differs from the stored audio by {shown} > {plan.kind.show(limit)}"

    def _generate_quantized(self, plan: Plan, case: Case, number_format: Format, workload: Workload) -> S:
        key = (case.key, plan.cell.format, plan.emulated)
        if self._quantized is None or self._quantized[0] != key:
            outputs = self.backend.generate_quantized(case, workload, number_format, emulated=plan.emulated)
            self._quantized = (key, outputs)
        return self._quantized[1]

    def _check_images(
        self, plan: Plan, case: Case, reference: ReferencePictures[S], quantized: S, facts: dict[str, Any]
    ) -> None:
        """End here if the two sets of images must not be compared: another workload, degenerate, or the same."""
        differences = identity_differences(reference.outputs.identity, quantized.identity)
        if differences:
            stored = reference.manifest is not None
            raise Stop(
                Outcome.STALE if stored else Outcome.ERROR,
                f"the workload did not do what it did for the BF16 {reference.outputs.noun}s: {'; '.join(differences)}"
                + (f"; refresh the baseline: {REFRESH_COMMAND}" if stored else "; it must do the same on every arm"),
                **facts,
            )
        changed = self.backend.differences(reference.outputs, quantized)
        if changed:
            raise Stop(Outcome.DEGENERATE, f"{plan.cell.format} against BF16: {'; '.join(changed)}", **facts)
        if quantized.faults:
            spots = {Spot(fault.image): fault.sentence for fault in quantized.faults[:MAX_COMPARISONS]}
            facts["images"] = self._comparisons.of(plan, case, reference.outputs, quantized, spots)
            sentence = "; ".join(
                f"{fault.sentence} ({quantized.noun} {fault.image}: {prompt_of(case, quantized, fault.image)!r})"
                for fault in quantized.faults
            )
            raise Stop(Outcome.DEGENERATE, sentence, **facts)
        if self.backend.are_identical(reference.outputs, quantized):
            spots = {Spot(0): "bit-identical"}
            facts["images"] = self._comparisons.of(plan, case, reference.outputs, quantized, spots)
            raise Stop(
                Outcome.NOT_QUANTIZED,
                f"every {quantized.noun} of {plan.cell.format} is equal to BF16's to the bit: "
                "quantization had no effect",
                **facts,
            )

    @property
    def _comparisons(self) -> Comparisons[S]:
        return Comparisons(backend=self.backend, write=self.write_comparison)


def _with_calls(observed: Identity, stored: Identity) -> Identity:
    return msgspec.structs.replace(observed, calls=stored.calls)


def largest_lpips(backend: Backend[S], reference: S, other: S) -> float:
    """Largest LPIPS between images, 0 without computing it where they are bit-identical."""
    if backend.are_identical(reference, other):
        return 0.0
    values = backend.score("lpips", reference, other)
    return nan if any(map(isnan, values)) else max(values)
