"""Which BF16 a gate is going to be compared with, as far as it is known before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_mxq.baselines.strict_json import LIVE
from pytest_mxq.environment.fingerprint import Fingerprint, hard_differences
from pytest_mxq.errors import BaselineMissingError, MxqError
from pytest_mxq.evaluation.sessions import timing_fingerprint, why_live
from pytest_mxq.evaluation.staleness import (
    case_differences,
    check_outputs,
    move_of_renamed,
    software_differences,
    timing_differences,
)
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.speed_statistics import MIN_SESSIONS
from pytest_mxq.planning.plans import CallsPlan, MemoryPlan, OutputsPlan, SpeedPlan
from pytest_mxq.planning.settings import PromptSet, Reference, Settings

if TYPE_CHECKING:
    from pytest_mxq.baselines.manifest import Manifest, TimingSession
    from pytest_mxq.baselines.store import BaselineStore
    from pytest_mxq.planning.case import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The reference of a gate.

    Attributes:
        text: which one, and why.
        reference: "stored" or "live"; None where the gate does not come to compare, or compares with nothing.
        outcome: the failure that the gate is sure to end in; None: it runs.
    """

    text: str
    reference: Literal["stored", "live"] | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Previewer:
    """Previews the references of a run.

    Attributes:
        store: the stored baselines.
        fingerprint: of this process.
    """

    settings: Settings
    store: BaselineStore
    fingerprint: Fingerprint

    def of(self, plan: OutputsPlan | CallsPlan, weights: str | None) -> Preview:
        """Return which reference a gate is going to have; ``weights``: their name, None where it is not known yet."""
        if isinstance(plan, OutputsPlan):
            return self.of_outputs(plan.case, weights)
        is_compared = isinstance(plan, SpeedPlan) or plan.bound.max_ratio is not None
        return self._of_calls(plan, weights) if is_compared else Preview(text="no reference: no bound compares with it")

    def of_outputs(self, case: Case, weights: str | None) -> Preview:
        """Return which outputs a case's gates are going to be compared with.

        Stored outputs are hashed for it, so that a damaged one is known before a model is loaded.
        """
        if self.settings.reference is Reference.LIVE:
            return _live(LIVE)
        try:
            manifest = self.store.load(case.recipe.name, case.name)
            other = case_differences(case, manifest, weights)
            if other:
                text = f"reference stale: the baseline belongs to another case: {'; '.join(other)}"
                return Preview(text=text, outcome=Outcome.STALE)
            differences = software_differences(manifest, self.fingerprint)
            if differences:
                return self._otherwise(
                    Outcome.STALE, "the baseline is of other hardware or software: " + "; ".join(differences)
                )
            check_outputs(self.store, manifest)
        except BaselineMissingError:
            return self._without_baseline(case, weights)
        except MxqError as error:
            text = f"baseline unusable: {getattr(error, 'problem', error)}"
            return Preview(text=text, outcome=Outcome.ERROR)
        agreement = _agreement(self.settings, case, manifest, weights)
        text = f"reference stored {manifest.created[:10]}, {manifest.contents}, {agreement}"
        return Preview(text=text, reference="stored")

    @property
    def _falls_back(self) -> bool:
        return self.settings.reference is Reference.AUTO and not self.settings.strict

    def _otherwise(self, outcome: Outcome, reason: str) -> Preview:
        """Return BF16 of this run where that may serve, otherwise the failure."""
        return _live(reason) if self._falls_back else Preview(text=f"reference {outcome}: {reason}", outcome=outcome)

    def _without_baseline(self, case: Case, weights: str | None) -> Preview:
        move = move_of_renamed(self.store, case, weights)
        renamed = "" if move is None else f"; a renamed test's may be moved: {move}"
        if self._falls_back:
            return Preview(text=f"no stored baseline; reference live{renamed}", reference="live")
        return Preview(text=f"no stored baseline; reference missing{renamed}", outcome=Outcome.MISSING)

    def _of_calls(self, plan: CallsPlan, weights: str | None) -> Preview:
        """Return whether a gate of speed or memory is going to use stored sessions of BF16."""
        is_memory = isinstance(plan, MemoryPlan)
        reference = self.settings.reference
        if reference is Reference.LIVE:
            return _live(f"--mxq-reference={reference}")
        manifest = self._manifest(plan.case)
        sessions = [session for session in manifest.sessions if self._is_comparable(session)] if manifest else []
        if reference is Reference.AUTO and isinstance(plan, SpeedPlan):
            return self._of_auto(plan, weights, manifest, sessions)
        found = sum(1 for session in sessions if session.peak_gib) if is_memory else len(sessions)
        needed, what = (1, "stored peaks") if is_memory else (MIN_SESSIONS, "stored timing sessions")
        if found < needed:
            reason = f"{found} {what} of this hardware and software, {needed} needed"
            is_live = is_memory and self._falls_back
            return _live(reason) if is_live else Preview(text=f"reference missing: {reason}", outcome=Outcome.MISSING)
        other = timing_differences(plan.case, manifest, weights) if manifest else ()
        if other:
            return Preview(text=f"reference stale: {'; '.join(other)}", outcome=Outcome.STALE)
        return Preview(text=f"reference stored: {found} {what}", reference="stored")

    def _of_auto(
        self, plan: SpeedPlan, weights: str | None, manifest: Manifest | None, sessions: list[TimingSession]
    ) -> Preview:
        """Return whether stored sessions may decide a speed gate; a run finds out whether the machine is as fast."""
        other = timing_differences(plan.case, manifest, weights) if manifest else ()
        reason = why_live(sessions, plan.bound) or "; ".join(other)
        if reason:
            return _live(reason)
        text = f"reference stored: {len(sessions)} stored timing sessions, if short calls of BF16 are as fast as then"
        return Preview(text=text, reference="stored")

    def _manifest(self, case: Case) -> Manifest | None:
        try:
            return self.store.load(case.recipe.name, case.name)
        except MxqError:
            return None

    def _is_comparable(self, session: TimingSession) -> bool:
        """Tell whether a session is of this hardware and software; Inductor's configuration is torch's to tell."""
        here = timing_fingerprint(self.fingerprint, session.fingerprint.hard.get("inductor", ""))
        return bool(session.calls) and not hard_differences(session.fingerprint, here)


def _live(reason: str) -> Preview:
    return Preview(text=f"reference live: {reason}", reference="live")


def _agreement(settings: Settings, case: Case, manifest: Manifest, weights: str | None) -> str:
    """Return what agrees, or what only a run can compare."""
    lacking = [name for name in settings.formats if settings.strict and name not in manifest.selections]
    if lacking:
        return f"no record of the layers of {', '.join(lacking)}: stale for {'it' if len(lacking) == 1 else 'them'}"
    later = ["calls", "drift"]
    later += ["weights"] if weights is None else []
    later += ["prompts"] if isinstance(case.settings.prompts, PromptSet) else []
    return f"same hardware and software; {', '.join(later[:-1])} and {later[-1]} are compared as it runs"
