"""What .ci/check_wheel.py refuses in a wheel."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "check_wheel.py"
COMPLETE = [
    "pytest_mxq/py.typed",
    "pytest_mxq/plugin.py",
    "pytest_mxq/reports/page/index.html.j2",
    "pytest_mxq/reports/page/page.css",
    "pytest_mxq/reports/page/page.js",
    "pytest_mxq/assets/demo_model/transformer/diffusion_pytorch_model.safetensors",
    "pytest_mxq/assets/lpips/alexnet_features.safetensors",
    "pytest_mxq-0.1.0.dist-info/entry_points.txt",
    "pytest_mxq-0.1.0.dist-info/licenses/LICENSE",
    "pytest_mxq-0.1.0.dist-info/licenses/THIRD_PARTY_NOTICES.md",
]


@pytest.fixture(scope="module")
def find_faults() -> Callable[[Sequence[str], int], Iterator[str]]:
    spec = importlib.util.spec_from_file_location("check_wheel", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[Sequence[str], int], Iterator[str]] = module.find_faults
    return found


def test_a_complete_wheel_has_no_faults(find_faults: Callable[[Sequence[str], int], Iterator[str]]) -> None:
    assert list(find_faults(COMPLETE, 27_000_000)) == []


def test_a_wheel_above_30_mb_is_refused(find_faults: Callable[[Sequence[str], int], Iterator[str]]) -> None:
    assert len(list(find_faults(COMPLETE, 30_000_001))) == 1


@pytest.mark.parametrize("missing", COMPLETE)
def test_a_wheel_without_a_required_file_is_refused(
    find_faults: Callable[[Sequence[str], int], Iterator[str]], missing: str
) -> None:
    assert len(list(find_faults([name for name in COMPLETE if name != missing], 1))) == 1


@pytest.mark.parametrize("extra", ["tests/test_x.py", "conftest.py", "pytest_mxq/tests/x.py", "pytest_mxq/a.pyc"])
def test_a_wheel_with_tests_or_bytecode_is_refused(
    find_faults: Callable[[Sequence[str], int], Iterator[str]], extra: str
) -> None:
    assert any(extra in fault for fault in find_faults([*COMPLETE, extra], 1))
