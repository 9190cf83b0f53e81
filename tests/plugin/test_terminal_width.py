"""The short summary at any width and with long ids: its lines fit, and no number in them is cut."""

from __future__ import annotations

import re

import pytest
from gate_project import GATE_TEST, GateDirectory

NAME = "test_{}_of_a_case"
FAULT = """
@pytest.mark.mxq("demo", prompts=3)
@pytest.mark.mxq_lpips(max=12345.678, worst=0.04)
def test_fault(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)


@pytest.mark.xfail(reason="known since 2026-11-25")
@pytest.mark.mxq("demo", prompts=3)
@pytest.mark.mxq_lpips(max=0.02)
def test_known(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""
COLOUR = re.compile(r"\x1b\[[\d;]*m")
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def summary_of(result: pytest.RunResult) -> list[str]:
    lines = [COLOUR.sub("", line) for line in result.stdout.lines]
    start = next(index for index, line in enumerate(lines) if "short test summary" in line)
    return [line for line in lines[start + 1 :] if line.startswith(("REGRESSION", "FAILED", "ERROR", "XFAIL"))]


def messages(gates: GateDirectory, result: pytest.RunResult, width: int) -> dict[str, str]:
    """Return what each line says by its gate, after a look at its width and at each of its numbers."""
    sentences = {verdict.cell.nodeid: verdict.sentence for verdict in gates.typed_report().verdicts}
    found: dict[str, str] = {}
    for line in summary_of(result):
        word, nodeid, *said = line.split(" ", 2)
        message = "".join(said).removeprefix("- ")
        if word == "XFAIL":  # the reason that the user gave, which pytest writes whole
            assert message == "known since 2026-11-25"
            continue
        assert len(line) <= width or not message, line
        assert set(NUMBER.findall(message)) <= set(NUMBER.findall(f"fault of the test: {sentences[nodeid]}"))
        found[nodeid.partition("::")[2]] = message
    return found


@pytest.mark.parametrize("options", [(), ("-n1",)], ids=["plain", "xdist"])
def test_no_number_is_cut_whatever_the_width_and_the_id(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    gates.behave(shift={"nvfp4": 50})
    source = GATE_TEST + FAULT
    names = [NAME.format("_".join(["long"] * count)) for count in range(1, 12, 2)]
    for name in names[1:]:
        source += GATE_TEST[GATE_TEST.index("@") :].replace("test_gate", name)
    gates.write(source)
    shown = []
    for width, colour in ((60, "no"), (80, "yes"), (100, "no")):
        monkeypatch.setenv("COLUMNS", str(width))
        arguments = ("--mxq-formats=nvfp4", "--mxq-emulate", "--mxq-gates=lpips", "-rA", f"--color={colour}")
        result = gates.run_apart(*arguments, *options) if options else gates.run(*arguments)
        found = messages(gates, result, width)
        assert len(found) == len(names) + 1
        shown.append(found["test_gate[nvfp4-lpips]"])
    assert shown == ["mean ...", "mean 0.0500 > 0.0200, worst ...", "mean 0.0500 > 0.0200, worst 0.0500 > 0.0400"]


def test_on_ci_and_under_vv_nothing_is_shortened(gates: GateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    gates.behave(shift={"nvfp4": 50})
    monkeypatch.setenv("COLUMNS", "60")
    arguments = ("--mxq-formats=nvfp4", "--mxq-emulate", "--mxq-gates=lpips")
    whole = "mean 0.0500 > 0.0200, worst 0.0500 > 0.0400"
    assert summary_of(gates.run(*arguments))[0].endswith(" - mean ...")
    assert whole in summary_of(gates.run(*arguments, "-vv"))[0]
    monkeypatch.setenv("CI", "true")
    assert whole in summary_of(gates.run(*arguments))[0]


def test_other_tests_keep_their_messages(gates: GateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    gates.write("def test_other():\n    assert 0, 'a message of another test with 0.123456789 in it'\n")
    [line] = summary_of(gates.run("--mxq-formats=nvfp4", "--mxq-emulate"))
    assert line.endswith("...")
    assert len(line) == 60
