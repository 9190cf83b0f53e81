"""How a path is said in the terminal, and where a cell stands on the page."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mxq.gates.verdict import Cell

PAGE = "index.html"
"""Name of the page in the report's folder."""


def shown_path(path: str | Path) -> str:
    """Return a path as short as it can be said from the working directory."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def anchor_of(cell: Cell) -> str:
    """Return the name of a cell in a link to the page.

    >>> from pytest_mxq.gates.verdict import Cell
    >>> anchor_of(Cell(nodeid="t", model="owner/flux 1", case="test_x", format="nvfp4", gate="lpips"))
    'owner-flux-1-test_x-nvfp4-lpips'
    """
    text = "-".join(part for part in (cell.model, cell.case, cell.format, cell.gate) if part)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:200] or "cell"
