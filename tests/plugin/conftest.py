"""The fixtures of the plugin's tests."""

import pytest
from gate_project import CONFTEST, GATE_TEST, GateDirectory
from speed_project import FAST

from pytest_mxq.formats import built_in_formats
from pytest_mxq.gates import built_in_gates
from pytest_mxq.models import built_in_models
from pytest_mxq.reports import html  # noqa: F401  its template would be compiled in each run

_LOADED = (
    built_in_formats(),
    built_in_models(),
    built_in_gates(),
)  # a run in this process would load them as other types


@pytest.fixture
def gates(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> GateDirectory:
    """A project with one gate test, on a machine without a GPU, outside CI."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("COLUMNS", "100")  # whatever terminal the suite runs in
    for name in ("CI", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_it=GATE_TEST)
    return GateDirectory(pytester)


@pytest.fixture
def b200(gates: GateDirectory) -> GateDirectory:
    """A project with gates of speed and memory on a pretended B200."""
    gates.on_blackwell()
    gates.behave(seconds=FAST)
    return gates
