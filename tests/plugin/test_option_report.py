import json
import re
import shlex
import xml.etree.ElementTree as ET

import pytest
from gate_project import GateDirectory
from PIL import Image


def test_a_failed_bound_shows_as_regression_with_everything_that_one_needs(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh")
    gates.behave(shift={"nvfp4": 50})
    result = gates.emulated("-v")
    result.assert_outcomes(failed=1, passed=3)
    result.stdout.fnmatch_lines(
        [
            "*test_gate?nvfp4-lpips? REGRESSION*",
            "demo/test_gate: reference stored",
            "  nvfp4 (emulated)  lpips  REGRESSION  0.0500    0.0500  <= 0.0200, 0.0400",
            "*= regressions =*",
            "demo nvfp4 (emulated) lpips   mean 0.0500 > 0.0200, worst 0.0500 > 0.0400",
            "  worst     0.0500  'a *'",
            "  images    3: mean 0.0500*",
            "  baseline  stored: *test_gate.json (same hardware and software;",
            "            regenerated BF16 outputs are bit-identical)",
            "  noise     BF16 against BF16: lpips repeated 0.0000, eager against compiled 0.0010",
            "  evidence  4 of 5 Linear layers quantized, 80.0% of their weights, 0.500 of the bytes*",
            "  look at   mxq-report/demo/test_gate/nvfp4/0?-sheet.png",
            "  report    mxq-report/index.html#demo-test_gate-nvfp4-lpips",
            "  next      *pytest 'test_it.py::test_gate?nvfp4-lpips?' --mxq-formats=nvfp4 * --mxq-emulate",
            "REGRESSION test_it.py::test_gate?nvfp4-lpips? - mean 0.0500 > 0.0200, *",
        ]
    )


def test_a_bound_of_the_worst_image_alone_can_fail(gates: GateDirectory) -> None:
    gates.behave(shift={"nvfp4": [1, 1, 45]})
    result = gates.emulated()
    result.assert_outcomes(failed=1, passed=3)
    result.stdout.fnmatch_lines(["demo nvfp4 (emulated) lpips   worst 0.0450 > 0.0400, mean 0.0157 <= 0.0200"])
    assert gates.report()["verdicts"][2]["scores"]["worst_index"] == 2


@pytest.mark.parametrize("started_in", [".", "sub"])
def test_the_next_command_collects_exactly_the_one_item(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch, started_in: str
) -> None:
    gates.behave(shift={"nvfp4": 50})
    (gates.path / "sub").mkdir(exist_ok=True)
    monkeypatch.chdir(gates.path / started_in)
    (gates.path / started_in / "behaviour.json").write_text('{"shift": {"nvfp4": 50}}')
    result = gates.emulated("--mxq-baselines=base lines", str(gates.path / "test_it.py"))
    found = re.search(r"^  next      .*pytest ('.*)$", result.stdout.str(), re.MULTILINE)
    assert found
    again = gates.run(*shlex.split(found.group(1)), "--collect-only", "-q")
    again.stdout.fnmatch_lines(["*test_gate?nvfp4-lpips?", "1 test collected*"])


def test_images_are_written_before_the_assertion_and_show_three_tiles(gates: GateDirectory) -> None:
    gates.behave(shift={"nvfp4": 50})
    gates.emulated("-x")
    path = next((gates.path / "mxq-report").rglob("nvfp4/*-sheet.png"))
    with Image.open(path) as image:
        assert image.width > 2 * image.height


def test_the_json_report_holds_every_cell_with_numbers_bound_evidence_and_fingerprint(gates: GateDirectory) -> None:
    gates.emulated()
    report = gates.report()
    assert report["schema_version"] == 2
    assert report["settings"]["formats"] == ["mxfp8", "nvfp4"]
    assert "torch" in report["fingerprint"]["hard"]
    record = report["verdicts"][0]
    assert record["cell"]["nodeid"] == "test_it.py::test_gate[mxfp8-lpips]"
    assert record["observed"] == pytest.approx(0.01)
    assert (record["bound"], record["worst_bound"], record["emulated"]) == (0.02, 0.04, True)
    assert len(record["scores"]["values"]) == 3
    assert record["evidence"]["quantized"] == 4
    assert record["fingerprint"]["device"] == "cpu-x86-64"


def test_the_journal_has_the_planned_cells_before_the_verdicts(gates: GateDirectory) -> None:
    gates.emulated()
    lines = [json.loads(line) for line in (gates.path / "mxq-report/report.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["planned"] * 4 + ["verdict"] * 4


def test_a_killed_run_leaves_the_plan_and_the_verdicts_so_far(gates: GateDirectory) -> None:
    path = gates.path / "test_it.py"
    path.write_text(
        path.read_text()
        .replace("import pytest", "import os\nimport pytest\nCALLS = []")
        .replace("    return mxq", "    CALLS.append(1)\n    len(CALLS) > 7 and os._exit(9)\n    return mxq")
    )
    assert gates.run_apart("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate").ret == 9
    lines = [json.loads(line) for line in (gates.path / "mxq-report/report.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["planned"] * 4 + ["verdict"] * 2


def test_the_report_goes_where_the_option_says(gates: GateDirectory) -> None:
    gates.emulated("--mxq-report=out/there")
    assert (gates.path / "out/there/report.json").exists()
    assert not (gates.path / "mxq-report").exists()


def test_junit_counts_the_failure_and_carries_a_few_numbers(gates: GateDirectory) -> None:
    gates.behave(shift={"nvfp4": 50})
    gates.emulated("--junit-xml=junit.xml")
    suite = ET.parse(gates.path / "junit.xml").getroot()[0]
    assert suite.get("failures") == "1"
    case = next(case for case in suite if case.get("name") == "test_gate[nvfp4-lpips]")
    properties = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
    assert properties["mxq_outcome"] == "regression"
    assert float(properties["mxq_observed"] or 0) == pytest.approx(0.05)


def test_it_works_without_a_terminal_and_without_a_cache(gates: GateDirectory) -> None:
    result = gates.emulated("-p", "no:terminal")
    assert result.ret == 0
    assert len(gates.report()["verdicts"]) == 4


def test_verdicts_of_their_own_kinds(gates: GateDirectory) -> None:
    gates.behave(shift={"nvfp4": 0})
    gates.emulated().assert_outcomes(failed=2, passed=2)
    assert gates.outcomes()["nvfp4-lpips"] == "not-quantized"
    gates.behave(quantized=0)
    gates.emulated().assert_outcomes(failed=4)
    assert set(gates.outcomes().values()) == {"not-quantized"}
    gates.behave(quantized=1)
    gates.emulated().assert_outcomes(failed=4)
    assert "only 20.0%" in gates.report()["verdicts"][0]["sentence"]
    gates.behave(faults={"nvfp4": ["image 1: constant"]})
    gates.emulated().assert_outcomes(failed=2, passed=2)
    assert gates.outcomes()["nvfp4-ssim"] == "degenerate"
    gates.behave(nan=True)
    gates.emulated().assert_outcomes(failed=4)
    assert set(gates.outcomes().values()) == {"regression"}


def test_fewer_layers_than_the_baseline_recorded_is_not_quantized(gates: GateDirectory) -> None:
    gates.run("--mxq-refresh")
    gates.behave(quantized=3)
    gates.emulated().assert_outcomes(failed=4)
    assert set(gates.outcomes().values()) == {"not-quantized"}
    gates.behave(quantized=5)
    gates.emulated().assert_outcomes(failed=4)
    assert set(gates.outcomes().values()) == {"stale"}


def test_a_degenerate_image_is_shown_and_its_prompt_named(gates: GateDirectory) -> None:
    gates.behave(faults={"nvfp4": ["constant: std 0.001"]})
    gates.emulated("--mxq-gates=lpips")
    record = gates.report()["verdicts"][1]
    assert record["outcome"] == "degenerate"
    assert record["sentence"].startswith("constant: std 0.001 (image 0: 'a small checkered green star")
    assert len(list((gates.path / "mxq-report").rglob("nvfp4/*-sheet.png"))) == 1


def test_comparisons_of_an_earlier_run_do_not_stay(gates: GateDirectory) -> None:
    gates.behave(shift={"nvfp4": 50})
    gates.emulated()
    assert len(list((gates.path / "mxq-report").rglob("nvfp4/*-sheet.png"))) == 3
    gates.behave(shift={"nvfp4": 1})
    gates.emulated().assert_outcomes(passed=4)
    assert len(list((gates.path / "mxq-report").rglob("nvfp4/*-sheet.png"))) == 1


def test_a_report_that_cannot_be_written_is_a_caution_and_no_failure(gates: GateDirectory) -> None:
    (gates.path / "mxq-report").write_text("a file stands in the way")
    result = gates.emulated()
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["note: the report could not be written: *"])


def test_a_comparison_image_that_cannot_be_written_is_a_caution_of_the_report(gates: GateDirectory) -> None:
    (gates.path / "mxq-report").mkdir()
    (gates.path / "mxq-report" / "demo").write_text("a file stands in the way")
    result = gates.emulated("--mxq-gates=lpips")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["note: the comparison images demo/test_gate/mxfp8/00-* could not be written*"])
    assert any("could not be written" in caution for caution in gates.report()["cautions"])
    assert [record["comparisons"] for record in gates.report()["verdicts"]] == [[], []]


def test_cautions_of_xdist_workers_about_images_reach_the_report(gates: GateDirectory) -> None:
    (gates.path / "mxq-report").mkdir()
    (gates.path / "mxq-report" / "demo").write_text("a file stands in the way")
    result = gates.run_apart("--mxq-formats=mxfp8", "--mxq-emulate", "-n1")
    result.assert_outcomes(passed=2)
    assert any("could not be written" in caution for caution in gates.report()["cautions"])
