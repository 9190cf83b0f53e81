"""The commit of the project that is tested."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_DIGITS = 12


def find_commit(root: Path) -> str | None:
    """Return the first 12 digits of the commit, "+" behind them where tracked files differ; None where git tells none.

    What CI says it checked out comes first: its clone may be shallow, or hold a merge that nobody else knows.
    """
    for name in ("GITHUB_SHA", "CI_COMMIT_SHA"):
        if os.environ.get(name):
            return os.environ[name][:_DIGITS]
    head = _git(root, "rev-parse", f"--short={_DIGITS}", "HEAD")
    if not head:
        return None
    return f"{head}+" if _git(root, "status", "--porcelain", "--untracked-files=no") else head


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit yet
        return None
    return done.stdout.strip()
