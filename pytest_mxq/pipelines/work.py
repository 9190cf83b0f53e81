"""The work of a workload: how often each part of a pipeline ran, at which shapes and timesteps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import msgspec

from pytest_mxq.baselines.work import WorkRecord

Shape = tuple[int, ...]
Named = tuple[tuple[str, Any], ...]  # (component, value) pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a workload ran.

    Attributes:
        pipeline_calls: calls of the pipeline that was handed in.
        other_pipeline_calls: calls of other pipelines.
        denoiser_calls: number of calls of each denoiser.
        hidden_shapes: shape of the hidden states of each call, for each denoiser.
        timestep_shapes: shape of the timestep of each call, for each denoiser.
        timesteps: the timesteps of each call, for each denoiser.
        layer_calls: number of calls of each layer of the denoisers that ran; of compiled ones, of each compiled module.
        other_module_calls: calls of modules that belong to no component of the pipeline.
        scheduler: class of the scheduler after the last call; empty before one.
        scheduler_steps: calls of its ``step``.
        scheduler_timesteps: its timesteps after the last call.
        encodes: shape of each input of ``encode`` of the components that have one, such as a VAE.
        decodes: shape of each input of their ``decode``.
        component_calls: number of calls of each component, such as a vocoder, beside denoisers and text encoders.
        prompt_encodings: calls of the pipeline's ``encode_prompt``.
        text_encoder_calls: number of calls of each text encoder; 0 where prompt embeddings were computed before.
        changes: what the workload had changed of the pipeline when it called it, one phrase each, sorted.
        has_changed_outputs: whether it returned something else than the pipeline did.
    """

    pipeline_calls: int
    other_pipeline_calls: int
    denoiser_calls: Named
    hidden_shapes: Named
    timestep_shapes: Named
    timesteps: Named
    layer_calls: Named
    other_module_calls: int
    scheduler: str
    scheduler_steps: int
    scheduler_timesteps: tuple[float, ...]
    encodes: Named
    decodes: Named
    component_calls: Named
    prompt_encodings: int
    text_encoder_calls: Named
    changes: tuple[str, ...] = ()
    has_changed_outputs: bool = False

    @property
    def record(self) -> WorkRecord:
        """What a baseline stores of it: calls of text encoders are left out, as embeddings may come from elsewhere.

        Where nothing was changed the digest is that of versions that did not look for changes.
        """
        rest = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _RECORDED}
        rest |= {name: getattr(self, name) for name in ("changes", "has_changed_outputs") if getattr(self, name)}
        return WorkRecord(
            denoiser_calls=dict(self.denoiser_calls),
            layer_calls=sum(calls for _, calls in self.layer_calls),
            layers_sha256=_digest(self.layer_calls),
            other_module_calls=self.other_module_calls,
            rest_sha256=_digest(rest),
        )


_RECORDED = frozenset(
    {
        "denoiser_calls",
        "layer_calls",
        "other_module_calls",
        "text_encoder_calls",
        "changes",
        "has_changed_outputs",
    }
)


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def work_differences(reference: Work, other: Work, *, ignoring: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return in what two workloads differ, one phrase a field, such as ``denoiser calls: transformer 8 -> 4``.

    Args:
        reference: the BF16 arm's.
        other: the quantized arm's, or a later round's.
        ignoring: names of fields to leave out, such as "text_encoder_calls" where one of the arms computed the prompt
            embeddings of both. Calls of other modules may be fewer: what a test computes once, BF16 computed.
    """
    found: list[str] = []
    for name in (item.name for item in fields(Work)):
        before, after = getattr(reference, name), getattr(other, name)
        if name in ignoring or before == after or (name == "other_module_calls" and after < before):
            continue
        if name == "layer_calls" and reference.denoiser_calls != other.denoiser_calls:
            continue  # it follows
        if name == "changes":
            found += [f"changed on one arm alone: {what}" for what in _first(sorted({*before} ^ {*after}))]
            continue
        found += [f"{name.replace('_', ' ')}: {phrase}" for phrase in _first(list(_phrases(before, after)))]
    return tuple(found)


def _first(phrases: list[str]) -> list[str]:
    more = len(phrases) - _NAMED
    return phrases if more <= 0 else [*phrases[:_NAMED], f"{more} more"]


_NAMED = 3  # of hundreds of layers, the first tell


def _phrases(before: Any, after: Any) -> Iterator[str]:
    if not _is_named(before) or not _is_named(after):
        yield _change(before, after)
        return
    old, new = dict(before), dict(after)
    for name in sorted({*old, *new}):
        if old.get(name, 0) != new.get(name, 0):
            yield f"{name} {_change(old.get(name, 0), new.get(name, 0))}"


def _is_named(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in value
    )


def _change(before: Any, after: Any) -> str:
    """Return two values, of sequences their lengths or the first place where they differ."""
    if not isinstance(before, tuple) or not isinstance(after, tuple) or len(before) != len(after):
        return " -> ".join(str(len(value) if isinstance(value, tuple) else value) for value in (before, after))
    step = next(index for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)
    return f"first differs at step {step}, {before[step]} -> {after[step]}"
