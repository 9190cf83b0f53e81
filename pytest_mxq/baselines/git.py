"""What git can do about a stored file: restore it, or move it after its test; nothing is said where it cannot."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

_SECONDS = 20.0  # longer, and the advice is to measure again


def restore_command(path: Path) -> str | None:
    """Return the command that restores a file; None where git holds no other content of it."""
    is_changed = _exit_code(path, "--literal-pathspecs", "diff", "--quiet", "--") == 1
    return f"git checkout -- {_shown(path)}" if is_changed else None


def move_command(old: Path, new: Path) -> str:
    """Return the command that moves a file or folder, within git where git knows it."""
    is_tracked = _exit_code(old, "--literal-pathspecs", "ls-files", "--error-unmatch", "--") == 0
    return f"{'git mv' if is_tracked else 'mv'} {_shown(old)} {_shown(new)}"


def is_gone(word: str, beside: Path) -> bool:
    """Tell whether no Python file of the checkout that holds `beside` holds a word; False outside of a checkout."""
    return _exit_code(beside, "grep", "--untracked", "-qwF", "-e", word, "--", pathspec=":(top)*.py") == 1


def _exit_code(path: Path, *arguments: str, pathspec: str | None = None) -> int | None:
    """Return how a git command about `path` ends; None where it cannot be run."""
    try:
        folder = next((parent for parent in path.absolute().parents if parent.is_dir()), Path(path.anchor))
        about = pathspec or path.absolute().relative_to(folder).as_posix()
        command = ["git", *arguments, about]
        return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=_SECONDS).returncode
    except (OSError, subprocess.TimeoutExpired):  # no git, or a folder above may not be looked into
        return None


def _shown(path: Path) -> str:
    try:
        return shlex.quote(os.path.relpath(path))
    except OSError:  # the working directory is gone
        return shlex.quote(str(path))
