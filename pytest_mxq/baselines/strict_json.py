"""Strict JSON: every fault names the file, the field's path, its value and the next command."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from pytest_mxq.baselines.unknown_fields import unknown_field
from pytest_mxq.errors import BaselineInvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

REFRESH = "pytest --mxq-refresh"
LIVE = "--mxq-reference=live"
"""The option that judges without a stored baseline."""

_RESTORE = "to restore it: "

MAX_MESSAGE = 500  # characters: stored files are not trusted, and a message must not repeat megabytes of them
_MAX_PATH = 240
_MIN_PROBLEM = 160  # a remedy that would leave less for the problem is left out: it is as long as the path
_END: Final = object()
_MAX_DEPTH = 64  # of nested arrays and objects; a manifest has 5, and a call's arguments are short

_LONG_INTEGER = re.compile(rb"(?<![.\d])\d{20}")  # the shortest that may not fit into 64 bits, or part of a text

Path = tuple["Path", str | int] | None
"""The path of a value, from its end: keys and indices."""


def invalid(where: str, problem: str, *, remedy: str | None = None) -> BaselineInvalidError:
    """Return the error for a stored file that cannot be used, at most 500 characters long.

    Args:
        where: The file, or what is being stored.
        problem: What is wrong with it.
        remedy: The command that restores it; it precedes the one that measures the baseline again.
    """
    steps = f"; to measure it again: {REFRESH}"
    place = where if len(where) <= _MAX_PATH else f"...{where[3 - _MAX_PATH :]}"
    left = MAX_MESSAGE - len(place) - len(steps) - 4
    if remedy and len(remedy) + len(_RESTORE) <= left - min(len(problem), _MIN_PROBLEM):
        steps = f"; {_RESTORE}{remedy}{steps}"
    message = f"{place}: {cut(problem, MAX_MESSAGE - len(place) - len(steps) - 2)}"
    return BaselineInvalidError(printable(message), steps=printable(steps), command=remedy)


def cut(text: str, limit: int) -> str:
    """Return `text`, cut to `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def printable(text: str) -> str:
    """Return `text` without what a terminal's encoding refuses: lone surrogates, as in undecodable file names."""
    return text.encode("utf-8", "replace").decode()


def shown(value: object) -> str:
    """Return a value for a message, cut to 80 characters."""
    # A large text is cut before repr, which would copy and escape all of it.
    return cut(repr(value[:100] if isinstance(value, str) else value), 80)


def parse(data: bytes, *, where: str) -> Any:  # any JSON
    """Return the JSON document in `data`: finite numbers, integers of 64 bits, valid Unicode, no deep nesting.

    Raises:
        BaselineInvalidError: Not JSON (truncated, conflict markers), or a value is not as above.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else cut(str(error), 120)
        raise invalid(where, f"not a JSON document, perhaps truncated ({reason})") from None
    _check_values(document, where)
    return document


def build(document: object, kind: type[T], *, where: str) -> T:
    """Return `document` as a `kind`, a msgspec struct; a refused document is emptied around the fault.

    Raises:
        BaselineInvalidError: A field is unknown, missing, of a wrong type, or outside its range.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `")
        name, value = _locate(document, kind, path.rstrip("`"), str(error))
        subject = name if isinstance(value, dict | list) else f"{cut(name, 150)} is {shown(value)}"
        unknown = unknown_field(document, kind) if "unknown field" in problem else None
        allowed = f"; allowed: {', '.join(unknown.allowed)}" if unknown is not None else ""
        raise invalid(where, f"{cut(subject, 240)}: {problem}{allowed}") from None


def canonical(value: object, *, where: str) -> bytes:
    """Return the one JSON text of `value`: sorted keys, no spaces; equal values give equal bytes.

    Raises:
        BaselineInvalidError: A number is not finite (plain encoding would write null), or a value has no JSON form.
    """
    try:
        _check_values(msgspec.to_builtins(value), where)
        return msgspec.json.encode(value, order="sorted")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise invalid(where, cut(str(error), 120)) from error


def leaves(document: object) -> Iterator[tuple[Path, object]]:
    """Yield every key, and every value that is neither object nor array, with its path, in their order.

    >>> [(path_text(path), value) for path, value in leaves({"a": [1, {"b": 2}]})]
    [('', 'a'), ('a[0]', 1), ('a[1]', 'b'), ('a[1].b', 2)]

    Raises:
        RecursionError: Nested more than 64 deep.
    """
    # No recursion, and no path as text before there is a fault: the file chooses how deep and how long they are.
    pending: list[tuple[Path, Iterator[tuple[str | int | None, object]]]] = [(None, iter([(None, document)]))]
    while pending:
        parent, items = pending[-1]
        step, value = next(items, (None, _END))
        path = parent if step is None else (parent, step)
        if value is _END:
            pending.pop()
        elif not isinstance(value, dict | list | tuple):
            yield path, value
        elif len(pending) > _MAX_DEPTH:
            raise RecursionError(f"nested more than {_MAX_DEPTH} deep")
        elif isinstance(value, dict):
            yield from ((path, key) for key in value)
            pending.append((path, iter(value.items())))
        else:
            pending.append((path, iter(enumerate(value))))


def path_text(path: Path) -> str:
    """Return a path as text, such as `identity.calls[0].sigmas`."""
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return "".join(reversed(steps)).lstrip(".")


def _check_values(document: object, where: str) -> None:
    if _is_plain(document):  # a walk in Python, which finds the path, takes seconds for the largest files
        return
    try:
        for path, value in leaves(document):
            problem = _value_problem(value)
            if problem:
                name = cut(path_text(path), 150) or "the document"
                raise invalid(where, f"{name} is {shown(value)}: {problem}")
    except RecursionError as error:
        raise invalid(where, f"the document is {error}") from None


def _is_plain(document: object) -> bool:
    """Return whether every value is finite, of 64 bits and valid Unicode, and nothing is nested too deeply."""
    level: list[Any] = [[document]]
    for _ in range(_MAX_DEPTH + 1):
        children = (node.values() if isinstance(node, dict) else node for node in level)
        level = [child for nodes in children for child in nodes if isinstance(child, dict | list | tuple)]
        if not level:
            break
    else:
        return False
    try:
        json.dumps(document, allow_nan=False)
        return not _LONG_INTEGER.search(msgspec.json.encode(document))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False


def _value_problem(value: object) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "every number must be finite"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "every integer must fit into 64 bits"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "a text must be valid Unicode, without lone surrogates"
    return None


def _locate(document: Any, kind: type[object], path: str, message: str) -> tuple[str, object]:
    """Return the exact path and value of a fault at msgspec's `path`, which writes a mapping's keys as `[...]`."""
    node, name = document, ""
    for field, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", path):
        key = _guilty_key(document, node, kind, message) if index == "..." else field or int(index)
        node = node[key]
        name += f"[{key}]" if index and index != "..." else f".{key}"
    return name.lstrip(".") or "the document", node


def _guilty_key(document: object, mapping: dict[str, object], kind: type[object], message: str) -> str:
    """Return the first key for which `document` is refused with `message`; `mapping` is left with that key alone."""
    entries = list(mapping.items())
    while len(entries) > 1:
        half = entries[: len(entries) // 2]
        mapping.clear()
        mapping.update(half)
        entries = half if _refusal(document, kind) == message else entries[len(half) :]
    mapping.clear()
    mapping.update(entries)
    return entries[0][0]


def _refusal(document: object, kind: type[object]) -> str | None:
    try:
        msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return None
