"""The public face: what a project may import, and that nothing heavy comes with it."""

import subprocess
import sys
from pathlib import Path

import pytest

import pytest_mxq
import pytest_mxq.testing

PUBLIC = {
    "AccuracyGate",
    "BatchCaution",
    "Bound",
    "Format",
    "Gate",
    "MarkerArguments",
    "MemoryBound",
    "MemoryFacts",
    "MemoryGate",
    "MemoryNeed",
    "MxqPipeline",
    "Outcome",
    "Recipe",
    "Scale",
    "SelectionRule",
    "SkipPattern",
    "SpeedBound",
    "SpeedFacts",
    "SpeedGate",
    "SpeedSamples",
    "__version__",
    "score_by_command",
}


def test_the_public_names_are_these_and_each_can_be_imported() -> None:
    assert set(pytest_mxq.__all__) == PUBLIC
    assert all(getattr(pytest_mxq, name) is not None for name in PUBLIC)
    assert all(getattr(pytest_mxq.testing, name) is not None for name in pytest_mxq.testing.__all__)


def test_another_name_is_refused_with_the_public_ones() -> None:
    with pytest.raises(AttributeError, match="public names: AccuracyGate, BatchCaution"):
        _ = pytest_mxq.Planner


def test_the_examples_import_public_names_alone() -> None:
    files = (Path(__file__).parents[2] / "examples").rglob("*.py")
    imports = [line.split()[1] for file in files for line in file.read_text().splitlines() if "from pytest_mxq" in line]
    assert set(imports) == {"pytest_mxq"}


def test_the_public_names_and_the_fakes_need_no_torch() -> None:
    code = (
        "import sys; from pytest_mxq import Recipe, Gate, MxqPipeline; import pytest_mxq.testing as t; "
        "t.fake_machine(t.B200).backend(lambda *_: None); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
