"""What the terminal says at the end of a run: the table of all verdicts, and what is worth a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.failure import WORSE, reference_workload, strip
from pytest_mxq.reports.paths import shown_path
from pytest_mxq.reports.regressions import regression_lines
from pytest_mxq.reports.table import Layout, Line, Markup, table_lines

if TYPE_CHECKING:
    from pytest_mxq.gates.verdict import Verdict
    from pytest_mxq.planning.settings import Settings


def summary_lines(
    verdicts: Sequence[Verdict], problems: Sequence[str], notices: Sequence[str], settings: Settings, layout: Layout
) -> Iterator[tuple[str, Markup | None]]:
    """Yield the table of all verdicts, skips grouped by their reason; a line without markup is a section's title."""
    if not verdicts and not problems and not notices:
        return
    yield ("mxq refresh" if settings.refresh else "mxq verdicts"), None
    judged = [verdict for verdict in verdicts if verdict.outcome not in {Outcome.SKIPPED, Outcome.REFRESHED}]
    yield from table_lines(judged, layout)
    yield from _refreshes(verdicts, layout)
    if not layout.has_skips:
        yield from _skips(verdicts, is_strict=settings.strict)
    yield from _speeds(verdict for verdict in judged if verdict.outcome not in WORSE)
    yield from _cautions(verdicts)
    yield from ((f"note: {notice}", {"yellow": True}) for notice in notices)
    yield from ((problem, {"red": True}) for problem in problems)
    regressions = list(regression_lines(verdicts, settings.root, layout))
    if regressions:
        yield "regressions", None
        yield from regressions
    if verdicts:
        counts = Counter(verdict.outcome.value for verdict in verdicts)
        tally = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        yield f"{tally}; report: {shown_path(settings.report / 'report.json')}", {}


def _refreshes(verdicts: Iterable[Verdict], layout: Layout) -> Iterator[Line]:
    for verdict in verdicts:
        if verdict.outcome is Outcome.REFRESHED:
            yield from ((line, {"green": True}) for line in verdict.sentence.splitlines())
            for path in verdict.comparisons[:3]:  # the farthest; the others stand beside them
                yield f"look at {shown_path(layout.report / path)}", {"green": True}


def _skips(verdicts: Iterable[Verdict], *, is_strict: bool) -> Iterator[Line]:
    reasons = Counter(verdict.sentence for verdict in verdicts if verdict.outcome is Outcome.SKIPPED)
    said, markup = ("skipped under --mxq-strict", {"red": True}) if is_strict else ("skipped", {"yellow": True})
    for reason, count in reasons.items():
        yield f"{count} {said}: {reason}", markup


def _speeds(verdicts: Iterable[Verdict]) -> Iterator[Line]:
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
            f"{reference_workload(speed.samples)}",
            {},
        )


def _cautions(verdicts: Iterable[Verdict]) -> Iterator[Line]:
    """Yield the cautions of all verdicts, once a case."""
    texts = {
        f"{verdict.cell.model}/{verdict.cell.case}: caution: {caution}": None
        for verdict in verdicts
        for caution in verdict.cautions
    }
    yield from ((text, {"yellow": True}) for text in texts)
