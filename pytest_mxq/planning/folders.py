"""Where a folder that an option or an ini file names lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

REPORT = "mxq-report"
"""The report's folder where none is named."""


def named_folder(config: pytest.Config, given: str | None, stated: str | None) -> Path | None:
    """Return a folder: as given on the command line, from where pytest was started; as stated, beside the ini file."""
    if given:
        return Path(config.invocation_params.dir, given)
    return Path(config.inipath.parent if config.inipath else config.rootpath, stated) if stated else None
