"""Leaving a pipeline as a workload found it: its state before, and what is put back after.

What is put back: components, their modules and attributes, hooks, forwards, attention processors, flags,
configurations, parameters that were exchanged, devices. What cannot be: numbers that were written over, and a dtype
that lost some of their digits; then the arm has to be built again. Anything that is put on a pipeline between the two
is taken off, whoever put it there. Of the state that all pipelines share, `SharedState` is held and diffusers'
attention backend (a model's ``set_attention_backend`` sets it for every model).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from diffusers.models import attention_dispatch

from pytest_mxq.pipelines.attributes import Change, HeldObject, is_helper
from pytest_mxq.pipelines.shared_state import SharedState
from pytest_mxq.pipelines.weights import TensorState, inner_tensors, named_tensors, state_change, tensor_state

_SAMPLES = 32  # bytes read of each tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a workload had changed.

    Attributes:
        changed: what was found and put back, one phrase each, such as ``transformer: training False -> True``.
        not_restored: what was found and could not be.
    """

    changed: tuple[str, ...] = ()
    not_restored: tuple[str, ...] = ()

    @property
    def rebuild(self) -> bool:
        """Whether the arm has to be built again."""
        return bool(self.not_restored)


class _HeldTensor(NamedTuple):
    """A parameter or buffer of a component, and its state."""

    name: str
    tensor: torch.Tensor
    state: TensorState


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPipeline:
    """A pipeline's objects as they were, without their numbers.

    Attributes:
        objects: the pipeline, its modules and the plain objects that these hold, by their paths.
        shared: classes of these objects, torch's functions and settings.
        attention_backend: diffusers' attention backend of all models.
    """

    objects: tuple[tuple[str, HeldObject], ...]
    shared: SharedState
    attention_backend: Any

    @classmethod
    def of(cls, pipe: Any) -> Self:
        """Hold a pipeline as it is now."""
        objects = tuple((path, HeldObject.of(owner)) for path, owner in _objects(pipe))
        backend, _ = _attention_backends().get_active_backend()
        return cls(
            objects=objects,
            shared=SharedState.of(held.owner for _, held in objects),
            attention_backend=backend,
        )

    def renewed(self) -> HeldPipeline:
        """Hold the same pipeline as it is now; what is as it was is not taken again."""
        changed = [held for _, held in self.objects if not held.is_same()]
        if any(type(held.owner) is not held.kind or not held.has_same_parts() for held in changed):
            return HeldPipeline.of(self.objects[0][1].owner)
        now = {id(held): HeldObject.of(held.owner) for held in changed}
        objects = tuple((path, now.get(id(held), held)) for path, held in self.objects)
        backend, _ = _attention_backends().get_active_backend()
        shared = self.shared.renewed(held.owner for _, held in objects)
        return HeldPipeline(objects=objects, shared=shared, attention_backend=backend)

    def settings_changed(self) -> tuple[str, ...]:
        """Return what is another than it was, one phrase each, without modules, parameters and buffers.

        An adapter's modules have other classes on a quantized arm; what they multiply is observed.
        """
        changes = [(path, change) for path, held in self.objects for change in held.changes() if not change.is_part]
        return (*_phrases(changes), *self.shared.changes(), *self._attention_backend_changed())

    def put_back(self) -> list[str]:
        """Put everything back, and return what was changed, one phrase each."""
        shared = self.shared.put_back()  # first: what puts the rest back may use it
        changes = [(path, change) for path, held in self.objects for change in held.put_back()]
        backend = list(self._attention_backend_changed())
        if backend:
            _attention_backends().set_active_backend(self.attention_backend)
        return [*_phrases(changes), *shared, *backend]

    def _attention_backend_changed(self) -> Iterator[str]:
        active, _ = _attention_backends().get_active_backend()
        if active is not self.attention_backend:
            yield f"diffusers' attention backend {self.attention_backend.value} -> {active.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineState:
    """The state of a pipeline. It holds the objects, not copies of their numbers.

    Attributes:
        held: the objects.
        tensors: all parameters and buffers.
        samples: some bytes of every tensor, for each device.
    """

    held: HeldPipeline
    tensors: tuple[_HeldTensor, ...]
    samples: dict[torch.device, torch.Tensor]


def snapshot(pipe: Any) -> PipelineState:
    """Return the state of a pipeline, in milliseconds: objects are held, numbers are not copied.

    Of the numbers only some bytes of each tensor are, so that a change through ``x.data`` is seen that autograd's
    version counter does not count. It is seen where it touches one of 32 bytes evenly spread over the tensor.
    """
    held = HeldPipeline.of(pipe)
    tensors = tuple(_HeldTensor(name, tensor, tensor_state(tensor)) for name, tensor in _tensors(pipe))
    return PipelineState(held=held, tensors=tensors, samples=_samples(tensors))


def restore(pipe: Any, state: PipelineState) -> Restored:
    """Put a pipeline back into a state, and return what was changed.

    Values that every call of a pipeline changes (its private attributes, a scheduler's timesteps) are put back too, and
    not reported.

    Args:
        pipe: the pipeline that the state was taken of.
        state: what `snapshot` returned.
    """
    del pipe  # the state holds it
    changed = state.held.put_back()
    not_restored: list[str] = []
    for held in state.tensors:
        what = _restore_tensor(held)
        if what is not None:
            (changed if what.is_restored else not_restored).append(f"{held.name}: {what.phrase}")
    known = {phrase.split(":")[0] for phrase in not_restored}
    not_restored += [f"{name}: written over" for name in _written_over(state) if name not in known]
    return Restored(changed=tuple(changed), not_restored=tuple(not_restored))


def _attention_backends() -> Any:
    return attention_dispatch._AttentionBackendRegistry  # noqa: SLF001 - diffusers offers a context manager alone


def _objects(pipe: Any) -> Iterator[tuple[str, Any]]:
    """Yield the pipeline and everything in it that has attributes to hold, each once, with its path."""
    yield "", pipe
    seen = {id(pipe)}
    for name, component in vars(pipe).items():
        for path, part in _parts(name, component):
            if id(part) not in seen:
                seen.add(id(part))
                yield path, part
                for attribute, value in vars(part).items():
                    if is_helper(value) and id(value) not in seen:
                        seen.add(id(value))
                        yield f"{path}.{attribute}", value


def _parts(name: str, component: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(component, torch.nn.Module):
        for path, module in component.named_modules():
            yield f"{name}.{path}" if path else name, module
    elif is_helper(component):
        yield name, component


def _tensors(pipe: Any) -> Iterator[tuple[str, torch.Tensor]]:
    seen: set[int] = set()
    for name, component in vars(pipe).items():
        if isinstance(component, torch.nn.Module):
            for path, tensor in named_tensors(component):
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield f"{name}.{path}", tensor


class _TensorChange(NamedTuple):
    phrase: str
    is_restored: bool


def _restore_tensor(held: _HeldTensor) -> _TensorChange | None:
    """Put a tensor back to its device and dtype; None if it is as it was.

    Text encoders that were on another device meanwhile have the same numbers in other memory: samples tell.
    """
    now = tensor_state(held.tensor)
    phrase = state_change(held.state, now._replace(memory=held.state.memory))
    if phrase is None:
        return None
    _, dtype, device = held.state.kind
    is_plain = inner_tensors(held.tensor)[0] is held.tensor
    is_exact = torch.promote_types(dtype, now.kind[1]) is now.kind[1]  # a wider dtype lost nothing
    if now.kind == held.state.kind or not is_plain or not is_exact or now.versions != held.state.versions:
        return _TensorChange(phrase, is_restored=False)
    held.tensor.data = held.tensor.data.to(device, dtype)
    return _TensorChange(phrase, is_restored=True)


def _samples(tensors: tuple[_HeldTensor, ...]) -> dict[torch.device, torch.Tensor]:
    """Return some bytes of each tensor, one after the other, for each device."""
    pieces: dict[torch.device, list[torch.Tensor]] = {}
    for held in tensors:
        for piece in _pieces(held.tensor):
            pieces.setdefault(piece.device, []).append(piece)
    return {device: torch.cat(parts) for device, parts in pieces.items()}


def _pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    for inner in inner_tensors(tensor):
        if inner.is_contiguous() and inner.numel() and not inner.is_meta and not inner.is_complex():
            data = inner.detach().view(-1).view(torch.uint8)
            yield data[:: len(data) // _SAMPLES | 1]  # an odd step: low and high bytes


def _written_over(state: PipelineState) -> Iterator[str]:
    """Yield the names of tensors whose samples differ from those of the state."""
    now = _samples(state.tensors)
    if now.keys() == state.samples.keys() and all(torch.equal(now[device], state.samples[device]) for device in now):
        return
    positions = dict.fromkeys(now, 0)
    for held in state.tensors:
        for piece in _pieces(held.tensor):
            start = positions[piece.device]
            positions[piece.device] = start + len(piece)
            before = state.samples.get(piece.device, piece)[start : start + len(piece)]
            if not torch.equal(piece, before):
                yield held.name


def _phrases(changes: list[tuple[str, Change]]) -> Iterator[str]:
    """Yield one phrase for the same change in many modules of a component."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for path, change in changes:
        groups.setdefault((path.split(".")[0], change.attribute, change.phrase), []).append(path)
    for (_, attribute, phrase), paths in groups.items():
        others = f" (and in {len(paths) - 1} more modules)" if len(paths) > 1 else ""
        yield f"{paths[0]}: {attribute} {phrase}{others}".removeprefix(": ")
