"""Parameters that another plugin gives a test, such as the step of pytest-repeat: they name no case."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

# Of a module or class: (function, parameter) -> one id for each of the parameter's values.
_IDS = pytest.StashKey[dict[tuple[str, str], list[str]]]()


def note_plugin_ids(metafunc: pytest.Metafunc) -> None:
    """Note from now on the ids of parameters that are a plugin's own: a test takes no argument of such a name.

    pytest joins the ids of all parameters in one text, which does not tell where each of them ends.
    """
    parametrize: Any = metafunc.parametrize
    own = inspect.signature(metafunc.function).parameters

    def noted(argnames: Any, argvalues: Any, *rest: Any, **named: Any) -> None:
        name = argnames if isinstance(argnames, str) else "".join(argnames)
        if name.startswith("__") and name not in own and not rest:
            argvalues = list(argvalues)
            found = _ids(argvalues, named.get("ids"))
            if found is not None:
                named["ids"] = found
                definition: Any = metafunc.definition
                definition.parent.stash.setdefault(_IDS, {})[definition.name, name] = found
        parametrize(argnames, argvalues, *rest, **named)

    metafunc.parametrize = noted  # type: ignore[method-assign]


def plugin_ids(item: pytest.Function) -> Iterator[str]:
    """Yield the ids of an item's parameters that are not the user's own."""
    noted = item.parent.stash.get(_IDS, {}) if item.parent is not None else {}
    callspec: Any = getattr(item, "callspec", None)
    for (function, name), ids in noted.items():
        if callspec is not None and function == item.originalname and name in callspec.indices:
            yield ids[callspec.indices[name]]


def without_ids(joined: str, others: Iterable[str]) -> str:
    """Return the joined ids of parameters without some of them.

    >>> without_ids("wide-2-3", ["2-3"])
    'wide'
    """
    for other in others:
        before, found, after = f"-{joined}-".rpartition(f"-{other}-")
        if found:
            joined = "-".join(part for part in (before.removeprefix("-"), after.removesuffix("-")) if part)
    return joined


def _ids(values: list[Any], ids: Any) -> list[str] | None:
    """Return what pytest would call the values; None where only pytest can tell."""
    if ids is None:
        is_plain = all(isinstance(value, str | int) for value in values)
        names = [str(value) for value in values] if is_plain else []
    else:
        names = [ids(value) for value in values] if callable(ids) else list(ids)
    is_known = all(isinstance(name, str) and name.isascii() for name in names) and len(set(names)) == len(values)
    return names if is_known else None
