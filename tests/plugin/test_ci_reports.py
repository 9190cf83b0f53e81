import base64
import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from gate_project import GateDirectory


@pytest.fixture
def failing(gates: GateDirectory, monkeypatch: pytest.MonkeyPatch) -> GateDirectory:
    """A project with a regression."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE", "GITLAB_CI", "CI_PROJECT_DIR"):
        monkeypatch.delenv(name, raising=False)
    gates.behave(shift={"nvfp4": 50})
    return gates


def properties_of(path: Path, name: str) -> dict[str | None, str | None]:
    case = next(case for case in ET.parse(path).getroot()[0] if case.get("name") == name)
    return {entry.get("name"): entry.get("value") for entry in case.iter("property")}


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["plain", "xdist"])
def test_junit_has_the_verdict_s_facts_as_properties(failing: GateDirectory, workers: tuple[str, ...]) -> None:
    run = failing.run_apart if workers else failing.run
    run("--mxq-formats=nvfp4", "--mxq-emulate", "--junit-xml=junit.xml", *workers)
    found = properties_of(failing.path / "junit.xml", "test_gate[nvfp4-lpips]")
    assert float(found.pop("mxq_worst") or 0) == pytest.approx(0.05)
    assert float(found.pop("mxq_observed") or 0) == pytest.approx(0.05)
    images = (found.pop("mxq_images") or "").split()
    assert "--mxq-formats=nvfp4" in (found.pop("mxq_next") or "")
    assert found == {
        "mxq_outcome": "regression",
        "mxq_format": "nvfp4",
        "mxq_gate": "lpips",
        "mxq_model": "demo",
        "mxq_case": "test_gate",
        "mxq_bound": "0.02",
        "mxq_worst_bound": "0.04",
        "mxq_reference": "live",
        "mxq_emulated": "true",
    }
    assert [(failing.path / "mxq-report" / image).exists() for image in images] == [True] * 3


def test_junit_of_a_skipped_gate_has_what_is_known(failing: GateDirectory) -> None:
    failing.run("--mxq-formats=nvfp4", "--junit-xml=junit.xml")
    found = properties_of(failing.path / "junit.xml", "test_gate[nvfp4-lpips]")
    assert (found["mxq_outcome"], found["mxq_gate"], "mxq_observed" in found) == ("skipped", "lpips", False)


def test_gitlab_finds_the_images_of_a_failure_as_attachments(
    failing: GateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("CI_PROJECT_DIR", str(failing.path.parent))
    result = failing.emulated("--junit-xml=junit.xml", "-o", "junit_logging=system-out")
    assert "ATTACHMENT" not in result.stdout.str()
    texts = {case.get("name"): case.findtext("system-out") or "" for case in ET.parse("junit.xml").getroot()[0]}
    assert (
        f"[[ATTACHMENT|{failing.path.name}/mxq-report/demo/test_gate/nvfp4/00-sheet.png]]"
        in (texts["test_gate[nvfp4-lpips]"])
    )
    assert "ATTACHMENT" not in texts["test_gate[mxfp8-lpips]"]


def test_nothing_is_attached_outside_of_gitlab(failing: GateDirectory) -> None:
    assert "ATTACHMENT" not in failing.emulated("--junit-xml=junit.xml", "-o", "junit_logging=system-out").stdout.str()
    assert "ATTACHMENT" not in Path("junit.xml").read_text()


HTML_STAND_IN = """
def pytest_addoption(parser):
    parser.addoption("--html", dest="htmlpath", default=None)

def pytest_runtest_logreport(report):
    if report.when == "call" and getattr(report, "extras", None):
        import json
        with open(report.nodeid.partition("[")[2][:-1] + ".json", "w") as file:
            json.dump(report.extras, file)
"""


def test_pytest_html_gets_the_images(failing: GateDirectory) -> None:
    conftest = failing.path / "conftest.py"
    conftest.write_text(conftest.read_text() + HTML_STAND_IN)
    failing.emulated("--html=page.html", "--mxq-gates=lpips")
    extras = json.loads((failing.path / "nvfp4-lpips.json").read_text())
    assert [extra["format_type"] for extra in extras] == ["image"] * 3
    assert base64.b64decode(extras[0]["content"]).startswith(b"\x89PNG")


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["plain", "xdist"])
def test_github_gets_one_summary_and_the_annotations(
    failing: GateDirectory, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    page = failing.path / "page.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(failing.path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    run = failing.run_apart if workers else failing.run
    result = run("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", *workers)
    commands = [line for line in result.stdout.lines if line.startswith("::")]
    assert [line.partition(",")[0] for line in commands] == ["::error file=test_it.py"]
    assert page.read_text().count("pytest-mxq -->") == 1
    assert (failing.path / "mxq-report/summary.md").read_text() in page.read_text()


def test_a_summary_that_cannot_be_written_is_a_caution_and_no_failure(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(gates.path / "absent" / "page.md"))
    result = gates.emulated()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["note: the report could not be written: *absent*"])


def test_no_path_of_the_machine_stands_in_what_others_read(failing: GateDirectory) -> None:
    failing.emulated("--junit-xml=junit.xml", f"--mxq-report={failing.path / 'out'}")
    for name in ("out/summary.md", "out/report.json", "out/report.jsonl"):
        assert str(failing.path) + os.sep not in (failing.path / name).read_text()
