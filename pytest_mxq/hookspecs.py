"""Hooks by which a plugin or the root conftest.py registers formats and models of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_mxq.formats import Format
    from pytest_mxq.models import Recipe


@pytest.hookspec
def pytest_mxq_formats() -> Iterable[Format]:  # type: ignore[empty-body]
    """Formats to register beside the built-in ones; a name that is taken is an error."""


@pytest.hookspec
def pytest_mxq_models() -> Iterable[Recipe]:  # type: ignore[empty-body]
    """Models to register beside the built-in ones; a name that is taken is an error."""
