"""The commands that judge one item again, or refresh its baseline."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mxq.planning.gate_param import REFRESH_PARAM, refresh_nodeid

if TYPE_CHECKING:
    import pytest

    from pytest_mxq.gates.verdict import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """Writes the full commands of one item as they must be typed where pytest was started.

    Attributes:
        root: pytest's root directory, to which nodeids are relative.
        started_in: the directory in which pytest was started.
        program: how pytest is started there.
        options: the options that the item needs besides its format.
        refresh_options: those of them that a refresh of its baseline needs.
    """

    root: Path
    started_in: Path
    program: tuple[str, ...]
    options: tuple[str, ...]
    refresh_options: tuple[str, ...]

    @classmethod
    def of(cls, config: pytest.Config) -> Rerun:
        """Read from a run's command line the program, and the options that the item needs besides its own format."""
        arguments = [str(argument) for argument in config.invocation_params.args]
        return cls(
            root=config.rootpath,
            started_in=config.invocation_params.dir,
            program=_program(config.invocation_params.dir),
            options=tuple(_kept(arguments, _OF_EVERY_RUN | _OF_GATES)),
            refresh_options=tuple(_kept(arguments, _OF_EVERY_RUN)),
        )

    def again(self, cell: Cell) -> str:
        """Return ``pytest "tests/test_x.py::test_x[nvfp4-lpips]" --mxq-formats=nvfp4 ...``, ready for a shell."""
        return shlex.join([*self.program, self.place(cell), f"--mxq-formats={cell.format}", *self.options])

    def refresh(self, cell: Cell, *, sessions: int = 1) -> str:
        """Return ``pytest tests/test_x.py::test_x --mxq-refresh ...``: the refresh of this case, and of no other."""
        place = refresh_nodeid(self.place(cell), formats=[cell.format], gates=[cell.gate])
        place = place.removesuffix(f"[{REFRESH_PARAM.id}]")  # without other parameters it is the test's only item
        more = [f"--mxq-refresh-sessions={sessions}"] if sessions > 1 else []
        return shlex.join([*self.program, place, *self.refresh_options, "--mxq-refresh", *more])

    def place(self, cell: Cell) -> str:
        """Return the nodeid of a cell's item, relative to where pytest was started."""
        path, separator, rest = cell.nodeid.partition("::")
        return f"{os.path.relpath(self.root / path, self.started_in)}{separator}{rest}"


def _program(started_in: Path) -> tuple[str, ...]:
    """``pytest`` where the shell finds this environment's; otherwise the path by which it can be started."""
    here = Path(sys.executable)
    for name, words in (("pytest", ("pytest",)), ("python", ("python", "-m", "pytest"))):
        found = shutil.which(name)
        if found is not None and Path(found).parent == here.parent:
            return words
    relative = os.path.relpath(here, started_in)
    return (str(here) if relative.startswith("..") else relative, "-m", "pytest")


def _kept(arguments: list[str], names: set[str]) -> Iterator[str]:
    """Yield the options of some names, and pytest's ``-p``, ``-o`` and ``-c``, in their own spelling."""
    words = iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        if name in names:
            yield word
            if not equals and name not in _FLAGS:
                yield next(words, "")
        elif word[:2] in {"-p", "-o", "-c"}:
            yield word


_OF_EVERY_RUN = {
    "-p", "-o", "-c", "--override-ini", "--config-file", "--rootdir", "--confcutdir", "--import-mode",
    "--mxq-baselines", "--mxq-media", "--mxq-report", "--mxq-weights", "--mxq-compile-cache", "--mxq-sources",
    "--mxq-history",
    "--mxq-models", "--count", "--repeat-scope",  # of pytest-repeat: its parameters stand in a nodeid
}  # fmt: skip
_FLAGS = {"--mxq-emulate", "--mxq-strict"}
_OF_GATES = {"--mxq-reference", "--mxq-alpha", "--mxq-timing", *_FLAGS}
