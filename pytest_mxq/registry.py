"""What is registered by name: formats, models and gates, built in or by hook, with the same rights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Generic, Protocol, TypeVar

from pytest_mxq.errors import MxqError, UnknownNameError


class Named(Protocol):
    """Anything that is registered: it has a name."""

    @property
    def name(self) -> str:
        """What the command line, markers and test ids call it."""
        ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """The registered entries of one kind, in the order of registration.

    Args:
        what: the kind, as messages call it: "format".
        entries: the first ones.

    Raises:
        MxqError: two of one name.
    """

    def __init__(self, what: str, entries: Iterable[T] = ()) -> None:
        self._what = what
        self._entries: dict[str, T] = {}
        for entry in entries:
            self.register(entry)

    def register(self, entry: T) -> None:
        """Add an entry.

        Raises:
            MxqError: the name is taken.
        """
        if entry.name in self._entries:
            raise MxqError(
                f"{self._what} {entry.name!r} is registered twice; {self._what}s: {', '.join(self._entries)}; "
                "give one of the two another name"
            )
        self._entries[entry.name] = entry

    def replace(self, entry: T) -> None:
        """Put an entry in the place of the one of its name.

        Raises:
            UnknownNameError: no entry has this name.
        """
        check_name(self._what, entry.name, self._entries)
        self._entries[entry.name] = entry

    def get(self, name: str) -> T:
        """Return the entry of a name.

        Raises:
            UnknownNameError: no entry has this name; lists the choices and the closest one.
        """
        check_name(self._what, name, self._entries)
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """Return the registered names, in the order of registration."""
        return tuple(self._entries)

    def __iter__(self) -> Iterator[T]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries


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
