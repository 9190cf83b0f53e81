"""Gates that score outputs: the quantized arm's images, videos or audio against BF16's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic

from pytest_mxq.baselines.manifest import Manifest, identity_differences
from pytest_mxq.baselines.work import chunk_differences
from pytest_mxq.errors import MxqError
from pytest_mxq.evaluation.changed_outputs import check_same_changes, judge_originals
from pytest_mxq.evaluation.comparisons import (
    MAX_COMPARISONS,
    MAX_SHOWN,
    Comparisons,
    ComparisonWriter,
    Spot,
    prompt_of,
    worst_spots,
)
from pytest_mxq.evaluation.protocols import Generator, O, Scorer, Workload
from pytest_mxq.evaluation.reference import ReferenceOutputs, References
from pytest_mxq.gates.base import AccuracyGate
from pytest_mxq.gates.evidence import USUAL_FOREIGN_SHARE, Evidence, judge_evidence, judge_run
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.scores import Scores, decide, summarize
from pytest_mxq.planning.arms import ArmSpec

if TYPE_CHECKING:
    from pytest_mxq.gates.verdict import OutputFacts, Verdict
    from pytest_mxq.planning.plans import OutputsPlan


MAX_IDENTICAL_SHARE = 0.25
"""Share of outputs that may be bit-identical to BF16's: a format that changes nothing was not applied."""


@dataclass(slots=True, kw_only=True)
class AccuracyStrategy(Generic[O]):
    """Judges gates of generated outputs; what several gates of a format need is generated once.

    Attributes:
        backend: builds arms and generates.
        scorer: compares their outputs.
        references: finds what to compare with.
        write_comparison: writes a comparison image and returns its path.
    """

    backend: Generator[O]
    scorer: Scorer[O]
    references: References[O]
    write_comparison: ComparisonWriter
    _quantized: tuple[object, O] | None = None
    _model: str = ""

    def evaluate(self, plan: OutputsPlan, workload: Workload, draft: Verdict) -> Verdict:
        """Return the verdict of a gate of outputs.

        Raises:
            Stop: there is no proof of quantization, the outputs must not be compared, or the reference is missing.
            MxqError: it could not be done.
        """
        gate = plan.gate
        self._forget_other_models(plan)
        manifest = self.references.manifest(plan.case)
        differences = self.references.check(plan, manifest)
        usable = manifest if isinstance(manifest, Manifest) and not differences else None
        evidence = self._proved(plan, usable)
        reference = self.references.find(plan, manifest, differences, workload)
        facts: OutputFacts = {"evidence": evidence, "reference": reference.note}
        quantized = self._generate_quantized(plan, workload)
        facts["evidence"] = quantized.evidence
        facts["cautions"] = _cautions(plan, reference, quantized)
        self._check_outputs(plan, reference, quantized, facts)
        scores = self._score(gate, reference.outputs, quantized)
        outcome, sentence = decide(gate.scale, scores, plan.bound)
        if not outcome.is_failure:
            found = judge_originals(self.scorer, plan, reference.observed, quantized, facts)
            facts["cautions"] = (*facts["cautions"], *found)
        sheets, count = (MAX_COMPARISONS, MAX_SHOWN) if outcome.is_failure else (1, 1)
        spots = worst_spots(gate, scores, sheets=sheets, count=count)
        played = next(iter(spots)) if outcome.is_failure else None
        facts |= self._comparisons.of(plan, (reference.outputs, quantized), spots, played)
        return replace(
            draft,
            outcome=outcome,
            sentence=sentence,
            observed=scores.mean,
            bound=plan.bound.mean,
            worst_bound=plan.bound.worst,
            worst_prompt=prompt_of(plan.case, quantized, scores.worst_index // scores.frames),
            scores=scores,
            **facts,
        )

    def _forget_other_models(self, plan: OutputsPlan) -> None:
        if self._model != plan.case.recipe.name:
            self.references.forget()
            self._quantized = None
            self._model = plan.case.recipe.name

    def _proved(self, plan: OutputsPlan, manifest: Manifest | None) -> Evidence:
        stored = self.references.selection(plan, manifest)
        evidence = self.backend.evidence(plan.case, ArmSpec.quantized(plan))
        wrong = judge_evidence(evidence, min_share=plan.case.min_share, stored=stored)
        if wrong is not None:
            raise Stop(*wrong, evidence=evidence)
        return evidence

    def _generate_quantized(self, plan: OutputsPlan, workload: Workload) -> O:
        key = (plan.case.key, plan.cell.format, plan.emulated)
        if self._quantized is None or self._quantized[0] != key:
            arm = ArmSpec.quantized(plan)
            self._quantized = (key, self.backend.generate(plan.case, workload, arm, label=arm.name))
        return self._quantized[1]

    def _score(self, gate: AccuracyGate, reference: O, quantized: O) -> Scores:
        values = self.scorer.score(gate, reference, quantized)
        count = len(quantized.positions)
        if not values or len(values) % count:
            raise MxqError(
                f"the gate {gate.name!r} returned {len(values)} values for {count} {quantized.noun}s; its score must "
                f"return one for each {quantized.noun}, or one for each frame"
            )
        return summarize(values, higher_is_better=gate.scale.higher_is_better, frames=len(values) // count)

    def _check_outputs(
        self,
        plan: OutputsPlan,
        reference: ReferenceOutputs[O],
        quantized: O,
        facts: OutputFacts,
    ) -> None:
        """End here if the two sets must not be compared: another workload, degenerate, or the same."""
        _check_same_calls(plan.cell.format, reference, quantized, facts)
        if quantized.evidence is not None:
            known = _has_layer_calls(reference)
            wrong = judge_run(
                quantized.evidence,
                native=not plan.emulated,
                weight_only=plan.number_format.weight_only,
                layers_compared=known,
            )
            wrong = wrong or judge_evidence(quantized.evidence, min_share=plan.case.min_share, stored=None)
            if wrong is not None:
                raise Stop(*wrong, **facts)
        _check_same_work(reference, quantized, facts)
        changed = reference.outputs.differences(quantized)
        if changed:
            raise Stop(Outcome.DEGENERATE, f"{plan.cell.format} against BF16: {'; '.join(changed)}", **facts)
        if quantized.faults:
            spots = {Spot(fault.output): fault.sentence for fault in quantized.faults[:MAX_COMPARISONS]}
            facts |= self._comparisons.of(plan, (reference.outputs, quantized), spots, next(iter(spots)))
            sentence = "; ".join(
                f"{fault.sentence} ({quantized.noun} {fault.output}: {prompt_of(plan.case, quantized, fault.output)!r})"
                for fault in quantized.faults
            )
            raise Stop(Outcome.DEGENERATE, sentence, **facts)
        same, count = reference.outputs.identical_positions(quantized), len(quantized.positions)
        if len(same) > MAX_IDENTICAL_SHARE * count:
            spots = {Spot(quantized.positions.index(position)): "bit-identical" for position in same[:MAX_COMPARISONS]}
            facts |= self._comparisons.of(plan, (reference.outputs, quantized), spots, next(iter(spots)))
            raise Stop(
                Outcome.NOT_QUANTIZED,
                f"{len(same)} of {count} {quantized.noun}s of {plan.cell.format} are bit-identical to BF16's: "
                "quantization had no effect on them",
                **facts,
            )
        if same:
            text = f"{len(same)} of {count} {quantized.noun}s are bit-identical to BF16's (index {same[0]} first)"
            facts["cautions"] = (*facts["cautions"], text)
        check_same_changes(plan.cell.format, reference.observed, quantized, facts)
        _check_stored_work(reference, quantized, facts)

    @property
    def _comparisons(self) -> Comparisons[O]:
        return Comparisons(scorer=self.scorer, write=self.write_comparison)


def _cautions(plan: OutputsPlan, reference: ReferenceOutputs[Any], quantized: Any) -> tuple[str, ...]:
    """Return what is worth a look: changes that the test made to the pipeline, sections that no digest covers."""
    changes = dict.fromkeys((*reference.observed.changes, *quantized.changes))
    texts = [f"the test changed the pipeline: {what}" for what in changes]
    run = quantized.evidence.run if quantized.evidence is not None else None
    if run is not None and run.foreign_share > USUAL_FOREIGN_SHARE:
        texts.append(f"{run.foreign_share:.1%} of the arithmetic was with weights that belong to no denoiser")
    if run is not None and run.beside_share > USUAL_FOREIGN_SHARE:
        texts.append(
            f"{run.beside_share:.1%} of the arithmetic was outside of the denoiser's calls, with weights that belong "
            "to no component"
        )
    if reference.manifest is not None and not reference.manifest.is_covered:
        texts.append("the baseline is of schema version 1: no digest covers selections, noise floor and fingerprint")
    if reference.manifest is not None and plan.cell.format not in reference.manifest.selections:
        texts.append(f"the baseline holds no record of the layers of {plan.cell.format}; refresh it")
    return tuple(texts)


def _has_layer_calls(reference: ReferenceOutputs[Any]) -> bool:
    """Return whether the layer calls of BF16 are known for every output that is judged."""
    stored = reference.manifest
    works = stored.works if stored is not None else tuple(reference.observed.work_records.values())
    return bool(works) and all(work.layer_calls for work in works)


def _check_same_calls(arm: str, reference: ReferenceOutputs[O], quantized: O, facts: OutputFacts) -> None:
    bf16, here = reference.outputs.identity, quantized.identity
    if (bf16.width, bf16.height) != (here.width, here.height):  # BF16 of this run had the stored size
        raise Stop(
            Outcome.ERROR,
            f"the test generates {quantized.noun}s of {here.width} x {here.height} pixels on the {arm} arm and of "
            f"{bf16.width} x {bf16.height} on the BF16 arm; its body must do the same on every arm",
            **facts,
        )
    differences = identity_differences(bf16, here)
    if differences:
        stored = reference.manifest is not None
        raise Stop(
            Outcome.STALE if stored else Outcome.ERROR,
            f"the workload did not do what it did for the BF16 {reference.outputs.noun}s: {'; '.join(differences)}; "
            + ("refresh the baseline" if stored else "it must do the same on every arm"),
            **facts,
        )


def _check_same_work(reference: ReferenceOutputs[O], quantized: O, facts: OutputFacts) -> None:
    work = reference.observed.work_differences(quantized)
    if work:
        raise Stop(
            Outcome.ERROR,
            f"the quantized arm did other work than BF16 in this run (BF16 -> quantized): {'; '.join(work)}; the "
            "test's body must do the same on every arm",
            **facts,
        )


def _check_stored_work(reference: ReferenceOutputs[O], quantized: O, facts: OutputFacts) -> None:
    """Compare the chunks that BF16 did not generate in this run, of which numbers and digests alone are stored."""
    stored = reference.manifest
    work = chunk_differences(stored.works, stored.identity, quantized.work_records) if stored is not None else ()
    if work:
        raise Stop(
            Outcome.ERROR,
            f"the quantized arm did other work than BF16 when it was stored (BF16 -> quantized): {'; '.join(work)}; "
            "the test's body must do the same on every arm; if it was changed since, refresh the baseline",
            **facts,
        )
