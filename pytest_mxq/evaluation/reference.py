"""What a gate compares with: stored BF16 outputs where they agree, or BF16 of this run; stale by reference drift."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic

import msgspec

from pytest_mxq.baselines.manifest import Identity, Manifest, Selection, identity_differences
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.baselines.strict_json import LIVE
from pytest_mxq.baselines.work import chunk_differences
from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.errors import BaselineMissingError
from pytest_mxq.evaluation.drift import bit_identical, farthest
from pytest_mxq.evaluation.protocols import Generator, O, Scorer, Workload
from pytest_mxq.evaluation.staleness import (
    KnownWeights,
    case_differences,
    check_outputs,
    move_of_renamed,
    software_differences,
)
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.verdict import Drift, ReferenceNote
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.settings import Reference

if TYPE_CHECKING:
    from pytest_mxq.gates.base import DriftCheck
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.plans import OutputsPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceOutputs(Generic[O]):
    """The BF16 images or videos of a case and where they come from.

    Attributes:
        outputs: what is compared with.
        observed: what BF16 generated in this run: the drift check's, or the outputs themselves.
        manifest: the stored baseline; None where BF16 ran in this run.
    """

    outputs: O
    observed: O
    note: ReferenceNote
    manifest: Manifest | None


@dataclass(slots=True, kw_only=True)
class References(Generic[O]):
    """Finds the reference of each case of a session; what several gates need is generated once.

    Attributes:
        backend: generates.
        scorer: tells drift.
        mode: where the reference comes from.
        strict: whether a fallback fails.
        weights: tells the name of a case's weights, where it is known before they are loaded.
    """

    backend: Generator[O]
    scorer: Scorer[O]
    store: BaselineStore
    fingerprint: Fingerprint
    mode: Reference
    strict: bool
    weights: KnownWeights
    _live: dict[tuple[str, ...], O] = field(default_factory=dict)
    _drift_checks: dict[tuple[str, ...], O] = field(default_factory=dict)
    _stored: dict[tuple[str, ...], tuple[Manifest, O]] = field(default_factory=dict)

    def forget(self) -> None:
        """Forget the outputs of every case."""
        self._live.clear()
        self._drift_checks.clear()
        self._stored.clear()

    def manifest(self, case: Case) -> Manifest | BaselineMissingError | None:
        """Return the stored baseline; None where none is wanted; the error where it is missing.

        Raises:
            BaselineError: it is there and cannot be used, or it is missing and nothing else serves.
        """
        if self.mode is Reference.LIVE:
            return None
        try:
            return self.store.load(case.recipe.name, case.name)
        except BaselineMissingError as error:
            if self.strict or self.mode is Reference.STORED:
                error.command = move_of_renamed(self.store, case, self.weights(case))
                raise
            return error

    def check(self, plan: OutputsPlan, manifest: Manifest | BaselineMissingError | None) -> tuple[str, ...]:
        """Compare a baseline with what is known before a model is loaded; return in what hardware or software differ.

        Raises:
            Stop: the baseline is of other prompts or weights, another seed, batch size or execution mode; or it is
                stale by hardware or software, and nothing else serves.
            BaselineInvalidError: an output that is compared with is missing or altered.
        """
        if not isinstance(manifest, Manifest):
            return ()
        _check_same_case(case_differences(plan.case, manifest, self.weights(plan.case)))
        differences = software_differences(manifest, self.fingerprint)
        if differences:
            self._refuse_drifted(self._note(plan.case, manifest, _other_software(differences)))
        else:
            self._stored_outputs(plan.case, manifest)
        return differences

    def selection(self, plan: OutputsPlan, manifest: Manifest | None) -> Selection | None:
        """Return the layers that the baseline recorded for a plan's format; None without a usable baseline.

        Raises:
            Stop: under ``--mxq-strict``, the baseline holds no such record.
        """
        stored = manifest.selections.get(plan.number_format.name) if manifest is not None else None
        if manifest is not None and stored is None and self.strict:
            text = f"the baseline holds no record of the layers of {plan.number_format.name}; refresh it"
            raise Stop(Outcome.STALE, text)
        return stored

    def find(
        self,
        plan: OutputsPlan,
        manifest: Manifest | BaselineMissingError | None,
        differences: tuple[str, ...],
        workload: Workload,
    ) -> ReferenceOutputs[O]:
        """Return the reference of a plan.

        Args:
            plan: the plan.
            manifest: as `manifest` returned it.
            differences: as `check` returned them.
            workload: the test's body.

        Raises:
            Stop: the baseline belongs to another case, it has drifted and nothing else serves, or BF16 is degenerate.
        """
        case = plan.case
        if manifest is None:
            return self._live_reference(case, workload, ReferenceNote(mode="live", reason=LIVE))
        if isinstance(manifest, BaselineMissingError):
            return self._live_reference(case, workload, ReferenceNote(mode="live", reason="no stored baseline"))
        if differences:
            return self._drifted(case, workload, self._note(case, manifest, _other_software(differences)))
        regenerated = self._drift_check(case, workload)
        self._check_identity(manifest, regenerated)
        stored = self._stored_outputs(case, manifest)
        same = stored.subset(regenerated.positions)
        _check_same_case(same.differences(regenerated))
        found = [(check, farthest(self.scorer, check.gate, same, regenerated)) for check in plan.drift_checks]
        drift = tuple(Drift(gate=check.gate.name, value=value, limit=check.limit) for check, value in found)
        beyond = [_shown(check, value, with_limit=True) for check, value in found if not check.allows(value)]
        if beyond:
            reason = f"regenerated BF16 outputs differ from the stored {stored.noun}s by {', '.join(beyond)}"
            return self._drifted(case, workload, replace(self._note(case, manifest, reason), drift=drift))
        by = ", ".join(_shown(check, value) for check, value in found)
        agreement = "are bit-identical" if bit_identical(same, regenerated) else f"differ by {by}"
        floor = manifest.noise_floor
        note = replace(
            self._note(case, manifest, f"same hardware and software; regenerated BF16 outputs {agreement}"),
            drift=drift,
            noise_gate=floor.gate if floor else None,
            noise_repeat=floor.repeat if floor else None,
            noise_compiled=floor.eager_vs_compiled if floor else None,
        )
        return ReferenceOutputs(outputs=stored, observed=regenerated, note=note, manifest=manifest)

    def _drifted(self, case: Case, workload: Workload, note: ReferenceNote) -> ReferenceOutputs[O]:
        """BF16 is not what it was: stale, or in ``auto`` judged against BF16 of this run."""
        self._refuse_drifted(note)
        return self._live_reference(case, workload, replace(note, mode="live"))

    def _refuse_drifted(self, note: ReferenceNote) -> None:
        if self.strict or self.mode is Reference.STORED:
            raise Stop(Outcome.STALE, f"{note.reason}; refresh it, or judge without it: {LIVE}", reference=note)

    def _live_reference(self, case: Case, workload: Workload, note: ReferenceNote) -> ReferenceOutputs[O]:
        if case.key not in self._live:
            self._live[case.key] = self.backend.generate(case, workload, ArmSpec.bf16(case), label="bf16")
        outputs = self._live[case.key]
        if outputs.faults:
            raise Stop(
                Outcome.DEGENERATE,
                f"the BF16 arm itself generates degenerate {outputs.noun}s: {outputs.faults[0].sentence}",
                reference=note,
            )
        return ReferenceOutputs(outputs=outputs, observed=outputs, note=note, manifest=None)

    def _drift_check(self, case: Case, workload: Workload) -> O:
        if case.key not in self._drift_checks:
            self._drift_checks[case.key] = self.backend.generate(
                case, workload, ArmSpec.bf16(case), label="bf16 drift check", chunks=case.drift_check_chunks
            )
        return self._drift_checks[case.key]

    def _check_identity(self, manifest: Manifest, regenerated: O) -> None:
        observed = regenerated.identity
        if all(call in manifest.identity.calls for call in observed.calls):
            # A drift check may not see every call that the case makes.
            observed = _with_calls(observed, manifest.identity)
        _check_same_case(identity_differences(manifest.identity, observed))
        _check_same_case(chunk_differences(manifest.works, manifest.identity, regenerated.work_records))

    def _note(self, case: Case, manifest: Manifest, reason: str) -> ReferenceNote:
        path = str(self.store.manifest_path(case.recipe.name, case.name))
        return ReferenceNote(
            mode="stored", reason=reason, manifest=path, created=manifest.created, fingerprint=manifest.fingerprint
        )

    def _stored_outputs(self, case: Case, manifest: Manifest) -> O:
        known = self._stored.get(case.key)
        if known is None or known[0] != manifest:
            check_outputs(self.store, manifest)
            media = self.store.read_outputs(manifest)
            known = self._stored[case.key] = (manifest, self.backend.load(media, manifest.identity))
        return known[1]


def _shown(check: DriftCheck, value: float | None, *, with_limit: bool = False) -> str:
    """Return by how much outputs drifted, such as ``lpips 0.0300`` or, with the limit, ``lpips 0.0300 > 0.0050``."""
    scale = check.gate.scale
    found = f"{check.gate.name} {scale.show(value or 0.0)}"
    return f"{found} {'<' if scale.higher_is_better else '>'} {scale.show(check.limit)}" if with_limit else found


def _check_same_case(differences: tuple[str, ...]) -> None:
    if differences:
        raise Stop(Outcome.STALE, f"the baseline belongs to another case: {'; '.join(differences)}; refresh it")


def _other_software(differences: tuple[str, ...]) -> str:
    return f"the baseline is of other hardware or software: {'; '.join(differences)}"


def _with_calls(observed: Identity, stored: Identity) -> Identity:
    return msgspec.structs.replace(observed, calls=stored.calls)
