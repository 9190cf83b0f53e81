"""JSON that must be right: every fault names the file, the field's path, its value and the next command."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from pytest_mxq.errors import BaselineInvalidError

T = TypeVar("T")

REFRESH = "pytest --mxq-refresh"


def invalid(where: str, problem: str) -> BaselineInvalidError:
    """The error for a stored thing that cannot be used; it ends with the command that makes it anew."""
    return BaselineInvalidError(f"{where}: {problem}; to measure it again: {REFRESH}")


def shown(value: object) -> str:
    """A value for a message, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def parse(data: bytes, *, where: str) -> Any:  # any JSON
    """The JSON document in `data`, without NaN, Infinity, or a number too large for a float.

    Raises:
        BaselineInvalidError: not JSON (truncated, conflict markers), or a number is not finite.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise invalid(where, f"not a JSON document, perhaps truncated ({error})") from error
    _refuse_non_finite(document, where)
    return document


def build(document: object, kind: type[T], *, where: str) -> T:
    """`document` as a `kind`, a msgspec struct; a refused document is emptied around the fault.

    Raises:
        BaselineInvalidError: a field is unknown, missing, of a wrong type, or outside its range.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `")
        name, value = _locate(document, kind, path.rstrip("`"), str(error))
        subject = name if isinstance(value, dict | list) else f"{name} is {shown(value)}"
        raise invalid(where, f"{subject}: {problem}") from None


def canonical(value: object, *, where: str) -> bytes:
    """The one JSON text of `value`: sorted keys, no spaces; equal values give equal bytes.

    Raises:
        BaselineInvalidError: a number is not finite (plain encoding would write null), or a value has no JSON form.
    """
    try:
        _refuse_non_finite(msgspec.to_builtins(value), where)
        return msgspec.json.encode(value, order="sorted")
    except TypeError as error:
        raise invalid(where, str(error)) from error


def _refuse_non_finite(document: object, where: str) -> None:
    for path, value in leaves(document):
        if isinstance(value, float) and not math.isfinite(value):
            raise invalid(where, f"{path} is {value}: every number must be finite")


def leaves(document: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every value that is neither object nor array, with its path.

    >>> list(leaves({"a": [1, {"b": 2}]}))
    [('a[0]', 1), ('a[1].b', 2)]
    """
    if isinstance(document, dict):
        for key, value in document.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(document, list | tuple):
        for index, value in enumerate(document):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, document


def _locate(document: Any, kind: type[object], path: str, message: str) -> tuple[str, object]:
    """The exact path and value of a fault at msgspec's `path`, which writes every key of a mapping as `[...]`."""
    node, name = document, ""
    for field, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", path):
        key = _guilty_key(document, node, kind, message) if index == "..." else field or int(index)
        node = node[key]
        name += f"[{key}]" if index and index != "..." else f".{key}"
    return name.lstrip(".") or "the document", node


def _guilty_key(document: object, mapping: dict[str, object], kind: type[object], message: str) -> str:
    """The key under which `document` is still refused with `message` when its `mapping` holds nothing else."""
    entries = dict(mapping)

    def refused_alone(key: str) -> bool:
        mapping.clear()
        mapping[key] = entries[key]
        return _refusal(document, kind) == message

    return next(key for key in entries if refused_alone(key))


def _refusal(document: object, kind: type[object]) -> str:
    try:
        msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return ""
