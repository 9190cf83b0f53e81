"""What all pipelines of a process share and a workload may change: classes, torch's functions and its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from pytest_mxq.pipelines.attributes import have_same_entries

_MISSING = object()
_FUNCTIONS = ("addmm", "baddbmm", "bmm", "einsum", "matmul", "mm")
_TENSOR_METHODS = ("__matmul__", "addmm", "baddbmm", "bmm", "matmul", "mm")


class _Setting(NamedTuple):
    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]


_SETTINGS = (
    _Setting("default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Setting("grad mode", torch.is_grad_enabled, torch._C._set_grad_enabled),  # noqa: SLF001 - the public one is a class
    _Setting("deterministic debug mode", torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    _Setting("float32 matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    _Setting("number of threads", torch.get_num_threads, torch.set_num_threads),
)


class _Held(NamedTuple):
    """An attribute of a class or module, as its ``__dict__`` has it."""

    owner: Any
    name: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedState:
    """The classes of a pipeline's parts, functions of torch that multiply, and settings of torch.

    Attributes:
        classes: each class with its attributes.
        functions: functions and methods of torch.
        settings: value of each setting.
    """

    classes: tuple[tuple[type, dict[str, Any]], ...]
    functions: tuple[_Held, ...]
    settings: tuple[Any, ...]

    @classmethod
    def of(cls, parts: Iterable[Any]) -> SharedState:
        """Hold what the given objects share with others of their classes."""
        return cls(
            classes=tuple((kind, dict(vars(kind))) for kind in _classes(parts)),
            functions=tuple(_functions()),
            settings=tuple(setting.read() for setting in _SETTINGS),
        )

    def renewed(self, parts: Iterable[Any]) -> SharedState:
        """Hold the same as it is now, of objects of the same classes."""
        return SharedState.of(parts) if any(True for _ in self.changes()) else self

    def changes(self) -> Iterator[str]:
        """Yield what is another than it was, one phrase each."""
        for held in self._changed_attributes():
            done = "set" if held.value is _MISSING else "replaced"
            yield f"class {held.owner.__name__}: {held.name} {done}"
        for held in self._changed_functions():
            yield f"{held.owner.__name__}.{held.name} replaced"
        for setting, before in zip(_SETTINGS, self.settings, strict=True):
            now = setting.read()
            if now != before:
                yield f"torch's {setting.name} {before} -> {now}"

    def put_back(self) -> list[str]:
        """Put everything back, and return what was changed, one phrase each."""
        found = list(self.changes())
        for held in (*self._changed_attributes(), *self._changed_functions()):
            _put(held)
        for setting, before in zip(_SETTINGS, self.settings, strict=True):
            if setting.read() != before:
                setting.write(before)
        return found

    def _changed_attributes(self) -> Iterator[_Held]:
        for kind, attributes in self.classes:
            now = vars(kind)
            if have_same_entries(now, attributes):
                continue
            for name in {**attributes, **now}:
                before = attributes.get(name, _MISSING)
                if before is not now.get(name, _MISSING) and name not in _PYTHONS_OWN:
                    yield _Held(kind, name, before)

    def _changed_functions(self) -> Iterator[_Held]:
        return (held for held in self.functions if vars(held.owner).get(held.name, _MISSING) is not held.value)


def _classes(parts: Iterable[Any]) -> Iterator[type]:
    """Yield the classes of some objects and what they are derived from, each once.

    Without `torch.nn.Module`: Dynamo replaces methods of it when it first compiles.
    """
    kinds = {type(part): None for part in parts}
    every = dict.fromkeys(base for kind in kinds for base in kind.__mro__)
    return (kind for kind in every if kind is not torch.nn.Module and kind.__module__ != "builtins")


def _functions() -> Iterator[_Held]:
    for name, value in vars(functional).items():
        if callable(value):
            yield _Held(functional, name, value)
    yield from (_Held(torch, name, vars(torch)[name]) for name in _FUNCTIONS)
    yield from (_Held(torch.Tensor, name, vars(torch.Tensor).get(name, _MISSING)) for name in _TENSOR_METHODS)


_PYTHONS_OWN = frozenset({"__dict__", "__weakref__", "__annotations__", "__annotations_cache__", "_abc_impl"})


def _put(held: _Held) -> None:
    if held.value is _MISSING:
        delattr(held.owner, held.name)
    else:
        setattr(held.owner, held.name, held.value)
