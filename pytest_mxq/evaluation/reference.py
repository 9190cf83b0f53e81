"""What a gate compares with: stored BF16 outputs where they agree, or BF16 of this run; stale where BF16 has moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from math import isnan, nan
from typing import TYPE_CHECKING, Any, Generic

import msgspec

from pytest_mxq.baselines.manifest import Identity, LpipsInfo, Manifest, Selection, identity_differences
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.environment.fingerprint import Fingerprint, hard_differences
from pytest_mxq.errors import BaselineInvalidError, BaselineMissingError, MxqError
from pytest_mxq.evaluation.protocols import Backend, O, Workload
from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.verdict import ReferenceNote
from pytest_mxq.metrics.lpips_weights import WEIGHTS_SHA256
from pytest_mxq.planning.arms import ArmSpec
from pytest_mxq.planning.settings import Reference, Settings

if TYPE_CHECKING:
    from pytest_mxq.gates.base import AccuracyGate
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.plans import GatePlan

REFRESH_COMMAND = "pytest --mxq-refresh"


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
        mode: where the reference comes from.
        strict: whether a fallback fails.
    """

    backend: Backend[O]
    store: BaselineStore
    fingerprint: Fingerprint
    mode: Reference
    strict: bool
    _live: dict[tuple[str, str], O] = field(default_factory=dict)
    _drift_checks: dict[tuple[str, str], O] = field(default_factory=dict)
    _stored: dict[tuple[str, str], tuple[Manifest, O]] = field(default_factory=dict)

    def forget(self) -> None:
        """Forget the outputs of every case."""
        self._live.clear()
        self._drift_checks.clear()
        self._stored.clear()

    def manifest(self, case: Case) -> Manifest | BaselineMissingError | None:
        """Return the stored baseline; None where none is wanted; the error where it is missing.

        Raises:
            Stop: it is there and cannot be used, or it is missing and nothing else serves.
        """
        if self.mode is Reference.LIVE:
            return None
        try:
            return self.store.load(case.recipe.name, case.name)
        except BaselineMissingError as error:
            if self.strict or self.mode is Reference.STORED:
                raise Stop(Outcome.MISSING, str(error)) from None
            return error
        except BaselineInvalidError as error:
            raise Stop(Outcome.ERROR, str(error)) from None

    def check_case(self, case: Case, manifest: Manifest | BaselineMissingError | None) -> None:
        """Compare a baseline with what the test states, before a model is loaded.

        Raises:
            Stop: the baseline is of other prompts, another seed, batch size or execution mode.
        """
        if isinstance(manifest, Manifest):
            _check_same_case(case_differences(case, manifest))

    def selection(self, plan: GatePlan, manifest: Manifest | None) -> Selection | None:
        """Return the layers that the baseline recorded for a plan's format; None without a usable baseline.

        Raises:
            Stop: under ``--mxq-strict``, the baseline holds no such record.
        """
        stored = manifest.selections.get(plan.number_format.name) if manifest is not None else None
        if manifest is not None and stored is None and self.strict:
            raise Stop(
                Outcome.STALE,
                f"the baseline holds no record of the layers of {plan.number_format.name}; refresh it: "
                f"{REFRESH_COMMAND}",
            )
        return stored

    def software_differences(self, manifest: Manifest | BaselineMissingError | None) -> tuple[str, ...]:
        """Return in what a baseline's hardware, software or LPIPS is not this run's."""
        if not isinstance(manifest, Manifest):
            return ()
        differences = hard_differences(manifest.fingerprint, self.fingerprint)
        here = lpips_info()
        return differences if manifest.lpips == here else (*differences, f"LPIPS {manifest.lpips} -> {here}")

    def find(
        self,
        plan: GatePlan,
        gate: AccuracyGate,
        manifest: Manifest | BaselineMissingError | None,
        differences: tuple[str, ...],
        workload: Workload,
    ) -> ReferenceOutputs[O]:
        """Return the reference of a plan.

        Args:
            plan: the plan.
            gate: its gate.
            manifest: as `manifest` returned it.
            differences: as `software_differences` returned them.
            workload: the test's body.

        Raises:
            Stop: the baseline belongs to another case, BF16 has moved and nothing else serves, or BF16 is degenerate.
        """
        case = plan.case
        if manifest is None:
            return self._live_reference(case, workload, ReferenceNote(mode="live", reason="--mxq-reference=live"))
        if isinstance(manifest, BaselineMissingError):
            return self._live_reference(case, workload, ReferenceNote(mode="live", reason="no stored baseline"))
        path = str(self.store.manifest_path(case.recipe.name, case.name))
        source: Any = {"manifest": path, "created": manifest.created, "fingerprint": manifest.fingerprint}
        if differences:
            reason = f"the baseline is of other hardware or software: {'; '.join(differences)}"
            return self._drifted(case, workload, ReferenceNote(mode="stored", reason=reason, **source))
        regenerated = self._drift_check(case, workload)
        self._check_identity(case, manifest, regenerated)
        stored = self._stored_outputs(case, manifest)
        same = stored.subset(regenerated.positions)
        _check_same_case(same.differences(regenerated))
        drift = largest_lpips(self.backend, same, regenerated)
        if not drift <= plan.drift_limit:
            found = f"LPIPS {drift:.4f} > {plan.drift_limit:.4f}"
            reason = f"regenerated BF16 outputs differ from the stored {stored.noun}s by {found}"
            return self._drifted(case, workload, ReferenceNote(mode="stored", reason=reason, drift=drift, **source))
        own = self._own_drift(plan, gate, same, regenerated)
        if own is not None:
            return self._drifted(case, workload, ReferenceNote(mode="stored", reason=own, drift=drift, **source))
        said = "are bit-identical" if same.equals(regenerated) else f"differ by LPIPS {drift:.4f}"
        floor = manifest.noise_floor
        note = ReferenceNote(
            mode="stored",
            reason=f"same hardware and software; regenerated BF16 outputs {said}",
            drift=drift,
            noise_repeat=floor.repeat if floor else None,
            noise_compiled=floor.eager_vs_compiled if floor else None,
            **source,
        )
        return ReferenceOutputs(outputs=stored, observed=regenerated, note=note, manifest=manifest)

    def _drifted(self, case: Case, workload: Workload, note: ReferenceNote) -> ReferenceOutputs[O]:
        """BF16 is not what it was: stale, or in ``auto`` judged against BF16 of this run."""
        if self.strict or self.mode is Reference.STORED:
            raise Stop(Outcome.STALE, f"{note.reason}; refresh the baseline: {REFRESH_COMMAND}", reference=note)
        return self._live_reference(case, workload, replace(note, mode="live"))

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

    def _check_identity(self, case: Case, manifest: Manifest, regenerated: O) -> None:
        observed = regenerated.identity
        if all(call in manifest.identity.calls for call in observed.calls):
            # A drift check may not see every call that the case makes.
            observed = _with_calls(observed, manifest.identity)
        _check_same_case(identity_differences(manifest.identity, observed))
        expected = len(case.prompts) * observed.images_per_prompt
        if len(manifest.outputs) != expected:
            raise Stop(Outcome.ERROR, f"the baseline holds {manifest.contents} for {expected}")

    def _stored_outputs(self, case: Case, manifest: Manifest) -> O:
        known = self._stored.get(case.key)
        if known is None or known[0] != manifest:
            try:
                media = self.store.read_outputs(manifest)
            except (BaselineInvalidError, BaselineMissingError) as error:
                raise Stop(Outcome.ERROR, str(error)) from None
            known = self._stored[case.key] = (manifest, self.backend.load(media, manifest.identity))
        return known[1]

    def _own_drift(self, plan: GatePlan, gate: AccuracyGate, stored: O, regenerated: O) -> str | None:
        """Return how BF16 has moved on a gate's own scale, such as that of audio; None: it has not."""
        if gate.drift_limit is None or gate is LPIPS:
            return None
        limit = gate.drift_limit(plan.bound)
        values = self.backend.score(gate, stored, regenerated)
        if all(value <= limit for value in values):
            return None
        shown = ", ".join(map(gate.scale.show, values))
        return (
            f"regenerated BF16 outputs differ from the stored ones in {gate.name}: {shown} > {gate.scale.show(limit)}"
        )


def case_differences(case: Case, manifest: Manifest) -> tuple[str, ...]:
    """Return in what a baseline is of another case, as far as the test states it: no model is needed to know."""
    stored = manifest.identity
    stated = msgspec.structs.replace(
        stored,
        prompts=case.prompts or stored.prompts,  # a named set is fetched later
        seed=case.settings.seed,
        batch_size=case.settings.batch_size,
        execution=case.settings.execution.value,
    )
    # Random weights store times alone, of the timed arms' execution.
    return () if case.random_weights else identity_differences(stored, stated)


def preview_line(
    settings: Settings, case: Case, load: Callable[[], Manifest], fingerprint: Callable[[], Fingerprint]
) -> str:
    """Return which reference a case is going to have here, and why, as far as it is known before it runs.

    Args:
        settings: what was asked for.
        case: the case.
        load: reads the case's baseline, or raises what is wrong with it.
        fingerprint: tells hardware and software; asked only if there is a baseline.
    """
    if settings.reference is Reference.LIVE:
        return "reference live (--mxq-reference=live)"
    is_live = settings.reference is Reference.AUTO and not settings.strict
    try:
        manifest = load()
    except BaselineMissingError:
        return f"no stored baseline; reference {'live' if is_live else 'missing'}"
    except MxqError as error:
        return f"baseline unusable: {error}"
    other = case_differences(case, manifest)
    if other:
        return f"reference stale: the baseline belongs to another case: {'; '.join(other)}"
    differences = hard_differences(manifest.fingerprint, fingerprint())
    if differences:
        what = "live" if is_live else "stale"
        return f"reference {what}: the baseline is of other hardware or software: {'; '.join(differences)}"
    return f"reference stored {manifest.created[:10]}, {manifest.contents}, same hardware and software"


def lpips_info() -> LpipsInfo:
    """Return what LPIPS is computed with here."""
    return LpipsInfo(net="alex", version=version("lpips"), weights_sha256=WEIGHTS_SHA256)


def largest_lpips(backend: Backend[O], reference: O, other: O) -> float:
    """Return the largest LPIPS between outputs, 0 without computing it where they are bit-identical."""
    if reference.equals(other):
        return 0.0
    values = backend.score(LPIPS, reference, other)
    return nan if any(map(isnan, values)) else max(values)


def _check_same_case(differences: tuple[str, ...]) -> None:
    if differences:
        raise Stop(
            Outcome.STALE,
            f"the baseline belongs to another case: {'; '.join(differences)}; refresh it: {REFRESH_COMMAND}",
        )


def _with_calls(observed: Identity, stored: Identity) -> Identity:
    return msgspec.structs.replace(observed, calls=stored.calls)
