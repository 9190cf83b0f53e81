"""The tiny LTX-2 through pytest itself: a refresh, then gates of videos and audio against what it stored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from gate_bench import without_compiler

CONFTEST = """
from dataclasses import replace
from pathlib import Path

from pytest_mxq.models.ltx2 import LTX_2, save_tiny_ltx2

SMALL = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2, "max_sequence_length": 64}


def pytest_mxq_models():
    folder = Path("tiny")
    if not folder.exists():
        save_tiny_ltx2(folder)
    rule = replace(LTX_2.rule, min_features=320)  # the width of its transformer, as 1024 is a quarter of LTX-2's
    call = {**LTX_2.call, **SMALL}
    return [replace(LTX_2, name="tiny-ltx-2", source=str(folder), rule=rule, call=call, memory=None)]
"""

TEST = """
import pytest


@pytest.mark.mxq("tiny-ltx-2", prompts=2)
@pytest.mark.mxq_lpips(max=0.10)
@pytest.mark.mxq_flicker(max=0.20)
@pytest.mark.mxq_audio(max=12)
def test_ltx2(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""


class Project:
    """A project with one gate test of videos, outside CI."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.path = pytester.path
        self.pytester = pytester
        pytester.makeini("[pytest]\nfilterwarnings = error\n")
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(test_it=TEST)

    def run(self, *options: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly", *options)

    def records(self) -> list[dict[str, Any]]:
        report: dict[str, Any] = json.loads((self.path / "mxq-report" / "report.json").read_text())
        return list(report["verdicts"])


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """On one thread of the CPU, and without a minute of compiling for the noise floor."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("CI", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)
    without_compiler(monkeypatch)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Project(pytester)
    torch.set_num_threads(threads)


def test_a_refresh_stores_videos_and_every_gate_is_judged_against_them_until_the_call_changes(project: Project) -> None:
    refreshed = project.run("--mxq-refresh")
    refreshed.assert_outcomes(passed=1)
    refreshed.stdout.fnmatch_lines(["tiny-ltx-2/test_ltx2: 2 videos -> *", "new baseline"])
    (folder,) = (project.path / "baselines").glob("*/tiny-ltx-2/test_ltx2")
    assert len(list(folder.glob("*.mkv"))) == 2

    judged = project.run("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "--mxq-strict")
    judged.assert_outcomes(passed=6)
    judged.stdout.fnmatch_lines(
        ["mxq: tiny-ltx-2/test_ltx2: reference stored *, 2 videos, same hardware and software*"]
    )
    records = project.records()
    assert {record["reference"]["mode"] for record in records} == {"stored"}
    assert {drift["value"] for record in records for drift in record["reference"]["drift"]} == {None}  # same bits
    values = {record["cell"]["gate"]: len(record["scores"]["values"]) for record in records}
    assert values == {"lpips": 2 * 9, "flicker": 2, "audio": 2}

    (project.path / "test_it.py").write_text(TEST.replace("(mxq_prompt)", "(mxq_prompt, num_frames=5)"))
    project.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-strict").assert_outcomes(failed=3)
    assert {record["outcome"] for record in project.records()} == {"stale"}
