"""The command that runs one item again."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from pytest_mxq.gates.verdict import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """Writes the full command of one item as it must be typed where pytest was started.

    Attributes:
        root: pytest's root directory, to which nodeids are relative.
        started_in: the directory in which pytest was started.
        options: the options that the item needs besides its format.
    """

    root: Path
    started_in: Path
    options: tuple[str, ...]

    @classmethod
    def of(cls, config: pytest.Config) -> Rerun:
        """From a run's configuration; only what was given on its command line is repeated (the ini file stays)."""
        options = []
        for name in ("baselines", "media", "report", "reference"):
            value = config.getoption(f"mxq_{name}")
            if value:
                options.append(f"--mxq-{name}={value}")
        flags = ("emulate", "strict")
        options.extend(f"--mxq-{name}" for name in flags if config.getoption(f"mxq_{name}"))
        if config.option.inifilename:
            options.append(f"--config-file={config.option.inifilename}")
        return cls(root=config.rootpath, started_in=config.invocation_params.dir, options=tuple(options))

    def command(self, item: pytest.Item, cell: Cell) -> str:
        """``pytest "tests/test_x.py::test_x[nvfp4-lpips]" --mxq-formats=nvfp4 ...``, ready for a shell."""
        path, separator, rest = item.nodeid.partition("::")
        relative = os.path.relpath(self.root / path, self.started_in)
        words = ["pytest", f"{relative}{separator}{rest}", f"--mxq-formats={cell.format}", *self.options]
        return shlex.join(words)
