"""Fit a sentence into columns of a terminal: never cut within a number, or between a number and its unit."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from typing import Any

ELLIPSIS = "..."

# A space after a digit and before a word joins a number and its unit: "41.49 dB", "95 %", "8 images".
_BREAK = re.compile(r"(?<=[^\d\s])\s+|\s+(?=[^\w\s%])")
_JOINT = re.compile(r"(?<=\d) (?=[\w%])")
_DANGLING = " ,;:<>=([-"  # says nothing at the end of a shortened sentence


def display_width(text: str) -> int:
    """Return the columns that a terminal gives a text: two for a wide character, none for a combining one.

    >>> display_width("0.25 dB"), display_width("小猫")
    (7, 4)
    """
    return sum(map(_columns, unicodedata.normalize("NFC", text)))


def shorten(text: str, width: int) -> str:
    """Return a text's first line in at most ``width`` columns, an ellipsis in place of the words that are left out.

    Args:
        text: a sentence.
        width: columns; below three nothing is left.

    >>> shorten("mean 41.49 dB < 44.00 dB", 20)
    'mean 41.49 dB ...'
    >>> shorten("mean 41.49 dB < 44.00 dB", 16)
    'mean ...'
    """
    line = text.partition("\n")[0]
    if display_width(line) <= width:
        return line
    ends = [match.start() for match in _BREAK.finditer(line)]
    starts = (f"{line[:end].rstrip(_DANGLING)} {ELLIPSIS}" for end in reversed(ends))
    candidates = [*(start for start in starts if not start.startswith(" ")), ELLIPSIS]
    return next((candidate for candidate in candidates if display_width(candidate) <= width), "")


def wrap(text: str, width: int, **options: Any) -> list[str]:
    """Return a text in lines of at most ``width`` columns, as ``textwrap.wrap`` with its options, numbers with units.

    >>> wrap("mean 41.49 dB < 44.00 dB", 9)
    ['mean', '41.49 dB', '<', '44.00 dB']
    """
    lines = textwrap.wrap(_JOINT.sub("\u00a0", text), max(1, width), break_on_hyphens=False, **options)
    return [line.replace("\u00a0", " ") for line in lines]


def _columns(character: str) -> int:
    category = unicodedata.category(character)
    if category in {"Mn", "Me", "Cc", "Cf", "Zl", "Zp"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"F", "W"} else 1
