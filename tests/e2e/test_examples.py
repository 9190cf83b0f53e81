"""The examples, run as a user runs them, in processes of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_mxq.models.demo import DEMO

SUPPORT = Path(__file__).parents[1] / "support"
EXAMPLES = Path(__file__).parents[2] / "examples"
BOUND = '"mxfp8": 0.01'


def run(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "PYTEST_ADDOPTS"}}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**kept, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def verdicts(folder: Path) -> dict[str, dict[str, Any]]:
    records = json.loads((folder / "mxq-report" / "report.json").read_text())["verdicts"]
    cells = [(record["cell"], record) for record in records]
    return {f"{cell['case']} {cell['format']} {cell['gate']}": record for cell, record in cells}


def test_a_model_of_ones_own_is_gated_from_its_folder_and_fails_a_bound_that_does_not_hold(tmp_path: Path) -> None:
    project, model = tmp_path / "project", tmp_path / "my_model"
    shutil.copytree(EXAMPLES / "own_model", project, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(DEMO.source, model)
    source = (project / "test_own_model.py").read_text()
    assert BOUND in source
    tight = source.replace(BOUND, '"mxfp8": 0.000001').replace("def test_own_model", "def test_tight")
    (project / "test_tight.py").write_text(tight)
    done = run(project, "--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "--mxq-reference=live", OWN_MODEL=str(model))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found = verdicts(project)
    assert {name: record["outcome"] for name, record in found.items()} == {
        "test_own_model mxfp8 lpips": "pass",
        "test_own_model mxfp8 ssim": "pass",
        "test_own_model nvfp4 lpips": "pass",
        "test_own_model nvfp4 ssim": "pass",
        "test_tight mxfp8 lpips": "regression",
        "test_tight mxfp8 ssim": "pass",
        "test_tight nvfp4 lpips": "pass",
        "test_tight nvfp4 ssim": "pass",
    }
    record = found["test_own_model mxfp8 lpips"]
    assert record["cell"]["model"] == "own-model"
    assert record["reference"]["mode"] == "live"
    assert record["emulated"] is True
    assert record["evidence"]["weight_share"] > 0.5
    assert len(record["scores"]["values"]) == 2
    assert 0.0 < record["observed"] <= 0.01
    assert "own-model/test_tight mxfp8 (emulated) lpips   mean 0." in done.stdout


WITHOUT_COMPILER = f"""
import sys

import pytest

sys.path.append({str(SUPPORT)!r})
from gate_bench import without_compiler

without_compiler(pytest.MonkeyPatch())
"""
"""What a refresh compiles has a test of its own: that of the committed baseline."""


def test_a_gate_of_ones_own_is_refreshed_and_judged_strictly_like_the_built_in_ones(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "own_gate", project, ignore=shutil.ignore_patterns("__pycache__"))
    assert len((project / "conftest.py").read_text().splitlines()) <= 60
    (project / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    assert run(project).returncode == 0  # idle: its marker is declared, and its gates skip
    with (project / "conftest.py").open("a") as conftest:
        conftest.write(WITHOUT_COMPILER)
    refreshed = run(project, "--mxq-refresh")
    assert refreshed.returncode == 0, refreshed.stdout + refreshed.stderr
    options = ("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "--mxq-gates=mae", "--mxq-strict")
    source = (project / "test_own_gate.py").read_text()
    (project / "test_own_gate.py").write_text(source.replace('max={"mxfp8": 0.4', 'max={"mxfp8": 0.01'))
    done = run(project, *options)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found = verdicts(project)
    assert {name: record["outcome"] for name, record in found.items()} == {
        "test_own_gate mxfp8 mae": "regression",
        "test_own_gate nvfp4 mae": "pass",
    }
    record = found["test_own_gate mxfp8 mae"]
    assert record["scale"] == {"higher_is_better": False, "unit": "", "digits": 2, "noun": "image"}
    assert (record["bound"], record["worst_bound"], record["reference"]["mode"]) == (0.01, 0.8, "stored")
    assert len(record["scores"]["values"]) == 4
    assert (project / "mxq-report" / record["comparisons"][0]).is_file()
    assert "  mxfp8 (emulated)  mae   REGRESSION" in done.stdout


SCORING_MACHINE = """
from dataclasses import replace

from pytest_mxq import testing


class GateScorer(testing.FakeScorer):
    def score(self, gate, reference, other):
        return gate.score(reference, other)


def pytest_mxq_machine():
    return replace(testing.fake_machine(), scorer=GateScorer)
"""


def test_a_score_without_a_reference_is_gated_by_its_drop_from_bf16(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / "no_reference_score", project, ignore=shutil.ignore_patterns("__pycache__"))
    conftest = project / "conftest.py"
    assert len(conftest.read_text().splitlines()) <= 60
    conftest.write_text(conftest.read_text() + SCORING_MACHINE)
    (project / "behaviour.json").write_text(json.dumps({"shift": {"mxfp8": 5, "nvfp4": 60}}))
    done = run(project, "--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "--mxq-reference=live")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found = verdicts(project)
    assert {name: record["outcome"] for name, record in found.items()} == {
        "test_score_drop mxfp8 score_drop": "pass",
        "test_score_drop nvfp4 score_drop": "regression",
    }
    # Red counts 299 thousandths of the grey value that the stand-in scores.
    record = found["test_score_drop nvfp4 score_drop"]
    assert record["scores"]["values"] == pytest.approx([60 * 0.299 / 255] * 4, abs=0.003)
