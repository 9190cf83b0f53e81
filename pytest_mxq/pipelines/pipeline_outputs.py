"""Know what a pipeline returned when it comes back: by its memory, or as the object that it is."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef


class PipelineOutputs:
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
