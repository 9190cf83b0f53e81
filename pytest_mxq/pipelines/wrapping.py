"""Replace methods for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def wrapped(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Replace a method of an object or a class meanwhile; what replaced ours since then stays."""
    own = vars(owner).get(name)
    replacement = wrap(getattr(owner, name))
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if vars(owner).get(name) is replacement:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)
