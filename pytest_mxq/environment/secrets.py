"""Texts without credentials: what is written to a file or a page may be published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

HIDDEN = "***"

# Tokens of Hugging Face, GitHub, GitLab, AWS and Slack by their published prefixes.
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|AKIA[A-Z0-9]{16}"
    r"|xox[abprs]-[\w-]{10,})"
)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s@\"'<>]+(?=@)")
_SECRET_IN_QUERY = re.compile(
    r"(?i)(?<=[?&])((?:[\w-]*(?:token|key|secret|password|signature|sig|credential))=)[^&\s#\"'<>]+"
)
_NAME = re.compile(r"(?i)token|secret|password|passwd|credential|api_?key|access_?key|private_?key")
_MIN_VALUE = 8
"""Shorter values of variables are no secrets, and their text would be hidden where it means something else."""


def without_secrets(text: str, values: Iterable[str] = ()) -> str:
    """Return a text with ``***`` for credentials in URLs, for known kinds of tokens, and for some values.

    >>> without_secrets("https://user:pass@host/simple?token=abc&x=1")
    'https://***@host/simple?token=***&x=1'
    """
    for value in values:
        text = text.replace(value, HIDDEN)
    text = _USER_IN_URL.sub(HIDDEN, text)
    text = _SECRET_IN_QUERY.sub(rf"\1{HIDDEN}", text)
    return _TOKEN.sub(HIDDEN, text)


def secret_values(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of the variables that hold secrets by their names, the longest first.

    >>> secret_values({"HF_TOKEN": "0123456789", "HOME": "/root", "API_KEY": "short"})
    ('0123456789',)
    """
    found = {value for name, value in environ.items() if _NAME.search(name) and len(value) >= _MIN_VALUE}
    return tuple(sorted(found, key=len, reverse=True))
