"""The fixtures of the plugin's tests."""

import pkgutil
from importlib import import_module

import filelock  # noqa: F401  see `imported`
import pytest
from gate_project import CONFTEST, GATE_TEST, GateDirectory
from PIL import Image, ImageChops, ImageDraw, ImageFont  # noqa: F401  see `imported`
from speed_project import FAST

import pytest_mxq

TORCH_SIDE = ("pytest_mxq.backend", "pytest_mxq.pipelines", "pytest_mxq.profiling", "pytest_mxq.metrics")


@pytest.fixture(scope="session", autouse=True)
def imported() -> None:
    """Import what a run imports, once: pytester forgets it after each run in this process.

    The next one would then load it again, as other types, with its assertions rewritten: most of what a run costs.
    """
    for module in pkgutil.walk_packages(pytest_mxq.__path__, "pytest_mxq."):
        if not module.name.startswith((*TORCH_SIDE, "pytest_mxq.formats.emulation")):
            import_module(module.name)
    Image.preinit()


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
