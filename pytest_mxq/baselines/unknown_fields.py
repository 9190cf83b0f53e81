"""Fields of a stored record that its type does not have: a newer version wrote them, or a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from msgspec import inspect


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownField:
    """One such field.

    Attributes:
        path: where it stands, such as ``verdicts[0].scale.surprise``.
        allowed: the fields that its place may have.
    """

    path: str
    allowed: tuple[str, ...]

    def __str__(self) -> str:
        return f"unknown field `{self.path[:150]}`; allowed: {', '.join(self.allowed)}"


def unknown_field(value: Any, kind: type[Any]) -> UnknownField | None:
    """Return the first field of plain values that a type does not have; None: it has them all.

    >>> print(unknown_field({"path": "a", "allowed": [], "colour": 1}, UnknownField))
    unknown field `colour`; allowed: path, allowed
    """
    return next(_unknown(value, _described(kind), ""), None)  # type: ignore[arg-type]  # a type has a hash


@lru_cache
def _described(kind: type[Any]) -> inspect.Type:
    return inspect.type_info(kind)


def _unknown(value: Any, kind: inspect.Type, path: str) -> Iterator[UnknownField]:
    for one in kind.types if isinstance(kind, inspect.UnionType) else (kind,):
        if isinstance(one, inspect.StructType | inspect.DataclassType) and isinstance(value, dict):
            fields = {field.encode_name: field.type for field in one.fields}
            for name, item in value.items():
                where = f"{path}.{name}" if path else str(name)
                if name not in fields:
                    yield UnknownField(path=where, allowed=tuple(fields))
                else:
                    yield from _unknown(item, fields[name], where)
        elif isinstance(one, inspect.DictType) and isinstance(value, dict):
            for name, item in value.items():
                yield from _unknown(item, one.value_type, f"{path}.{name}" if path else str(name))
        elif isinstance(one, inspect.VarTupleType) and isinstance(value, list | tuple):
            for index, item in enumerate(value):
                yield from _unknown(item, one.item_type, f"{path}[{index}]")
