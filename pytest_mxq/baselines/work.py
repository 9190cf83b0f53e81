"""The work that BF16 did, as a baseline stores it: numbers and digests."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from pytest_mxq.baselines.identity import Count, Identity

__all__ = [
    "ObservedRun",
    "WorkRecord",
    "chunk_count",
    "chunk_differences",
    "is_shorter",
    "stored_works",
    "work_changes",
]

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class WorkRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was counted while a workload ran once.

    Attributes:
        denoiser_calls: Number of calls of each denoiser.
        layer_calls: Calls of all layers of the denoisers; of compiled ones, of their compiled modules.
        layers_sha256: Of the calls of each layer.
        other_module_calls: Calls of modules that belong to no component of the pipeline.
        rest_sha256: Of everything else that is observed: shapes, timesteps, steps of the scheduler, decoder calls, what
            the test changed of the pipeline and whether it changed the outputs.
    """

    denoiser_calls: dict[str, Count]
    layer_calls: Count
    layers_sha256: Digest
    other_module_calls: Count
    rest_sha256: Digest


class ObservedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a workload that was timed or measured: what it was called with, and the work that it did."""

    identity: Identity
    work: WorkRecord


def is_shorter(short: WorkRecord, full: WorkRecord) -> bool:
    """Tell whether every denoiser that ran was called less often: what set its steps did set them.

    >>> full = WorkRecord(
    ...     denoiser_calls={"transformer": 28},
    ...     layer_calls=1,
    ...     layers_sha256="0" * 64,
    ...     other_module_calls=0,
    ...     rest_sha256="0" * 64,
    ... )
    >>> is_shorter(msgspec.structs.replace(full, denoiser_calls={"transformer": 2}), full), is_shorter(full, full)
    (True, False)
    """
    ran = {name: calls for name, calls in full.denoiser_calls.items() if calls}
    return bool(ran) and all(0 < short.denoiser_calls.get(name, 0) < calls for name, calls in ran.items())


def work_changes(stored: WorkRecord, other: WorkRecord) -> tuple[str, ...]:
    """Return in what two works differ, such as ``denoiser calls: transformer 28 -> 20``; () if in nothing.

    Calls of other modules may be fewer: what a test computes once, BF16 computed.
    """
    return tuple(_changes(stored, other))


def _changes(stored: WorkRecord, other: WorkRecord) -> Iterator[str]:
    for name in sorted(stored.denoiser_calls.keys() | other.denoiser_calls.keys()):
        before, after = stored.denoiser_calls.get(name), other.denoiser_calls.get(name)
        if before != after:
            yield f"denoiser calls: {name} {before} -> {after}"
    if stored.layer_calls != other.layer_calls:
        yield f"layer calls: {stored.layer_calls} -> {other.layer_calls}"
    elif stored.layers_sha256 != other.layers_sha256:
        yield f"layer calls: {stored.layer_calls} of other layers"
    if stored.other_module_calls < other.other_module_calls:
        yield f"other module calls: {stored.other_module_calls} -> {other.other_module_calls}"
    if stored.rest_sha256 != other.rest_sha256:
        yield "shapes, timesteps, calls of scheduler, encoders or decoders, or what the test changed"


def stored_works(works: Mapping[int, WorkRecord]) -> tuple[WorkRecord, ...]:
    """Return what a baseline stores of the works of all chunks: one of each, or one alone where all are alike."""
    ordered = tuple(works[start] for start in sorted(works))
    return ordered[:1] if len(set(map(msgspec.json.encode, ordered))) == 1 else ordered


def chunk_differences(
    stored: tuple[WorkRecord, ...], identity: Identity, works: Mapping[int, WorkRecord]
) -> tuple[str, ...]:
    """Return in what the works of some chunks, by the index of their first prompt, differ from the stored ones.

    Args:
        stored: as `stored_works` made them; empty in a baseline that an older version stored.
        identity: the baseline's.
        works: what ran now.
    """
    found: dict[str, list[int]] = {}
    for start, work in sorted(works.items()) if stored else ():
        expected = stored[0] if len(stored) == 1 else stored[start // identity.batch_size]
        for text in work_changes(expected, work):
            found.setdefault(text, []).append(start)
    return tuple(
        f"{text} ({len(starts)} of {len(works)} calls, prompt {starts[0]} first)" for text, starts in found.items()
    )


def chunk_count(identity: Identity) -> int:
    """Return how many chunks of prompts a case has."""
    return math.ceil(len(identity.prompts) / identity.batch_size)
