"""Count the work of a workload.

The counters are Python integers and shapes: they wait for no kernel, and timesteps are read when the work is asked for.
They are off in timed rounds, of which `RunCounter` knows enough.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline

from pytest_mxq.pipelines.isolation import HeldPipeline
from pytest_mxq.pipelines.module_calls import ModuleCalls
from pytest_mxq.pipelines.originals import Original
from pytest_mxq.pipelines.pipeline_outputs import PipelineOutputs
from pytest_mxq.pipelines.work import Named, Shape, Work, work_differences
from pytest_mxq.pipelines.wrapping import wrapped


@dataclass(slots=True)
class _Counts:
    """What is counted, mutable."""

    pipeline_calls: int = 0
    other_pipeline_calls: int = 0
    scheduler_steps: int = 0
    prompt_encodings: int = 0
    encodes: dict[str, list[Shape]] = field(default_factory=lambda: defaultdict(list))
    decodes: dict[str, list[Shape]] = field(default_factory=lambda: defaultdict(list))
    component_calls: Counter[str] = field(default_factory=Counter)
    encoder_calls: dict[str, int] = field(default_factory=dict)
    hidden: dict[str, list[Shape]] = field(default_factory=dict)
    timesteps: dict[str, list[Any]] = field(default_factory=dict)  # copied tensors


class WorkCounter:
    """Count the work of a workload between entering and leaving a ``with`` block.

    The counters are forward pre-hooks of the components, wrappers around methods of the pipeline, its scheduler and the
    components that encode or decode, and `ModuleCalls`. Components are looked up again at every call of the pipeline,
    so that a scheduler or a denoiser that the workload exchanged counts as well. What the workload changed of the
    pipeline is looked for at every call, so that it is known also where the workload itself puts it back.

    Attributes:
        originals: what each call of the pipeline generated, as far as it is images or videos.
        held: the pipeline as it was when it was last called; for the next counter of it, which looks at the rest alone.
    """

    def __init__(self, pipe: Any, denoisers: tuple[str, ...], held: HeldPipeline | None = None) -> None:
        """Take a pipeline, the names of its denoisers, and what an earlier counter held of it."""
        self._pipe = pipe
        self._denoisers = denoisers
        self._counts = _Counts()
        self._modules = ModuleCalls(pipe, denoisers)
        self.originals: list[Original] = []
        self._outputs = PipelineOutputs()
        self._other_outputs = PipelineOutputs()
        self._stack = ExitStack()
        self._watched: set[int] = set()
        self._scheduler: tuple[str, Any] = "", None  # class and timesteps after the last call
        self._is_embedding = False
        self.held = held
        self._changes: set[str] = set()

    def __enter__(self) -> Self:
        """Begin to count."""
        self._counts.encoder_calls = {name: 0 for name, _ in self._parts() if _encodes_text(name)}
        self._counts.hidden = {name: [] for name in self._denoisers}
        self._counts.timesteps = {name: [] for name in self._denoisers}
        self._stack.enter_context(wrapped(type(self._pipe), "__call__", self._calling))
        for kind in _pipeline_classes(DiffusionPipeline):
            if kind is not type(self._pipe) and "__call__" in vars(kind):
                self._stack.enter_context(wrapped(kind, "__call__", self._calling_another))
        self._watch()
        self._modules.start()
        self._hold()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Take the counters off."""
        self._modules.stop()
        self._stack.close()
        self._watched.clear()

    @property
    def work(self) -> Work:
        """What was counted; reads the timesteps from the device."""
        counts = self._counts
        scheduler, timesteps = self._scheduler
        return Work(
            pipeline_calls=counts.pipeline_calls,
            other_pipeline_calls=counts.other_pipeline_calls,
            denoiser_calls=tuple((name, len(shapes)) for name, shapes in counts.hidden.items()),
            hidden_shapes=_named(counts.hidden),
            timestep_shapes=_named({name: map(_shape, items) for name, items in counts.timesteps.items()}),
            timesteps=_named({name: map(_numbers, items) for name, items in counts.timesteps.items()}),
            layer_calls=self._modules.layer_calls,
            other_module_calls=self._modules.other_calls,
            scheduler=scheduler,
            scheduler_steps=counts.scheduler_steps,
            scheduler_timesteps=_numbers(timesteps),
            encodes=_named(counts.encodes),
            decodes=_named(counts.decodes),
            component_calls=tuple(counts.component_calls.items()),
            prompt_encodings=counts.prompt_encodings,
            text_encoder_calls=tuple(counts.encoder_calls.items()),
            changes=tuple(sorted(self._changes)),
        )

    def came_from(self, result: object, reference: Work | None = None) -> bool:
        """Return whether what a workload returned comes from the pipeline that it was handed.

        It does if it holds, or shares memory with, something that this pipeline returned since the counter was entered,
        and nothing that another one did. What a workload computed from an output (``images.clamp(0, 1)``) shares
        nothing with it. That is taken for the pipeline's if the pipeline was called, no other pipeline was,
        and its work is the reference's. A copy of an earlier output passes only where all that work was done too,
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

    def _hold(self) -> None:
        self.held = HeldPipeline.of(self._pipe) if self.held is None else self.held.renewed()

    def _calling(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Count the calls of the pipeline, and of others of its class apart."""
        other = self._calling_another(call)

        @functools.wraps(call)
        def counted(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if pipe is not self._pipe:
                return other(pipe, *args, **kwargs)
            self._counts.pipeline_calls += 1
            self._changes.update(self.held.settings_changed() if self.held is not None else ())
            self._watch()
            self._modules.learn()
            output = self._outputs.add(call(pipe, *args, **kwargs))
            self._hold()  # with the counters that were put on meanwhile
            original = Original.of(output)
            self.originals += [] if original is None else [original]
            scheduler = getattr(pipe, "scheduler", None)
            self._scheduler = type(scheduler).__name__, getattr(scheduler, "timesteps", None)
            return output

        return counted

    def _calling_another(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Count the calls of other pipelines."""

        @functools.wraps(call)
        def counted(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if pipe is self._pipe:  # its class calls one that it is derived from
                return call(pipe, *args, **kwargs)
            self._counts.other_pipeline_calls += 1
            return self._other_outputs.add(call(pipe, *args, **kwargs))

        return counted

    def _watch(self) -> None:
        """Put counters on components that have none yet."""
        for name in self._denoisers:
            self._hook(getattr(self._pipe, name, None), functools.partial(self._count_denoiser, name))
        for name, part in self._parts():
            if _encodes_text(name):
                self._hook(part, functools.partial(self._count_encoder, name))
            else:
                self._hook(part, functools.partial(self._count_component, name), self._coders(name))
        self._wrap(getattr(self._pipe, "scheduler", None), {"step": self._count_step})
        if hasattr(self._pipe, "encode_prompt") and self._is_new(self._pipe):
            self._stack.enter_context(wrapped(self._pipe, "encode_prompt", self._embedding))

    def _parts(self) -> list[tuple[str, torch.nn.Module]]:
        """Return the components that are modules, beside the denoisers."""
        components = getattr(self._pipe, "components", {}).items()
        modules = [(name, part) for name, part in components if isinstance(part, torch.nn.Module)]
        return [(name, part) for name, part in modules if name not in self._denoisers]

    def _coders(self, name: str) -> Mapping[str, Callable[..., None]]:
        shapes = {"encode": self._counts.encodes, "decode": self._counts.decodes}
        return {method: functools.partial(self._count_shape, name, counts) for method, counts in shapes.items()}

    def _embedding(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """Count the calls of ``encode_prompt``; what runs inside is left out, as embeddings may come from elsewhere."""

        @functools.wraps(encode)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._counts.prompt_encodings += 1
            self._is_embedding = True
            try:
                return encode(*args, **kwargs)
            finally:
                self._is_embedding = False

        return counted

    def _hook(
        self, module: Any, count: Callable[..., None], methods: Mapping[str, Callable[..., None]] = MappingProxyType({})
    ) -> None:
        """Count calls of a module, and of methods of it where it has them."""
        if isinstance(module, torch.nn.Module) and self._is_new(module):
            self._stack.callback(module.register_forward_pre_hook(count, with_kwargs=True).remove)
            self._wrap_methods(module, methods)

    def _wrap(self, owner: Any, counts: Mapping[str, Callable[..., None]]) -> None:
        if owner is not None and self._is_new(owner):
            self._wrap_methods(owner, counts)

    def _wrap_methods(self, owner: Any, counts: Mapping[str, Callable[..., None]]) -> None:
        """Count calls of an object's methods where they are defined: LTX-2's call copies its scheduler for the audio.

        A copy would keep a method that was put on the object, and with it call the object that it was copied from.
        """
        for name, count in counts.items():
            if hasattr(owner, name):
                is_own = name in vars(owner)
                counting = functools.partial(_counting, count, None if is_own else owner)
                self._stack.enter_context(wrapped(owner if is_own else type(owner), name, counting))

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
        is_tensor = isinstance(timestep, torch.Tensor)
        self._counts.timesteps[name].append(timestep.detach().clone() if is_tensor else _shape(timestep))

    def _count_encoder(self, name: str, _module: Any, _args: Any, _kwargs: Any) -> None:
        self._counts.encoder_calls[name] = self._counts.encoder_calls.get(name, 0) + 1

    def _count_step(self, *_args: Any, **_kwargs: Any) -> None:
        self._counts.scheduler_steps += 1

    def _count_component(self, name: str, _module: Any, _args: Any, _kwargs: Any) -> None:
        if not self._is_embedding:
            self._counts.component_calls[name] += 1

    def _count_shape(self, name: str, shapes: dict[str, list[Shape]], *args: Any, **kwargs: Any) -> None:
        if not self._is_embedding:
            shapes[name].append(_shape(next(iter((*args, *kwargs.values())), None)))


def _pipeline_classes(base: Any) -> Iterator[Any]:
    for kind in base.__subclasses__():
        yield kind
        yield from _pipeline_classes(kind)


def _encodes_text(name: str) -> bool:
    return name.startswith("text_encoder")


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


def _named(values: Mapping[str, Any]) -> Named:
    return tuple((name, tuple(items)) for name, items in values.items())


def _shape(value: Any) -> Shape:
    """Return the shape of a tensor; of a shape itself; () of anything else."""
    return value if isinstance(value, tuple) else tuple(getattr(value, "shape", ()))


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(value.detach().flatten().tolist()) if isinstance(value, torch.Tensor) else ()
