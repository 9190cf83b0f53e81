"""Hooks by which a plugin or the root conftest.py registers formats, models and gates of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_mxq.formats import Format
    from pytest_mxq.gates.base import Gate
    from pytest_mxq.models import Recipe


@pytest.hookspec
def pytest_mxq_formats() -> Iterable[Format]:  # type: ignore[empty-body]
    """Return formats to register beside the built-in ones; a name that is taken is an error."""


@pytest.hookspec
def pytest_mxq_models() -> Iterable[Recipe]:  # type: ignore[empty-body]
    """Return models to register beside the built-in ones; a name that is taken is an error."""


@pytest.hookspec
def pytest_mxq_gates() -> Iterable[Gate]:  # type: ignore[empty-body]
    """Return gates to register beside the built-in ones; a name that is taken is an error."""


@pytest.hookspec(firstresult=True)
def pytest_mxq_machine() -> Any:
    """Return the `pytest_mxq.evaluation.protocols.Machine` to run on, instead of this one; for tests of plugins.

    `pytest_mxq.testing` has machines: a CPU, an H100, a B200, a GPU of compute capability 12.0, with a fake backend.
    """
