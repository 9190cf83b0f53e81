"""What is registered by name: refusing an unknown name with the choices and the closest one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from pytest_mxq.errors import UnknownNameError


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not registered.

    Raises:
        UnknownNameError: naming it, the choices, and the closest one.
    """
    choices = tuple(known)
    if name in choices:
        return
    close = get_close_matches(name, choices, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise UnknownNameError(f"unknown {what} {name!r}{hint}; {what}s: {', '.join(choices)}")
