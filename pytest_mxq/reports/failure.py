"""Why a gate failed, as its test and the terminal say it: subject, numbers, reference, evidence, next command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.paths import PAGE, anchor_of, shown_path

if TYPE_CHECKING:
    from pytest_mxq.gates.scores import Scores
    from pytest_mxq.gates.speedup import SpeedFacts, SpeedSamples
    from pytest_mxq.gates.verdict import Cell, ReferenceNote, Verdict


WORSE = frozenset({Outcome.REGRESSION, Outcome.DEGENERATE, Outcome.NOT_QUANTIZED, Outcome.DEQUANTIZED})
"""Outcomes that say that something got worse; other failures say that it could not be judged."""


def word_of(outcome: Outcome) -> str:
    """Return what a table calls an outcome: a regression stands out."""
    return "REGRESSION" if outcome is Outcome.REGRESSION else outcome.value


def failure_text(verdict: Verdict, *, root: Path, report: Path) -> str:
    """Return why a gate failed, in a few lines.

    Args:
        verdict: its verdict.
        root: the project's root, to which a manifest's path is relative.
        report: the report's folder, to which comparison images' paths are relative.
    """
    first = f"{word_of(verdict.outcome).upper()}  {subject(verdict)}   {verdict.sentence}"
    cautions = [f"  caution   {caution}" for caution in verdict.cautions]
    return "\n".join([first, *fact_lines(verdict, root), *cautions, *way_lines(verdict, report)])


def models_of_several(cells: Iterable[Cell]) -> frozenset[str]:
    """Return the models with more than one case."""
    cases = Counter(model for model, _ in {(cell.model, cell.case) for cell in cells})
    return frozenset(model for model, count in cases.items() if count > 1)


def subject(verdict: Verdict, several: Collection[str] = ()) -> str:
    """Return model, format and gate of a verdict, and whether the format was emulated.

    Args:
        verdict: the verdict.
        several: the models of which the case is named, too.
    """
    cell = verdict.cell
    name = f"{cell.model}/{cell.case}" if cell.model in several else cell.model
    return f"{name} {cell.format}{' (emulated)' if verdict.emulated else ''} {cell.gate}"


def fact_lines(verdict: Verdict, root: Path) -> Iterator[str]:
    """Yield the numbers behind a verdict, its reference and its evidence."""
    if verdict.scores is not None:
        yield from _scores(verdict, verdict.scores)
    if verdict.speed is not None:
        yield from _rounds(verdict.speed)
    if verdict.reference is not None:
        yield from _reference(verdict.reference, verdict.sentence, root)
    if verdict.evidence is not None:
        yield f"  evidence  {verdict.evidence.sentence}"


def way_lines(verdict: Verdict, report: Path) -> Iterator[str]:
    """Yield where a verdict's outputs can be seen, and the next command."""
    for path in verdict.comparisons[:1]:  # the worst; the page has the others
        yield f"  look at   {shown_path(report / path)}"
    if verdict.cell.model:
        yield f"  report    {shown_path(report / PAGE)}#{anchor_of(verdict.cell)}"
    if verdict.next_command:
        yield f"  next      {verdict.next_command}"


def _scores(verdict: Verdict, scores: Scores) -> Iterator[str]:
    show = verdict.show
    frame = f", frame {scores.worst_index % scores.frames + 1}" if scores.frames > 1 else ""
    yield f"  worst     {show(scores.worst)}  {verdict.worst_prompt!r}{frame}"
    noun = "frame" if scores.frames > 1 else verdict.scale.noun if verdict.scale else "value"
    margin = f" (95 % bound {show(scores.mean_bound_95)})" if isfinite(scores.mean_bound_95) else ""
    yield f"  {noun + 's':<9} {len(scores.values)}: mean {show(scores.mean)}{margin}, p90 {show(scores.p90)}"


def _reference(reference: ReferenceNote, said: str, root: Path) -> Iterator[str]:
    where = f": {shown_path(root / reference.manifest)}" if reference.manifest else ""
    why = "" if reference.reason in said else f" ({reference.reason})"
    yield f"  baseline  {reference.mode}{where}{why}"
    if reference.noise_repeat is not None:
        compiled = reference.noise_compiled
        tail = "" if compiled is None else f", eager against compiled {compiled:.4f}"
        yield f"  noise     BF16 against BF16: {reference.noise_gate} repeated {reference.noise_repeat:.4f}{tail}"


def _rounds(speed: SpeedFacts) -> Iterator[str]:
    """Yield a strip of the rounds of each arm, each on its own scale, and what was seen of the machine."""
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
    how = f"{samples.execution}; whole calls; {reference_workload(samples)}"
    yield f"  machine   {', '.join(watched)}; first calls {first}; {how}"


def reference_workload(samples: SpeedSamples) -> str:
    """Return what told whether the machine is as fast as when BF16 was stored."""
    return "no reference workload" if samples.drift is None else samples.drift.text


def strip(values: Sequence[float]) -> str:
    """Return one block a value, from the lowest of them to the highest.

    >>> strip([1.0, 1.5, 2.0])
    '▁▅█'
    """
    blocks = "▁▂▃▄▅▆▇█"
    low = min(values)
    span = (max(values) - low) or 1.0
    return "".join(blocks[round((value - low) / span * (len(blocks) - 1))] for value in values)
