"""The table of all verdicts at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.failure import strip, word_of
from pytest_mxq.reports.paths import shown_path

if TYPE_CHECKING:
    from pytest_mxq.gates.verdict import Verdict
    from pytest_mxq.planning.settings import Settings

Markup: TypeAlias = dict[str, bool]

_COLOURS: Mapping[Outcome, Markup] = {
    Outcome.PASS: {"green": True},
    Outcome.MARGINAL: {"green": True},
    Outcome.REFRESHED: {"green": True},
    Outcome.KNOWN_REGRESSION: {"yellow": True},
    Outcome.SKIPPED: {"yellow": True},
}
_HEADINGS = ("model", "case", "format", "gate", "verdict", "observed", "worst", "bound", "reference")


def summary_lines(
    verdicts: Sequence[Verdict], problems: Sequence[str], notices: Sequence[str], settings: Settings
) -> Iterator[tuple[str, Markup | None]]:
    """Yield the table of all verdicts, skips grouped by their reason; a line without markup is a section's title."""
    if not verdicts and not problems and not notices:
        return
    yield ("mxq refresh" if settings.refresh else "mxq verdicts"), None
    judged = [verdict for verdict in verdicts if verdict.outcome not in {Outcome.SKIPPED, Outcome.REFRESHED}]
    yield from _table(judged)
    for verdict in verdicts:
        if verdict.outcome is Outcome.REFRESHED:
            yield from ((line, {"green": True}) for line in verdict.sentence.splitlines())
    yield from _skips(verdicts)
    yield from _speeds(judged)
    yield from _live_reasons(verdicts)
    yield from _cautions(verdicts)
    yield from ((f"note: {notice}", {"yellow": True}) for notice in notices)
    yield from ((problem, {"red": True}) for problem in problems)
    if verdicts:
        counts = Counter(verdict.outcome.value for verdict in verdicts)
        tally = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        yield f"{tally}; report: {shown_path(settings.report / 'report.json')}", {}


def _skips(verdicts: Iterable[Verdict]) -> Iterator[tuple[str, Markup]]:
    reasons = Counter(verdict.sentence for verdict in verdicts if verdict.outcome is Outcome.SKIPPED)
    for reason, count in reasons.items():
        yield f"{count} skipped: {reason}", {"yellow": True}


def _speeds(verdicts: Iterable[Verdict]) -> Iterator[tuple[str, Markup]]:
    """Yield what was timed for each speedup, also where the gate passes: both medians, the rounds, and the machine."""
    for verdict in verdicts:
        speed = verdict.speed
        if speed is None:
            continue
        cell, share = verdict.cell, speed.samples.throttle_share
        slowed = "" if share is None else f", slowed down in {share:.0%}"
        yield (
            f"{cell.model}/{cell.case} {cell.format}: whole calls, BF16 {speed.bf16_seconds:.3f} s -> "
            f"{speed.quantized_seconds:.3f} s, n={speed.n} {strip(speed.samples.quantized)}{slowed}, "
            "no reference workload",
            {},
        )


def _live_reasons(verdicts: Iterable[Verdict]) -> Iterator[tuple[str, Markup]]:
    """Yield why a case was judged against BF16 of this run, once a case."""
    reasons = {
        f"{verdict.cell.model}/{verdict.cell.case}: reference live: {verdict.reference.reason}": None
        for verdict in verdicts
        if verdict.reference is not None and verdict.reference.mode == "live"
    }
    yield from ((reason, {"yellow": True}) for reason in reasons)


def _cautions(verdicts: Iterable[Verdict]) -> Iterator[tuple[str, Markup]]:
    """Yield the cautions of all verdicts, once a case."""
    texts = {
        f"{verdict.cell.model}/{verdict.cell.case}: caution: {caution}": None
        for verdict in verdicts
        for caution in verdict.cautions
    }
    yield from ((text, {"yellow": True}) for text in texts)


def _table(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, Markup]]:
    if not verdicts:
        return
    rows = [_row(verdict) for verdict in verdicts]
    widths = [max(len(row[column]) for row in [_HEADINGS, *rows]) for column in range(len(_HEADINGS))]
    yield _aligned(_HEADINGS, widths), {"bold": True}
    for row, verdict in zip(rows, verdicts, strict=True):
        yield _aligned(row, widths), _COLOURS.get(verdict.outcome, {"red": True})


def _aligned(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _row(verdict: Verdict) -> tuple[str, ...]:
    cell, show = verdict.cell, verdict.show
    sign = ">=" if verdict.scale is not None and verdict.scale.higher_is_better else "<="
    bounds = [bound for bound in (verdict.bound, verdict.worst_bound) if bound is not None]
    observed, worst = _observed(verdict)
    return (
        cell.model or "-",
        cell.case,
        cell.format + (" (emulated)" if verdict.emulated else ""),
        cell.gate,
        word_of(verdict.outcome),
        observed,
        worst,
        f"{sign} {', '.join(map(show, bounds))}" if bounds else "-",
        verdict.reference.mode if verdict.reference is not None else "-",
    )


def _observed(verdict: Verdict) -> tuple[str, str]:
    """Return the number that was compared, and the worst output, the interval or the peak beside it."""
    shown = "-" if verdict.observed is None else verdict.show(verdict.observed)
    if verdict.scores is not None:
        return shown, verdict.show(verdict.scores.worst)
    if verdict.speed is not None:
        return shown, f"[{verdict.speed.lower:.3f}, {verdict.speed.upper:.3f}]"
    if verdict.memory is not None:
        return shown, f"{verdict.memory.peak_gib:.2f} GiB"
    return "-", "-"
