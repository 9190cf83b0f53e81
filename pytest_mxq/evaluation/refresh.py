"""Refresh a baseline: measure the BF16 arm of a case again, and store it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

import msgspec

from pytest_mxq.baselines.manifest import (
    SCHEMA_VERSION,
    Draft,
    Identity,
    Manifest,
    NoiseFloor,
    Selection,
    TimingSession,
    identity_differences,
)
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.baselines.work import ObservedRun, WorkRecord, stored_works
from pytest_mxq.environment.fingerprint import Fingerprint, hard_differences
from pytest_mxq.errors import BaselineInvalidError, BaselineMissingError, MxqError
from pytest_mxq.evaluation.drift import bit_identical, farthest
from pytest_mxq.evaluation.protocols import Generator, O, Scorer, SessionTimer, Workload
from pytest_mxq.evaluation.sessions import session_differences, short_peak, timing_fingerprint
from pytest_mxq.evaluation.staleness import lpips_info
from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.outcome import Outcome, Stop
from pytest_mxq.gates.scores import worst_first
from pytest_mxq.planning.arms import ArmSpec

if TYPE_CHECKING:
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.measured import TimedBf16
    from pytest_mxq.gates.verdict import Verdict
    from pytest_mxq.planning.case import Case
    from pytest_mxq.planning.plans import RefreshPlan


def _utc_now() -> datetime:
    return datetime.now(UTC)


SheetWriter: TypeAlias = "Callable[[Case, Iterable[tuple[int, Any, Any]]], tuple[str, ...]]"


def _no_sheets(_case: Case, _pairs: Iterable[tuple[int, Any, Any]]) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshStrategy(Generic[O]):
    """Measures and stores the baselines of a session.

    Attributes:
        backend: generates.
        scorer: compares old and new outputs.
        device: slug of the device.
        formats: formats whose selection of layers is recorded.
        benchmark: makes what times BF16; None on a device whose timings are not stored.
        timing_only: add a timing session to what is stored and generate nothing.
        write_sheets: writes old and new images of a case's changed outputs (index, old, new), and returns the paths.
    """

    backend: Generator[O]
    scorer: Scorer[O]
    store: BaselineStore
    device: str
    fingerprint: Fingerprint
    formats: Sequence[Format]
    benchmark: Callable[[], SessionTimer] | None = None
    timing_only: bool = False
    now: Callable[[], datetime] = _utc_now
    write_sheets: SheetWriter = _no_sheets

    def evaluate(self, plan: RefreshPlan, workload: Workload, draft: Verdict) -> Verdict:
        """Measure the BF16 arm of a case and store it; the verdict's sentence says what changed, old -> new.

        Raises:
            Stop: BF16 is degenerate, or the machine is not fit to be timed on; nothing was stored.
            MxqError: it could not be done.
        """
        self.store.check_writable()
        refreshed = replace(draft, outcome=Outcome.REFRESHED)
        if self.timing_only:
            return replace(refreshed, sentence=self._add_session(plan.case, workload))
        if plan.case.random_weights:
            return replace(refreshed, sentence=self._refresh_without_outputs(plan.case, workload))
        lines, sheets = self._refresh(plan.case, workload)
        return replace(refreshed, sentence="\n".join(lines), comparisons=sheets)

    def _refresh(self, case: Case, workload: Workload) -> tuple[list[str], tuple[str, ...]]:
        """Store a baseline, unless nothing changed; return what changed, and the paths of the sheets that show it."""
        old = self._old_baseline(case)
        outputs = self.backend.generate(case, workload, ArmSpec.bf16(case), label="bf16")
        if outputs.faults:
            text = "; ".join(fault.sentence for fault in outputs.faults)
            raise Stop(Outcome.DEGENERATE, f"nothing was stored: BF16 generates degenerate {outputs.noun}s: {text}")
        noise = self._noise_floor(case, workload, outputs)
        sessions = self._sessions(case, workload, outputs.identity)
        draft = self._draft(case, outputs.identity, noise, sessions, stored_works(outputs.work_records))
        if not isinstance(old, str) and _is_unchanged(*old, draft, outputs):
            path = self.store.manifest_path(case.recipe.name, case.name)
            return [f"{case.recipe.name}/{case.name}: unchanged, nothing was written: {path}"], ()
        manifest = self.store.save(draft, outputs.to_media())
        return self._changes(case, old, manifest, outputs)

    def _refresh_without_outputs(self, case: Case, workload: Workload) -> str:
        """Random weights: timing sessions alone."""
        if self.benchmark is None:
            raise MxqError("random weights serve timings alone, and timings are stored on a CUDA device alone")
        timed = self._timed(case, workload)
        draft = self._draft(case, timed.observed.identity, None, self._with_kept(case, timed))
        self.store.save(draft, [])
        return f"{case.recipe.name}/{case.name}: {len(draft.sessions)} timing sessions, newest {_shown(timed.seconds)}"

    def _add_session(self, case: Case, workload: Workload) -> str:
        manifest = self.store.load(case.recipe.name, case.name)
        timed = self._timed(case, workload)
        here = _timeless(timed.observed, manifest)
        wrong = [text for session in manifest.sessions for text in session_differences(manifest, session, here)]
        if wrong:
            raise Stop(
                Outcome.STALE, f"nothing was added: the stored baseline is of another call ({wrong[0]}); refresh it"
            )
        sessions = _newest((*manifest.sessions, self._as_session(timed)))
        fields = {name: getattr(manifest, name) for name in Draft.__struct_fields__}
        media = self.store.read_outputs(manifest) if manifest.outputs else []
        self.store.save(Draft(**{**fields, "sessions": sessions}), media)
        return f"{case.recipe.name}/{case.name}: {len(sessions)} timing sessions"

    def _sessions(self, case: Case, workload: Workload, generated: Identity) -> tuple[TimingSession, ...]:
        """Return the stored sessions that are still of this case, and a new one where it is timed."""
        if self.benchmark is not None and case.is_timed:
            return self._with_kept(case, self._timed(case, workload))
        old = self._old_manifest(case)
        return (
            old.sessions
            if old is not None and not identity_differences(old.identity, _timeless_identity(generated, old))
            else ()
        )

    def _with_kept(self, case: Case, timed: TimedBf16) -> tuple[TimingSession, ...]:
        """Return the stored sessions of the same run on the same weights, and a new one behind them."""
        old = self._old_manifest(case)
        if old is None:
            return (self._as_session(timed),)
        here = _timeless(timed.observed, old)
        kept = [session for session in old.sessions if not session_differences(old, session, here)]
        return _newest((*kept, self._as_session(timed)))

    def _timed(self, case: Case, workload: Workload) -> TimedBf16:
        if self.benchmark is None:
            raise MxqError("this device's timings are not stored")
        return self.benchmark().time_bf16(case, workload)

    def _as_session(self, timed: TimedBf16) -> TimingSession:
        return TimingSession(
            created=self.now().isoformat(timespec="seconds"),
            execution=timed.conditions.execution,
            seconds=timed.seconds,
            peak_gib=timed.peak_gib,
            fingerprint=timing_fingerprint(self.fingerprint, timed.conditions.inductor),
            calls=timed.observed.identity.calls,
            work=timed.observed.work,
            short=short_peak(timed.short, timed.observed.work),
            predicted=timed.predicted,
            short_seconds=timed.short_seconds,
        )

    def _draft(
        self,
        case: Case,
        identity: Identity,
        noise: NoiseFloor | None,
        sessions: tuple[TimingSession, ...],
        works: tuple[WorkRecord, ...] = (),
    ) -> Draft:
        return Draft(
            case=case.name,
            model=case.recipe.name,
            device=self.device,
            created=self.now().isoformat(timespec="seconds"),
            identity=identity,
            selections=self._selections(case),
            noise_floor=noise,
            lpips=lpips_info() if noise is not None else None,
            fingerprint=self.fingerprint,
            sessions=sessions,
            works=works,
        )

    def _selections(self, case: Case) -> dict[str, Selection]:
        """Return the layers that each format would quantize; a format that would quantize none has no entry."""
        chosen = {kind.name: self.backend.selection(case, kind) for kind in self.formats}
        return {name: selection for name, selection in chosen.items() if selection is not None}

    def _old_manifest(self, case: Case) -> Manifest | None:
        """Return what is stored now, whatever became of its images: timing sessions outlive a damaged one."""
        try:
            return self.store.load(case.recipe.name, case.name)
        except (BaselineMissingError, BaselineInvalidError):
            return None

    def _old_baseline(self, case: Case) -> tuple[Manifest, O] | str:
        """Return what is stored now, or why it cannot be compared with."""
        try:
            manifest = self.store.load(case.recipe.name, case.name)
            images = self.store.read_outputs(manifest) if manifest.outputs else []
            return manifest, self.backend.load(images, manifest.identity)
        except BaselineMissingError:
            return "new baseline"
        except BaselineInvalidError as error:
            return f"replaces an unusable baseline ({error.problem})"

    def _noise_floor(self, case: Case, workload: Workload, outputs: O) -> NoiseFloor:
        """LPIPS of BF16 against BF16, of the drift check's images: regenerated, and compiled."""
        chunks = case.drift_check_chunks
        again = self.backend.generate(case, workload, ArmSpec.bf16(case), label="bf16 again", chunks=chunks)
        same = outputs.subset(again.positions)
        repeat = self._lpips(same, again)
        try:
            other = self.backend.generate(
                case, workload, ArmSpec.bf16_otherwise(case), label="bf16 otherwise", chunks=chunks
            )
        except Exception as error:  # noqa: BLE001  a machine without a compiler still refreshes; the note says why
            reason = next(iter(str(error).strip().splitlines()), "")[:200]
            note = f"not compiled: {type(error).__name__}: {reason}"
            return NoiseFloor(repeat=repeat, eager_vs_compiled=None, note=note)
        return NoiseFloor(repeat=repeat, eager_vs_compiled=self._lpips(same, other), note="")

    def _lpips(self, outputs: O, again: O) -> float:
        """Return the largest LPIPS, which is what a manifest's noise floor holds; 0 where they are bit-identical."""
        return farthest(self.scorer, LPIPS, outputs, again) or 0.0

    def _changes(
        self, case: Case, old: tuple[Manifest, O] | str, new: Manifest, outputs: O
    ) -> tuple[list[str], tuple[str, ...]]:
        path = self.store.manifest_path(case.recipe.name, case.name)
        lines = [f"{case.recipe.name}/{case.name}: {new.contents} -> {path}", _noise_line(new)]
        if new.sessions:
            lines.append(f"BF16, {len(new.sessions)} sessions, newest: {_shown(new.sessions[-1].seconds)}")
        if isinstance(old, str):
            return [*lines, old], ()
        manifest, stored = old
        lines += [f"software or hardware: {text}" for text in hard_differences(manifest.fingerprint, new.fingerprint)]
        lines += [f"selection of {text}" for text in _selection_changes(manifest, new)]
        differences = tuple(stored.differences(outputs))
        lines += [f"case: {text}" for text in identity_differences(manifest.identity, new.identity) or differences]
        if differences or not _shows_the_same(manifest.identity, new.identity):
            return lines, ()
        text, sheets = self._output_changes(case, stored, outputs)
        return [*lines, text], sheets

    def _output_changes(self, case: Case, old: O, new: O) -> tuple[str, tuple[str, ...]]:
        """Return how far the outputs changed, and the paths of the sheets of those that did, the farthest first."""
        if bit_identical(old, new):
            return f"{new.noun}s: bit-identical to the old ones", ()
        values = self.scorer.score(LPIPS, old, new)
        frames = len(values) // len(new.positions)
        changed = sum(value > 0 for value in values)
        text = (
            f"{new.noun}s: {changed} of {len(values)}{' frames' if frames > 1 else ''} changed, LPIPS old -> new: "
            f"mean {sum(values) / len(values):.4f}, worst {max(values):.4f}"
        )
        same = set(old.identical_positions(new))
        order = worst_first(values, higher_is_better=False, frames=frames)
        worst = [divmod(place, frames) for place in order if new.positions[place // frames] not in same]
        return text, self.write_sheets(case, (self._pair(old, new, *spot) for spot in worst[:MAX_SHEETS]))

    def _pair(self, old: O, new: O, index: int, frame: int) -> tuple[int, Any, Any]:
        return index, self.scorer.preview(LPIPS, old, index, frame), self.scorer.preview(LPIPS, new, index, frame)


MAX_SHEETS = 24
"""Of one case, so that a refresh of DrawBench does not fill a disk."""

KEPT_SESSIONS = 8


def _is_unchanged(old: Manifest, stored: O, new: Draft, outputs: O) -> bool:
    """Tell whether a refresh found what is stored: another date alone changes no manifest."""
    names = ("selections", "noise_floor", "lpips", "sessions", "works")
    return (
        old.schema_version == SCHEMA_VERSION
        and old.identity_sha256 == new.identity.digest
        and all(getattr(old, name) == getattr(new, name) for name in names)
        and not hard_differences(old.fingerprint, new.fingerprint)
        and not tuple(stored.differences(outputs))
        and bit_identical(stored, outputs)
    )


def _shows_the_same(old: Identity, new: Identity) -> bool:
    """Tell whether each old output can be compared with the new one in its place."""
    names = ("prompts", "seed", "images_per_prompt", "width", "height")
    return all(getattr(old, name) == getattr(new, name) for name in names)


def _timeless(observed: ObservedRun, old: Manifest) -> ObservedRun:
    return msgspec.structs.replace(observed, identity=_timeless_identity(observed.identity, old))


def _timeless_identity(observed: Identity, old: Manifest) -> Identity:
    """Return an identity with the stored prompts, seed and execution of the images: they change no time."""
    stored = old.identity
    return msgspec.structs.replace(observed, prompts=stored.prompts, seed=stored.seed, execution=stored.execution)


def _newest(sessions: tuple[TimingSession, ...]) -> tuple[TimingSession, ...]:
    """Return the newest eight sessions of each fingerprint, in their order."""
    kept: list[TimingSession] = []
    counts: dict[str, int] = {}
    for session in reversed(sessions):
        key = str(sorted(session.fingerprint.hard.items()))
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= KEPT_SESSIONS:
            kept.append(session)
    return tuple(reversed(kept))


def _shown(seconds: tuple[float, ...]) -> str:
    return f"{median(seconds):.3f} s a call ({min(seconds):.3f} to {max(seconds):.3f}, n={len(seconds)})"


def _noise_line(manifest: Manifest) -> str:
    noise = manifest.noise_floor
    if noise is None:
        return "noise floor: not measured"
    compiled = (
        noise.note if noise.eager_vs_compiled is None else f"eager against compiled {noise.eager_vs_compiled:.4f}"
    )
    return f"noise floor (LPIPS of BF16 against BF16): repeated {noise.repeat:.4f}, {compiled}"


def _selection_changes(old: Manifest, new: Manifest) -> list[str]:
    shared = sorted(old.selections.keys() & new.selections.keys())
    pairs = [(name, old.selections[name], new.selections[name]) for name in shared]
    return [
        f"{name}: {before.quantized} -> {after.quantized} layers" for name, before, after in pairs if before != after
    ]
