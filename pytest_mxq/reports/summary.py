"""What people read in the terminal: why a gate failed, the table of all verdicts, progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mxq.environment.fingerprint import hard_differences
from pytest_mxq.errors import BaselineMissingError, MxqError
from pytest_mxq.gates.bounds import GATES
from pytest_mxq.gates.verdict import Outcome, SpeedFacts, Verdict
from pytest_mxq.planning.settings import Reference

if TYPE_CHECKING:
    import pytest

    from pytest_mxq.baselines.manifest import Manifest
    from pytest_mxq.environment.fingerprint import Fingerprint
    from pytest_mxq.planning.settings import Settings

STATUS = {Outcome.REGRESSION.value: "REGRESSION"}
_COLOURS: Mapping[str, dict[str, bool]] = {
    Outcome.PASS.value: {"green": True},
    Outcome.MARGINAL.value: {"green": True},
    Outcome.REFRESHED.value: {"green": True},
    Outcome.SKIPPED.value: {"yellow": True},
}
_HEADINGS = ("model", "case", "format", "gate", "verdict", "observed", "worst", "bound", "reference")
Markup = dict[str, bool]


def shown_path(path: str | Path) -> str:
    """A path as short as it can be said from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def failure_text(verdict: Verdict) -> str:
    """Why a gate failed: subject, observed and bound, worst prompt, reference, evidence, images, next command."""
    cell = verdict.cell
    emulated = " (emulated)" if verdict.emulated else ""
    word = STATUS.get(verdict.outcome.value, verdict.outcome.value.upper())
    return "\n".join(
        [f"{word}  {cell.model} {cell.format}{emulated} {cell.gate}   {verdict.sentence}", *_details(verdict)]
    )


def _details(verdict: Verdict) -> Iterator[str]:
    if verdict.worst_prompt and verdict.scores is not None:
        scores = verdict.scores
        shown = GATES[verdict.cell.gate].show(scores.worst)
        frame = f", frame {scores.worst_index % scores.frames + 1}" if scores.frames > 1 else ""
        yield f"  worst     {shown}  {verdict.worst_prompt!r}{frame}"
        noun = "frame" if scores.frames > 1 else GATES[verdict.cell.gate].noun
        yield f"  {noun + 's':<9} {_numbers(verdict)}"
    if verdict.speed is not None:
        yield from _rounds(verdict.speed)
    reference = verdict.reference
    if reference is not None:
        where = f"{shown_path(reference.manifest)} " if reference.manifest else ""
        yield f"  baseline  {reference.mode}: {where}({reference.reason})"
        if reference.noise_repeat is not None:
            compiled = reference.noise_compiled
            tail = "" if compiled is None else f", eager against compiled {compiled:.4f}"
            yield f"  noise     BF16 against BF16: LPIPS repeated {reference.noise_repeat:.4f}{tail}"
    if verdict.evidence is not None:
        yield f"  evidence  {verdict.evidence.sentence}"
    for path in verdict.images:
        yield f"  look at   {shown_path(path)}"
    if verdict.next_command:
        yield f"  next      {verdict.next_command}"


def _rounds(speed: SpeedFacts) -> Iterator[str]:
    """A strip of the rounds of each arm, each on its own scale, and what was seen of the machine."""
    samples = speed.samples
    for name, values in (("BF16", samples.bf16), ("quantized", samples.quantized)):
        if values:
            yield f"  {name:<9} {strip(values)}  {min(values):.3f} to {max(values):.3f} s"
    watched = [f"{len(samples.voided)} rounds voided"]
    if samples.throttle_share is not None:
        watched.append(f"slowed down in {samples.throttle_share:.0%}")
    if samples.power_cap_share is not None:
        watched.append(f"power cap in {samples.power_cap_share:.0%}")
    first = " and ".join(f"{seconds:.1f} s" for seconds in samples.first_call)
    yield f"  machine   {', '.join(watched)}; first calls {first}; {samples.execution}; scope whole calls; no canary"


def strip(values: Sequence[float]) -> str:
    """One block a value, from the lowest of them to the highest.

    >>> strip([1.0, 1.5, 2.0])
    '▁▅█'
    """
    blocks = "▁▂▃▄▅▆▇█"
    low = min(values)
    span = (max(values) - low) or 1.0
    return "".join(blocks[round((value - low) / span * (len(blocks) - 1))] for value in values)


def _numbers(verdict: Verdict) -> str:
    scores = verdict.scores
    if scores is None:
        return ""
    show = GATES[verdict.cell.gate].show
    margin = f" (95 % bound {show(scores.mean_bound_95)})" if isfinite(scores.mean_bound_95) else ""
    mean = f"mean {show(scores.mean)}{margin}"
    return f"{len(scores.values)}: {mean}, p90 {show(scores.p90)}"


def reference_line(settings: Settings, load: Callable[[], Manifest], fingerprint: Callable[[], Fingerprint]) -> str:
    """Which reference a case is going to have here, and why.

    Args:
        settings: what was asked for.
        load: reads the case's baseline, or raises what is wrong with it.
        fingerprint: tells hardware and software; asked only if there is a baseline.
    """
    if settings.reference is Reference.LIVE:
        return "reference live (--mxq-reference=live)"
    live = "live" if settings.reference is Reference.AUTO and not settings.strict else "stale"
    try:
        manifest = load()
    except BaselineMissingError:
        return f"no stored baseline; reference {'live' if live == 'live' else 'missing'}"
    except MxqError as error:
        return f"baseline unusable: {error}"
    differences = hard_differences(manifest.fingerprint, fingerprint())
    if differences:
        return f"reference {live}: the baseline is of other hardware or software: {'; '.join(differences)}"
    return f"reference stored {manifest.created[:10]}, {manifest.generated}, same hardware and software"


def summary_lines(
    records: list[dict[str, Any]], problems: list[str], notices: list[str], settings: Settings
) -> Iterator[tuple[str, Markup | None]]:
    """The table of all verdicts, skips grouped by their reason; a line without markup is a section's title."""
    if not records and not problems and not notices:
        return
    yield ("mxq refresh" if settings.refresh else "mxq verdicts"), None
    judged = [record for record in records if record["outcome"] not in {Outcome.SKIPPED.value, Outcome.REFRESHED.value}]
    yield from _table(judged)
    for record in records:
        if record["outcome"] == Outcome.REFRESHED.value:
            yield from ((line, {"green": True}) for line in record["sentence"].splitlines())
    yield from _skips(records)
    yield from _speeds(judged)
    yield from _live_reasons(records)
    yield from ((f"note: {notice}", {"yellow": True}) for notice in notices)
    mode = "--mxq-strict: " if settings.strict else ""
    yield from ((f"{mode}{problem}", {"red": True}) for problem in problems)
    if not records:
        return
    counts: dict[str, int] = {}
    for record in records:
        counts[record["outcome"]] = counts.get(record["outcome"], 0) + 1
    tally = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    yield f"{tally}; report: {shown_path(settings.report / 'report.json')}", {}


def _skips(records: list[dict[str, Any]]) -> Iterator[tuple[str, Markup]]:
    reasons: dict[str, int] = {}
    for record in records:
        if record["outcome"] == Outcome.SKIPPED.value:
            reasons[record["sentence"]] = reasons.get(record["sentence"], 0) + 1
    for reason, count in reasons.items():
        yield f"{count} skipped: {reason}", {"yellow": True}


def _speeds(records: list[dict[str, Any]]) -> Iterator[tuple[str, Markup]]:
    """What was timed for each speedup, also where the gate passes: both medians, the rounds, and the machine."""
    for record in records:
        speed = record["speed"]
        if not speed:
            continue
        cell, samples = record["cell"], speed["samples"]
        slowed = "" if samples["throttle_share"] is None else f", slowed down in {samples['throttle_share']:.0%}"
        yield (
            f"{cell['model']}/{cell['case']} {cell['format']}: whole calls, BF16 {speed['bf16_seconds']:.3f} s -> "
            f"{speed['quantized_seconds']:.3f} s, n={speed['n']} {strip(samples['quantized'])}{slowed}, no canary",
            {},
        )


def _live_reasons(records: list[dict[str, Any]]) -> Iterator[tuple[str, Markup]]:
    """Why a case was judged against BF16 of this run, once a case."""
    reasons = {
        f"{record['cell']['model']}/{record['cell']['case']}: reference live: {record['reference']['reason']}": None
        for record in records
        if record["reference"] and record["reference"]["mode"] == "live"
    }
    yield from ((reason, {"yellow": True}) for reason in reasons)


def _table(records: list[dict[str, Any]]) -> Iterator[tuple[str, Markup]]:
    if not records:
        return
    rows = [_row(record) for record in records]
    widths = [max(len(row[column]) for row in [_HEADINGS, *rows]) for column in range(len(_HEADINGS))]
    yield _aligned(_HEADINGS, widths), {"bold": True}
    for row, record in zip(rows, records, strict=True):
        yield _aligned(row, widths), _COLOURS.get(record["outcome"], {"red": True})


def _aligned(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    cell, reference = record["cell"], record["reference"]
    kind = GATES.get(cell["gate"])
    show = kind.show if kind else str
    sign = ">=" if kind and kind.higher_is_better else "<="
    bounds = [record[name] for name in ("bound", "worst_bound") if record[name] is not None]
    observed, worst = _observed(record)
    return (
        cell["model"] or "-",
        cell["case"],
        cell["format"] + (" (emulated)" if record["emulated"] else ""),
        cell["gate"],
        STATUS.get(record["outcome"], record["outcome"]),
        observed,
        worst,
        f"{sign} {', '.join(show(bound) for bound in bounds)}" if bounds else "-",
        reference["mode"] if reference else "-",
    )


def _observed(record: dict[str, Any]) -> tuple[str, str]:
    """The number that was compared, and the worst image or the interval beside it."""
    kind = GATES.get(record["cell"]["gate"])
    if kind is None:
        return "-", "-"
    scores, speed, memory = record["scores"], record["speed"], record["memory"]
    if scores:
        return kind.show(float(scores["mean"])), kind.show(float(scores["worst"]))
    if speed:
        return kind.show(speed["speedup"]), f"[{speed['lower']:.3f}, {speed['upper']:.3f}]"
    if memory:
        ratio = "-" if record["observed"] is None else kind.show(record["observed"])
        return ratio, f"{memory['peak_gib']:.2f} GiB"
    return "-", "-"


def make_progress(config: pytest.Config) -> Callable[[str, int, int], None]:
    """A progress line on a terminal; nothing in CI, in a pipe, or in a worker."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if reporter is None or not reporter.isatty or os.environ.get("CI"):
        return lambda _label, _done, _total: None

    def progress(label: str, done: int, total: int) -> None:
        text = f" {label} {done}/{total}" if done < total else ""
        if capture is None:
            reporter.rewrite(text, erase=True)
            return
        with capture.global_and_fixture_disabled():
            reporter.rewrite(text, erase=True)

    return progress
