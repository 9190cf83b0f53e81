"""The attributes of one object, held and put back: those of a module, a scheduler, an attention processor."""

from __future__ import annotations

import operator
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch

_MISSING = object()
_EMPTY: dict[type, Any] = {dict: {}, OrderedDict: OrderedDict(), list: [], set: set()}  # containers that are held
_VALUES = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
# Private attributes that no plain call of a pipeline changes. Other private ones are what calls remember.
_REPORTED = {
    "_attention_backend": "attention backend",
    "_backward_hooks": "backward hooks",
    "_backward_pre_hooks": "backward pre-hooks",
    "_buffers": "buffers",
    "_cache_config": "cache",
    "_compiled_call_impl": "compiled call",
    "_forward_hooks": "forward hooks",
    "_forward_pre_hooks": "forward pre-hooks",
    "_gradient_checkpointing_func": "gradient checkpointing function",
    "_hf_hook": "accelerate hook",
    "_hook_order": "diffusers hooks",
    "_internal_dict": "configuration",
    "_modules": "modules",
    "_parameters": "parameters",
    "_shift": "shift",
}


class Change(NamedTuple):
    """One attribute that was changed, how in words, and whether it is a module, parameter or buffer."""

    attribute: str
    phrase: str
    is_part: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldObject:
    """An object with its class and attributes, and the entries of the dicts, lists and sets among these.

    Attributes:
        owner: the object.
        kind: its class.
        attributes: its ``__dict__``.
        containers: attribute, container, and its entries as a copy.
        empty: those of these containers that have no entries.
        filled: those that have some, and their entries.
    """

    owner: Any
    kind: type
    attributes: dict[str, Any]
    containers: tuple[tuple[str, Any, Any], ...]
    empty: tuple[Any, ...]
    filled: tuple[tuple[Any, Any], ...]

    @classmethod
    def of(cls, owner: Any) -> HeldObject:
        """Hold an object as it is now."""
        attributes = vars(owner).copy()
        containers = [
            (name, item, item.copy() if item else _EMPTY[type(item)])
            for name, item in attributes.items()
            if type(item) in _EMPTY
        ]
        return cls(
            owner=owner,
            kind=type(owner),
            attributes=attributes,
            containers=tuple(containers),
            empty=tuple(item for _, item, entries in containers if not entries),
            filled=tuple((item, entries) for _, item, entries in containers if entries),
        )

    def is_same(self) -> bool:
        """Return whether everything is the very object that it was, in microseconds; False decides nothing.

        Most of a pipeline's hundreds of objects never change, and each is looked at several times in every call.
        """
        return (
            type(self.owner) is self.kind
            and have_same_entries(vars(self.owner), self.attributes)
            and not any(self.empty)
            and all(have_same_entries(container, entries) for container, entries in self.filled)
        )

    def has_same_parts(self) -> bool:
        """Return whether the modules and plain objects that it holds are those that it held."""
        now = vars(self.owner)
        names = (name for name in {**self.attributes, **now} if now.get(name) is not self.attributes.get(name))
        is_other = any(_is_part(value.get(name)) for name in names for value in (now, self.attributes))
        return not is_other and all(
            have_same_entries(container, entries) for name, container, entries in self.containers if name == "_modules"
        )

    def changes(self) -> Iterator[Change]:
        """Yield what is another than it was and worth a report."""
        if self.is_same():
            return
        if type(self.owner) is not self.kind:
            yield Change("class", f"{self.kind.__name__} -> {type(self.owner).__name__}")
        now = vars(self.owner)
        for name in [*self.attributes, *(name for name in now if name not in self.attributes)]:
            before, value = self.attributes.get(name, _MISSING), now.get(name, _MISSING)
            if before is not value and not _are_same(before, value) and self._is_reported(name, value):
                yield Change(_REPORTED.get(name, name), _difference(before, value))
        for name, container, entries in self._filled():
            changes = list(_entry_changes(container, entries))
            if changes and not _is_of_transformers(name, container, entries):
                yield from _entry_report(name, changes)

    def put_back(self) -> list[Change]:
        """Put everything back, and return what is worth a report."""
        if self.is_same():
            return []
        found = list(self.changes())
        if type(self.owner) is not self.kind:
            self.owner.__class__ = self.kind
        now = vars(self.owner)
        for name in now.keys() - self.attributes.keys():
            del now[name]
        for name, before in self.attributes.items():
            if now.get(name, _MISSING) is not before:
                now[name] = before
        for _, container, entries in self._filled():
            if any(_entry_changes(container, entries)):
                _refill(container, entries)
        return found

    def _filled(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield the containers that hold anything, then or now: most of a module's dicts of hooks never do."""
        return (held for held in self.containers if held[1] or held[2])

    def _is_reported(self, name: str, value: Any) -> bool:
        if name in _REPORTED:
            return name != "_buffers"
        if name == "_diffusers_hook":
            return bool(value is _MISSING or getattr(value, "hooks", None))
        if name.startswith("_"):
            return any(map(_is_function, (value, self.attributes.get(name))))
        # A scheduler's counters and tensors are new after each call; its settings and methods are not.
        is_counter = isinstance(value, int | torch.Tensor | None | list) and not isinstance(value, bool)
        return not (is_counter and hasattr(self.owner, "set_timesteps"))


def is_helper(value: Any) -> bool:
    """Return whether an attribute is a plain object of diffusers', such as a scheduler or an attention processor."""
    return _is_helper_class(type(value)) and hasattr(value, "__dict__")  # type: ignore[arg-type]  # a class has a hash


@cache
def _is_helper_class(kind: type) -> bool:
    return kind.__module__.startswith("diffusers.") and not issubclass(
        kind, (torch.nn.Module, torch.Tensor, type, Mapping)
    )


def have_same_entries(now: Any, before: Any) -> bool:
    """Return whether two containers of a kind have the very same entries in the same order."""
    if len(now) != len(before) or not all(map(operator.is_, now, before)):
        return False
    return not isinstance(before, dict) or all(map(operator.is_, now.values(), before.values()))


def _is_part(value: Any) -> bool:
    return isinstance(value, torch.nn.Module) or is_helper(value)


def _is_function(value: Any) -> bool:
    return callable(value) and value is not _MISSING and not isinstance(value, torch.nn.Module | type)


def _are_same(before: Any, after: Any) -> bool:
    if before is after:
        return True
    if type(before) is not type(after):
        return False
    if isinstance(before, tuple | list):
        return len(before) == len(after) and all(map(_are_same, before, after))
    if isinstance(before, Mapping):  # configurations, frozen
        return before.keys() == after.keys() and all(_are_same(before[name], after[name]) for name in before)
    if isinstance(before, torch.Tensor):
        return before.dtype is after.dtype and before.device == after.device and torch.equal(before, after)
    return isinstance(before, (*_VALUES, types.MethodType)) and bool(before == after)


def _entry_changes(container: Any, entries: Any) -> Iterator[Change]:
    """Yield the entries that were added, removed or replaced."""
    if isinstance(container, dict):
        if len(container) == len(entries) and all(container.get(key, _MISSING) is entries[key] for key in entries):
            return
        for key in {**entries, **container}:
            before, after = entries.get(key, _MISSING), container.get(key, _MISSING)
            if before is not after:
                yield Change(str(key), "kept" if _are_same(before, after) else _difference(before, after))
    elif len(container) != len(entries) or any(map(operator.is_not, container, entries)):
        yield Change("", f"{len(entries)} -> {len(container)}")


def _is_of_transformers(name: str, container: Any, entries: Any) -> bool:
    """Return whether all that changed are hooks that transformers puts on its own models at their first call."""
    if name != "_forward_hooks" or not entries.keys() <= container.keys():
        return False
    added = [hook for key, hook in container.items() if key not in entries]
    return all(getattr(hook, "__module__", "") == "transformers.utils.output_capturing" for hook in added)


def _entry_report(name: str, changes: list[Change]) -> Iterator[Change]:
    if name in {"_modules", "_parameters", "_buffers"}:
        yield from (change._replace(is_part=True) for change in changes if change.phrase != "kept")
    elif name in _REPORTED or not name.startswith("_"):
        yield Change(_REPORTED.get(name, name), "changed")


def _refill(container: Any, entries: Any) -> None:
    """Give a container its entries again, in their order; what refers to the container keeps doing so."""
    container.clear()
    if isinstance(container, list):
        container.extend(entries)
    else:
        container.update(entries)


def _difference(before: Any, after: Any) -> str:
    if after is _MISSING:
        return "removed"
    if before is _MISSING:
        return f"set to {_text(after)}"
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = [name for name in {**before, **after} if before.get(name, _MISSING) != after.get(name, _MISSING)]
        return ", ".join(f"{name} {_text(before.get(name))} -> {_text(after.get(name))}" for name in names)
    old, new = _text(before), _text(after)
    return "replaced" if old == new else f"{old} -> {new}"


def _text(value: Any) -> str:
    if isinstance(value, (*_VALUES, tuple)):
        return str(value)
    return value.__qualname__ if isinstance(value, _FUNCTIONS) else type(value).__name__
