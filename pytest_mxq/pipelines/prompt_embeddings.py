"""Compute prompt embeddings of image gates once and hold them on the CPU, while the text encoders are off the GPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from pytest_mxq.environment.host_memory import available_bytes
from pytest_mxq.gates.outcome import Outcome, Stop

Chunk = tuple[str, ...]  # the prompts of one call


class PromptEmbeddings:
    """What `encode_prompt` of one base model returned, for its BF16 arm and for every quantized one.

    The arms share the text encoders, so that an embedding serves them all. It is bit-identical to what the encoders
    would return again: it is looked up by all arguments of the call, and so by the composition of the batch.
    Embeddings stay in the CPU's memory until the base is freed, and are not written to disk. One prompt of FLUX.1-dev
    takes 4 MiB, one of LTX-2 367 MiB and its negative one as much once; a gate whose embeddings do not fit in the
    CPU's memory ends with the verdict "environment".

    It is expected that a pipeline's call runs its text encoders in `encode_prompt` alone; what a prompt enhancer does
    with them elsewhere would find them on the CPU.
    """

    def __init__(self, pipe: Any, *, device: str, free_memory: Callable[[], None]) -> None:
        """Take a pipeline whose components are on the device.

        Args:
            pipe: the base pipeline.
            device: where the pipeline runs; on "cpu" the encoders have nowhere to go.
            free_memory: called if the device is too full for the encoders, which are then brought once more.
        """
        modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
        self._encoders = [module for name, module in modules.items() if name.startswith("text_encoder")]
        self._device = device
        self._free_memory = free_memory
        self._known: dict[str, Any] = {}
        self._last: Any = None  # of the known ones

    def bring_encoders(self) -> None:
        """Move the text encoders to the device, as a call that is timed or measured needs them."""
        for encoder in self._encoders:
            encoder.to(self._device)

    def put_encoders_away(self) -> None:
        """Move the text encoders to the CPU's memory, and free what they occupied on the device."""
        for encoder in self._encoders:
            encoder.to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @contextmanager
    def serving(self, pipe: Any, chunks: tuple[Chunk, ...]) -> Iterator[None]:
        """Let a pipeline that shares the encoders take its prompt embeddings from here meanwhile.

        Args:
            pipe: the pipeline; one without `encode_prompt` is left as it is.
            chunks: the chunks of prompts of the whole case. Where the first of them is asked for, all are embedded
                with the same further arguments, so that the encoders come to the device once.
        """
        if not hasattr(pipe, "encode_prompt"):
            yield
            return
        pipe.encode_prompt = partial(self._serve, pipe.encode_prompt, list(chunks))
        try:
            yield
        finally:
            del pipe.encode_prompt

    def _serve(self, encode: Callable[..., Any], foreseen: list[Chunk], *args: Any, **kwargs: Any) -> Any:
        call = inspect.signature(encode).bind(*args, **kwargs)
        if not _is_plain(call.arguments):  # a tensor or an image among them: nothing that a key can stand for
            with self._at_hand():
                return encode(*call.args, **call.kwargs)
        if _key(call) not in self._known:
            self._learn(encode, [call, *_alike(call, foreseen)])
        return _copied(self._known[_key(call)], self._device)

    def _learn(self, encode: Callable[..., Any], calls: Sequence[inspect.BoundArguments]) -> None:
        is_full = False
        try:
            self._embed(encode, calls)
        except torch.OutOfMemoryError:  # tried again outside: the traceback in here holds tensors
            is_full = True
        if is_full:
            self._free_memory()
            self._embed(encode, calls)

    def _embed(self, encode: Callable[..., Any], calls: Sequence[inspect.BoundArguments]) -> None:
        with self._at_hand():
            for call in calls:
                if _key(call) not in self._known:
                    self._known[_key(call)] = self._stored(encode(*call.args, **call.kwargs))

    def _stored(self, result: Any) -> Any:
        """Copy a result to the CPU's memory, sharing what equals the last one's (a negative prompt's).

        Raises:
            Stop: too little memory is free for it beside the encoders, which come back there, and a call's copy of it.
        """
        moved = [] if self._device == "cpu" else [weight for part in self._encoders for weight in part.parameters()]
        needed, available = 2 * _bytes(result) + sum(weight.nbytes for weight in moved), available_bytes()
        if available is not None and needed > available:
            raise Stop(
                Outcome.ENVIRONMENT,
                f"prompt embeddings: {len(self._known)} chunks of prompts are stored; another one and the text "
                f"encoders need {needed / 2**30:.1f} GiB of the CPU's memory, and {available / 2**30:.1f} GiB "
                "are available; gate fewer prompts, mxq(prompts=...), or on a machine with more memory",
            )
        self._last = _sharing(_copied(result, "cpu"), self._last)
        return self._last

    @contextmanager
    def _at_hand(self) -> Iterator[None]:
        try:
            self.bring_encoders()
            yield
        finally:
            self.put_encoders_away()


def _alike(call: inspect.BoundArguments, foreseen: list[Chunk]) -> list[inspect.BoundArguments]:
    """Return the same call for the case's other chunks, where it is a call for one of them; they are foreseen once.

    An argument that is a list has one entry a prompt, as negative prompts may: it suits chunks of the same size alone.
    """
    prompt = call.arguments.get("prompt")
    chunk = (prompt,) if isinstance(prompt, str) else tuple(prompt or ())
    if chunk not in foreseen:
        return []
    others = [other for other in foreseen if other != chunk]
    foreseen.clear()
    has_lists = any(isinstance(value, list | tuple) for name, value in call.arguments.items() if name != "prompt")
    suiting = [other for other in others if len(other) == len(chunk) or not has_lists]
    return [_for_prompts(call, other[0] if isinstance(prompt, str) else list(other)) for other in suiting]


def _for_prompts(call: inspect.BoundArguments, prompt: str | list[str]) -> inspect.BoundArguments:
    changed = call.signature.bind(*call.args, **call.kwargs)
    changed.arguments["prompt"] = prompt
    return changed


def _key(call: inspect.BoundArguments) -> str:
    return repr(call.arguments)  # plain values alone: equal texts are equal arguments


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | torch.device | torch.dtype)


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


def _sharing(value: Any, other: Any) -> Any:
    """Return a result with the other's tensors in the places where they are bit-identical."""
    if isinstance(value, torch.Tensor):
        is_same = isinstance(other, torch.Tensor) and value.dtype == other.dtype and torch.equal(value, other)
        return other if is_same else value
    if isinstance(value, list | tuple) and isinstance(other, list | tuple) and len(value) == len(other):
        return type(value)(map(_sharing, value, other))
    return value


def _copied(value: Any, device: str) -> Any:
    """Return a result with every tensor copied to a device, so that no call can change what another gets."""
    if isinstance(value, torch.Tensor):
        return value.to(device, copy=True)
    if isinstance(value, list | tuple):
        return type(value)(_copied(item, device) for item in value)
    return value
