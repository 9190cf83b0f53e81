"""Prompt embeddings of picture gates: computed once, kept on the CPU, while the text encoders are off the GPU."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

Chunk = tuple[str, ...]  # the prompts of one call


class PromptEmbeddings:
    """What `encode_prompt` of one base model returned, for its BF16 arm and for every quantized one.

    The arms share the text encoders, so that an embedding serves them all. It is equal to the bit to what the encoders
    would return again: it is looked up by all arguments of the call, and so by the composition of the batch.
    Embeddings stay in the CPU's memory until the base is freed, and are not written to disk (one prompt of LTX-2 and
    its negative take 735 MiB, one of FLUX.1-dev 4 MiB).

    It is expected that a pipeline's call runs its text encoders in `encode_prompt` alone; what a prompt enhancer does
    with them elsewhere would find them on the CPU.
    """

    def __init__(self, pipe: Any, *, device: str, make_room: Callable[[], None]) -> None:
        """Take a pipeline whose components are on the device.

        Args:
            pipe: the base pipeline.
            device: where the pipeline runs; on "cpu" the encoders have nowhere to go.
            make_room: called if the device is too full for the encoders, which are then brought once more.
        """
        modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
        self._encoders = [module for name, module in modules.items() if name.startswith("text_encoder")]
        self._device = device
        self._make_room = make_room
        self._known: dict[str, Any] = {}

    def bring_encoders(self) -> None:
        """Have the text encoders on the device, as a call that is timed or weighed needs them."""
        for encoder in self._encoders:
            encoder.to(self._device)

    def put_encoders_away(self) -> None:
        """Have the text encoders in the CPU's memory, and what they occupied on the device free."""
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
        if not _is_plain(call.arguments):  # a tensor or a picture among them: nothing that a key can stand for
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
            self._make_room()
            self._embed(encode, calls)

    def _embed(self, encode: Callable[..., Any], calls: Sequence[inspect.BoundArguments]) -> None:
        with self._at_hand():
            for call in calls:
                if _key(call) not in self._known:
                    self._known[_key(call)] = _copied(encode(*call.args, **call.kwargs), "cpu")

    @contextmanager
    def _at_hand(self) -> Iterator[None]:
        try:
            self.bring_encoders()
            yield
        finally:
            self.put_encoders_away()


def _alike(call: inspect.BoundArguments, foreseen: list[Chunk]) -> list[inspect.BoundArguments]:
    """The same call for the case's other chunks, where it is a call for one of them; they are foreseen once.

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


def _copied(value: Any, device: str) -> Any:
    """A result with every tensor copied to a device, so that no call can change what another gets."""
    if isinstance(value, torch.Tensor):
        return value.to(device, copy=True)
    if isinstance(value, list | tuple):
        return type(value)(_copied(item, device) for item in value)
    return value
