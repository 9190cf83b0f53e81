"""What holds of every test: none changes what the next one compiles with."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def unchanged_inductor_configuration() -> Iterator[None]:
    """Fail the test that leaves Inductor's configuration changed, instead of a later one in the same worker."""
    if "pytest_mxq.pipelines.compile" not in sys.modules:
        yield
        return
    from pytest_mxq.pipelines.compile import inductor_settings

    before = inductor_settings()
    yield
    assert inductor_settings() == before
