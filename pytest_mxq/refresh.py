"""Refreshing a baseline: the BF16 arm of a case is measured again and stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Generic

from pytest_mxq.baselines.fingerprint import Fingerprint, hard_differences
from pytest_mxq.baselines.schema import Draft, Manifest, NoiseFloor, Selection, identity_differences
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.errors import BaselineInvalidError, BaselineMissingError, MxqError
from pytest_mxq.gates.verdict import Outcome, Verdict
from pytest_mxq.workflow import Engines, S, Stop, Workload, largest_lpips

if TYPE_CHECKING:
    from pytest_mxq.cases import Case, Plan
    from pytest_mxq.formats import Format


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresher(Generic[S]):
    """Measures and stores the baselines of a session.

    Attributes:
        device: slug of the device.
        formats: formats whose selection of layers is recorded.
    """

    engines: Engines[S]
    store: BaselineStore
    device: str
    fingerprint: Fingerprint
    formats: Sequence[Format]
    now: Callable[[], datetime] = _utc_now

    def refresh(self, plan: Plan, workload: Workload) -> Verdict:
        """Measure the BF16 arm of a case and store it; the sentence says what changed, old -> new.

        Args:
            plan: a refresh plan without fault.
            workload: the test's body.
        """
        start = perf_counter()
        draft = Verdict(cell=plan.cell, outcome=Outcome.ERROR, sentence="", fingerprint=dict(self.fingerprint.hard))
        try:
            sentence = self._refresh(plan, workload)
        except Stop as stop:
            return replace(draft, outcome=stop.outcome, sentence=str(stop), seconds=perf_counter() - start)
        except MxqError as error:
            return replace(draft, sentence=str(error), seconds=perf_counter() - start)
        return replace(draft, outcome=Outcome.REFRESHED, sentence=sentence, seconds=perf_counter() - start)

    def _refresh(self, plan: Plan, workload: Workload) -> str:
        case = plan.case
        if case is None:
            raise MxqError(f"{plan.cell.nodeid} has no case")
        self.store.check_writable()
        old = self._old_baseline(case)
        shot = self.engines.draw(case, workload, label="bf16")
        if shot.faults:
            text = "; ".join(fault.sentence for fault in shot.faults)
            raise Stop(Outcome.DEGENERATE, f"nothing was stored: BF16 draws degenerate pictures: {text}")
        manifest = self._store(case, shot, self._noise_floor(case, workload, shot))
        return "\n".join(self._changes(case, old, manifest, shot))

    def _store(self, case: Case, shot: S, noise: NoiseFloor) -> Manifest:
        draft = Draft(
            case=case.name,
            model=case.recipe.name,
            device=self.device,
            created=self.now().isoformat(timespec="seconds"),
            identity=shot.identity,
            selections=self._selections(case),
            noise_floor=noise,
            lpips=self.engines.lpips_info(),
            fingerprint=self.fingerprint,
        )
        return self.store.save(draft, self.engines.images(shot))

    def _selections(self, case: Case) -> dict[str, Selection]:
        """The layers that each format would quantize; a format that would quantize none has no entry."""
        chosen = {kind.name: self.engines.selection(case, kind) for kind in self.formats}
        return {name: selection for name, selection in chosen.items() if selection is not None}

    def _old_baseline(self, case: Case) -> tuple[Manifest, S] | str:
        """What is stored now, or why it cannot be compared with."""
        try:
            manifest = self.store.load(case.recipe.name, case.name)
            return manifest, self.engines.stored(manifest, self.store.read_pictures(manifest))
        except BaselineMissingError:
            return "new baseline"
        except BaselineInvalidError as error:
            return f"replaces an unusable baseline ({error})"

    def _noise_floor(self, case: Case, workload: Workload, shot: S) -> NoiseFloor:
        """LPIPS of BF16 against BF16, of the sentinel's pictures: drawn again, and compiled."""
        chunks = case.sentinel_chunks
        again = self.engines.draw(case, workload, label="bf16 again", chunks=chunks)
        same = self.engines.subset(shot, again.positions)
        repeat = largest_lpips(self.engines, same, again)
        try:
            other = self.engines.draw_other_execution(case, workload, chunks=chunks)
        except Exception as error:  # noqa: BLE001  a machine without a compiler still refreshes; the note says why
            reason = next(iter(str(error).strip().splitlines()), "")[:200]
            note = f"not compiled: {type(error).__name__}: {reason}"
            return NoiseFloor(repeat=repeat, eager_vs_compiled=None, note=note)
        return NoiseFloor(repeat=repeat, eager_vs_compiled=largest_lpips(self.engines, same, other), note="")

    def _changes(self, case: Case, old: tuple[Manifest, S] | str, new: Manifest, shot: S) -> list[str]:
        path = self.store.manifest_path(case.recipe.name, case.name)
        lines = [f"{case.recipe.name}/{case.name}: {len(new.pictures)} pictures -> {path}", _noise_line(new)]
        if isinstance(old, str):
            return [*lines, old]
        manifest, pictures = old
        lines += [f"software or hardware: {text}" for text in hard_differences(manifest.fingerprint, new.fingerprint)]
        lines += [f"selection of {text}" for text in _selection_changes(manifest, new)]
        changed_identity = identity_differences(manifest.identity, new.identity)
        lines += [f"case: {text}" for text in changed_identity]
        return [*lines, *([] if changed_identity else [self._picture_change(pictures, shot)])]

    def _picture_change(self, old: S, new: S) -> str:
        if self.engines.are_identical(old, new):
            return "pictures: equal to the old ones to the bit"
        values = self.engines.score("lpips", old, new)
        changed = sum(value > 0 for value in values)
        mean = sum(values) / len(values)
        return (
            f"pictures: {changed} of {len(values)} changed, LPIPS old -> new: mean {mean:.4f}, worst {max(values):.4f}"
        )


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
