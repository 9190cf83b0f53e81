"""A baseline that stands in another case's place judges nothing."""

from pathlib import Path

import pytest
from gate_project import GATE_TEST, GateDirectory


@pytest.fixture
def folder(gates: GateDirectory) -> Path:
    """The baselines of `test_gate` and of `test_other`, whose images are others."""
    other = GATE_TEST.replace("test_gate", "test_other").replace("mxq_pipeline(mxq_prompt)", "mxq_pipeline('another')")
    gates.write(other, "test_other.py")
    gates.run("--mxq-refresh").assert_outcomes(passed=2)
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-strict").assert_outcomes(passed=4)
    return gates.path / "baselines" / "cpu-x86-64" / "demo"


def exchange(folder: Path, suffix: str) -> None:
    one, other = folder / f"test_gate{suffix}", folder / f"test_other{suffix}"
    aside = one.rename(folder / "aside")
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize(
    ("suffixes", "outcome"), [([""], "error"), ([".json"], "error"), (["", ".json"], "stale")], ids=str
)
def test_what_was_exchanged_between_two_cases_is_not_compared_with(
    gates: GateDirectory, folder: Path, suffixes: list[str], outcome: str
) -> None:
    for suffix in suffixes:
        exchange(folder, suffix)
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-strict").assert_outcomes(failed=4)
    assert set(gates.outcomes().values()) == {outcome}


def test_a_manifest_that_links_out_of_the_baselines_fails_its_test_alone(gates: GateDirectory, folder: Path) -> None:
    (folder / "test_gate.json").rename(gates.path / "elsewhere.json")
    (folder / "test_gate.json").symlink_to(gates.path / "elsewhere.json")
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-strict").assert_outcomes(failed=2, passed=2)
    assert not gates.report()["problems"]
    assert len(gates.report()["verdicts"]) == 4


def test_a_manifest_that_links_to_another_cases_is_not_compared_with(gates: GateDirectory, folder: Path) -> None:
    (folder / "test_gate.json").unlink()
    (folder / "test_gate.json").symlink_to("test_other.json")
    gates.run("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-strict").assert_outcomes(failed=2, passed=2)
