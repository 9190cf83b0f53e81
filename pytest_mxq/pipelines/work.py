"""The work of a workload: how often each part of a pipeline ran, at which shapes and timesteps.

Both arms of a comparison must do the same. The counters are Python integers and shapes: they wait for no kernel and
read no tensor, so that they may run in timed rounds.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Self

import torch
from torch.multiprocessing.reductions import StorageWeakRef

Shape = tuple[int, ...]
Named = tuple[tuple[str, Any], ...]  # (component, value) pairs


class Timesteps(Enum):
    """How much of the timesteps is recorded that a denoiser is called with."""

    SHAPES = "shapes"  # for timed rounds
    VALUES = "values"  # copied at each call, read when the work is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a workload ran.

    Attributes:
        pipeline_calls: calls of the pipeline that was handed in.
        other_pipeline_calls: calls of other pipelines of its class.
        denoiser_calls: number of calls of each denoiser.
        hidden_shapes: shape of the hidden states of each call, for each denoiser.
        timestep_shapes: shape of the timestep of each call, for each denoiser.
        timesteps: the timesteps of each call, for each denoiser; None where only shapes were recorded.
        scheduler: class of the scheduler after the last call; empty before one.
        scheduler_steps: calls of its ``step``.
        scheduler_timesteps: its timesteps after the last call.
        vae_encodes: shape of each input of the VAE's ``encode``.
        vae_decodes: shape of each input of its ``decode``.
        prompt_encodings: calls of the pipeline's ``encode_prompt``.
        text_encoder_calls: number of calls of each text encoder; 0 where prompt embeddings were computed before.
    """

    pipeline_calls: int
    other_pipeline_calls: int
    denoiser_calls: Named
    hidden_shapes: Named
    timestep_shapes: Named
    timesteps: Named | None
    scheduler: str
    scheduler_steps: int
    scheduler_timesteps: tuple[float, ...]
    vae_encodes: tuple[Shape, ...]
    vae_decodes: tuple[Shape, ...]
    prompt_encodings: int
    text_encoder_calls: Named


def work_differences(reference: Work, other: Work, *, ignoring: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return in what two workloads differ, one phrase a field, such as ``denoiser calls: transformer 8 -> 4``.

    Args:
        reference: the BF16 arm's.
        other: the quantized arm's, or a later round's.
        ignoring: names of fields to leave out, such as "text_encoder_calls" where one of the arms computed the prompt
            embeddings of both. Timesteps are compared where both recorded their values.
    """
    found: list[str] = []
    for name in (item.name for item in fields(Work)):
        before, after = getattr(reference, name), getattr(other, name)
        if name in ignoring or before == after or (name == "timesteps" and None in (before, after)):
            continue
        found += [f"{name.replace('_', ' ')}: {phrase}" for phrase in _phrases(before, after)]
    return tuple(found)


def _phrases(before: Any, after: Any) -> Iterator[str]:
    if not _is_named(before) or not _is_named(after):
        yield _change(before, after)
        return
    old, new = dict(before), dict(after)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"{name} {_change(old.get(name), new.get(name))}"


def _is_named(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in value
    )


def _change(before: Any, after: Any) -> str:
    """Return two values, of sequences their lengths or the first place where they differ."""
    if not isinstance(before, tuple) or not isinstance(after, tuple):
        return f"{before} -> {after}"
    if len(before) != len(after):
        return f"{len(before)} -> {len(after)}"
    step = next(index for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)
    return f"first differs at step {step}, {before[step]} -> {after[step]}"


@dataclass(slots=True)
class _Counts:
    """What is counted, mutable."""

    pipeline_calls: int = 0
    other_pipeline_calls: int = 0
    scheduler_steps: int = 0
    prompt_encodings: int = 0
    vae_encodes: list[Shape] = field(default_factory=list)
    vae_decodes: list[Shape] = field(default_factory=list)
    encoder_calls: dict[str, int] = field(default_factory=dict)
    hidden: dict[str, list[Shape]] = field(default_factory=dict)
    timesteps: dict[str, list[Any]] = field(default_factory=dict)  # shapes, or copied tensors


class WorkCounter:
    """Count the work of a workload between entering and leaving a ``with`` block.

    The counters are forward pre-hooks of the denoisers and the text encoders, and wrappers around methods of the
    pipeline, its scheduler and its VAE; compiled blocks inside a denoiser are not touched. Components are looked up
    again at every call of the pipeline, so that a scheduler or a denoiser that the workload exchanged counts as well.
    """

    def __init__(self, pipe: Any, denoisers: tuple[str, ...], timesteps: Timesteps = Timesteps.SHAPES) -> None:
        """Take a pipeline and the names of its denoisers."""
        self._pipe = pipe
        self._denoisers = denoisers
        self._reading = timesteps
        self._counts = _Counts()
        self._outputs = _Outputs()
        self._other_outputs = _Outputs()
        self._stack = ExitStack()
        self._watched: set[int] = set()
        self._scheduler: tuple[str, Any] = "", None  # class and timesteps after the last call

    def __enter__(self) -> Self:
        """Begin to count."""
        self._counts.encoder_calls = {name: 0 for name, _ in self._encoders()}
        self._counts.hidden = {name: [] for name in self._denoisers}
        self._counts.timesteps = {name: [] for name in self._denoisers}
        self._stack.enter_context(_wrapped(type(self._pipe), "__call__", self._calling))
        self._watch()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Take the counters off."""
        self._stack.close()
        self._watched.clear()

    @property
    def work(self) -> Work:
        """What was counted; reads the timesteps from the device."""
        counts = self._counts
        scheduler, timesteps = self._scheduler
        values = self._reading is Timesteps.VALUES
        return Work(
            pipeline_calls=counts.pipeline_calls,
            other_pipeline_calls=counts.other_pipeline_calls,
            denoiser_calls=tuple((name, len(shapes)) for name, shapes in counts.hidden.items()),
            hidden_shapes=_named(counts.hidden),
            timestep_shapes=_named({name: map(_shape, items) for name, items in counts.timesteps.items()}),
            timesteps=_named({name: map(_numbers, items) for name, items in counts.timesteps.items()})
            if values
            else None,
            scheduler=scheduler,
            scheduler_steps=counts.scheduler_steps,
            scheduler_timesteps=_numbers(timesteps),
            vae_encodes=tuple(counts.vae_encodes),
            vae_decodes=tuple(counts.vae_decodes),
            prompt_encodings=counts.prompt_encodings,
            text_encoder_calls=tuple(counts.encoder_calls.items()),
        )

    def came_from(self, result: object, reference: Work | None = None) -> bool:
        """Return whether what a workload returned comes from the pipeline that it was handed.

        It does if it holds, or shares memory with, something that this pipeline returned since the counter was entered,
        and nothing that another one did. What a workload computed from an output (``images.clamp(0, 1)``) shares
        nothing with it. That is taken for the pipeline's if the pipeline was called, no other pipeline of its class
        was, and its work is the reference's. A copy of an earlier output passes only where all that work was done too,
        and so saves no time; a copy of the BF16 arm's output is bit-identical to it, which accuracy gates look for.

        Args:
            result: what the workload returned.
            reference: the work of the BF16 arm; None: at least one call of a denoiser is asked for instead.
        """
        if self._other_outputs.share(result):
            return False
        if self._outputs.share(result):
            return True
        work = self.work
        if not work.pipeline_calls or work.other_pipeline_calls:
            return False
        if reference is None:
            return any(calls for _, calls in work.denoiser_calls)
        return not work_differences(reference, work, ignoring=frozenset({"text_encoder_calls"}))

    def _calling(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Count the calls of the pipeline, and of others of its class apart."""

        @functools.wraps(call)
        def counted(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if pipe is not self._pipe:
                self._counts.other_pipeline_calls += 1
                return self._other_outputs.add(call(pipe, *args, **kwargs))
            self._counts.pipeline_calls += 1
            self._watch()
            output = self._outputs.add(call(pipe, *args, **kwargs))
            scheduler = getattr(pipe, "scheduler", None)
            self._scheduler = type(scheduler).__name__, getattr(scheduler, "timesteps", None)
            return output

        return counted

    def _watch(self) -> None:
        """Put counters on components that have none yet."""
        for name in self._denoisers:
            self._hook(getattr(self._pipe, name, None), functools.partial(self._count_denoiser, name))
        for name, encoder in self._encoders():
            self._hook(encoder, functools.partial(self._count_encoder, name))
        self._wrap(getattr(self._pipe, "scheduler", None), {"step": self._count_step})
        self._wrap(
            getattr(self._pipe, "vae", None),
            {
                "encode": functools.partial(self._count_shape, self._counts.vae_encodes),
                "decode": functools.partial(self._count_shape, self._counts.vae_decodes),
            },
        )
        self._wrap(self._pipe, {"encode_prompt": self._count_prompt})

    def _encoders(self) -> list[tuple[str, Any]]:
        components = getattr(self._pipe, "components", {})
        return [(name, part) for name, part in components.items() if name.startswith("text_encoder")]

    def _hook(self, module: Any, count: Callable[..., None]) -> None:
        if isinstance(module, torch.nn.Module) and self._is_new(module):
            self._stack.callback(module.register_forward_pre_hook(count, with_kwargs=True).remove)

    def _wrap(self, owner: Any, counts: Mapping[str, Callable[..., None]]) -> None:
        """Count calls of an object's methods where they are defined: LTX-2's call copies its scheduler for the audio.

        A copy would keep a method that was put on the object, and with it call the object that it was copied from.
        """
        present = {name: count for name, count in counts.items() if hasattr(owner, name)}
        if present and self._is_new(owner):
            for name, count in present.items():
                is_own = name in vars(owner)
                counting = functools.partial(_counting, count, None if is_own else owner)
                self._stack.enter_context(_wrapped(owner if is_own else type(owner), name, counting))

    def _is_new(self, part: Any) -> bool:
        is_new = id(part) not in self._watched
        if is_new:
            self._watched.add(id(part))
            self._stack.callback(lambda _part: None, part)  # holds it, so that its id stays its own
        return is_new

    def _count_denoiser(self, name: str, _module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        hidden = kwargs.get("hidden_states", kwargs.get("sample", args[0] if args else None))
        timestep = kwargs.get("timestep", args[1] if len(args) > 1 else None)
        self._counts.hidden[name].append(_shape(hidden))
        copies = self._reading is Timesteps.VALUES and isinstance(timestep, torch.Tensor)
        self._counts.timesteps[name].append(timestep.detach().clone() if copies else _shape(timestep))

    def _count_encoder(self, name: str, _module: Any, _args: Any, _kwargs: Any) -> None:
        self._counts.encoder_calls[name] = self._counts.encoder_calls.get(name, 0) + 1

    def _count_step(self, *_args: Any, **_kwargs: Any) -> None:
        self._counts.scheduler_steps += 1

    def _count_prompt(self, *_args: Any, **_kwargs: Any) -> None:
        self._counts.prompt_encodings += 1

    @staticmethod
    def _count_shape(shapes: list[Shape], *args: Any, **kwargs: Any) -> None:
        shapes.append(_shape(next(iter((*args, *kwargs.values())), None)))


def _counting(count: Callable[..., None], owner: Any, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that counts: an object's own (owner: None), or one of a class, whose calls of the owner count."""

    @functools.wraps(method)
    def counted(*args: Any, **kwargs: Any) -> Any:
        if owner is None:
            count(*args, **kwargs)
        elif args[0] is owner:
            count(*args[1:], **kwargs)
        return method(*args, **kwargs)

    return counted


@contextmanager
def _wrapped(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Replace a method of an object or a class meanwhile; what replaced ours since then stays."""
    own = vars(owner).get(name)
    replacement = wrap(getattr(owner, name))
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if vars(owner).get(name) is replacement:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


class _Outputs:
    """What a pipeline returned, without keeping it alive."""

    def __init__(self) -> None:
        self._storages: dict[int, StorageWeakRef] = {}
        self._objects: list[weakref.ref[object]] = []

    def add(self, output: Any) -> Any:
        """Note an output and return it."""
        for part in _parts(output):
            if isinstance(part, torch.Tensor):
                reference = _reference(part)
                self._storages[reference.cdata] = reference  # its address is not given to another while this is here
            elif (known := _weakly(part)) is not None:
                self._objects.append(known)
        return output

    def share(self, result: object) -> bool:
        """Return whether any part of a result is one of theirs, or a view of one."""
        parts = list(_parts(result))
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        if any(_reference(tensor).cdata in self._storages for tensor in tensors):
            return True
        alive = [known() for known in self._objects]
        return any(part is known for part in parts for known in alive if known is not None)


def _reference(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _parts(output: object) -> Iterator[object]:
    """Yield an output object and what it holds: fields, entries, items; tensors are not taken apart."""
    yield output
    held: Any = ()
    if isinstance(output, Mapping):
        held = output.values()
    elif isinstance(output, list | tuple):
        held = output
    elif not isinstance(output, torch.Tensor) and hasattr(output, "__dict__"):
        held = [value for value in vars(output).values() if isinstance(value, torch.Tensor | list | tuple)]
    for part in held:
        yield from _parts(part)


def _weakly(part: object) -> weakref.ref[object] | None:
    try:
        return weakref.ref(part)
    except TypeError:  # lists, tuples, numbers
        return None


def _named(values: Mapping[str, Any]) -> Named:
    return tuple((name, tuple(items)) for name, items in values.items())


def _shape(value: Any) -> Shape:
    """Return the shape of a tensor; of a shape itself; () of anything else."""
    return value if isinstance(value, tuple) else tuple(getattr(value, "shape", ()))


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(value.detach().flatten().tolist()) if isinstance(value, torch.Tensor) else ()
