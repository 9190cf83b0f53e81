"""Whole gates: coverage is measured in the tests of their parts."""

from collections.abc import Iterator

import pytest
from unmeasured import without_coverage


@pytest.fixture(scope="module", autouse=True)
def unmeasured() -> Iterator[None]:
    with without_coverage():
        yield
