"""The page that a run leaves: where it lies, what it holds, and that it never decides how the run ends."""

import json
from pathlib import Path

import pytest
from gate_project import GATE_TEST, GateDirectory

SECRET = "correct-horse-battery-staple"


def page(gates: GateDirectory, folder: str = "mxq-report") -> str:
    return (gates.path / folder / "index.html").read_text(encoding="utf-8")


def history(path: Path) -> list[list[str]]:
    return [[cell["outcome"] for cell in json.loads(line)["cells"]] for line in path.read_text().splitlines()]


def test_a_run_leaves_a_page_with_the_images_of_its_worst_prompts(gates: GateDirectory) -> None:
    gates.behave(shift={"nvfp4": [10, 50, 60]})
    gates.emulated()
    text = page(gates)
    assert "1 of 4 gates got worse" in text
    assert str(gates.path) not in text
    record = next(record for record in gates.report()["verdicts"] if record["outcome"] == "regression")
    values, outputs = record["scores"]["values"], record["outputs"]
    assert [output["seed"] for output in outputs] == [0, 1, 2]
    assert record["worst_prompt"] == outputs[values.index(max(values))]["prompt"]
    for output in outputs:
        for part in ("reference", "quantized"):
            assert output[part] in text
            assert (gates.path / "mxq-report" / output[part]).is_file()


def test_single_images_of_an_earlier_run_do_not_stay(gates: GateDirectory) -> None:
    gates.behave(shift={"nvfp4": 50})
    gates.emulated()
    assert len(list((gates.path / "mxq-report").rglob("nvfp4/*-quantized.png"))) == 3
    gates.behave(shift={"nvfp4": 1})
    gates.emulated()
    assert len(list((gates.path / "mxq-report").rglob("nvfp4/*-quantized.png"))) == 1


def test_a_page_can_hold_its_images(gates: GateDirectory) -> None:
    gates.emulated("--mxq-report-embed")
    assert "data:image/png;base64," in page(gates)


def test_runs_add_up_in_the_history_and_the_page_shows_them(gates: GateDirectory) -> None:
    gates.emulated()
    gates.behave(shift={"nvfp4": 50})
    gates.emulated()
    found = history(gates.path / "mxq-report" / "history.jsonl")
    assert [len(cells) for cells in found] == [4, 4]
    assert [cells.count("regression") for cells in found] == [0, 1]
    assert "red for 1 run" in page(gates)


@pytest.mark.parametrize("how", ["option", "ini"])
def test_the_history_lies_where_it_is_asked_for(gates: GateDirectory, how: str) -> None:
    if how == "ini":
        (gates.path / "pytest.ini").write_text("[pytest]\nmxq_history = kept/all.jsonl\n")
    gates.emulated(*(["--mxq-history=kept/all.jsonl"] if how == "option" else []))
    assert len(history(gates.path / "kept" / "all.jsonl")) == 1
    assert not (gates.path / "mxq-report" / "history.jsonl").exists()


def test_no_verdict_depends_on_the_history(gates: GateDirectory) -> None:
    folder = gates.path / "mxq-report"
    folder.mkdir()
    (folder / "history.jsonl").write_bytes(b"\x00 junk\n{}\n")
    gates.emulated().assert_outcomes(passed=4)
    (folder / "history.jsonl").unlink()
    (folder / "history.jsonl").mkdir()
    result = gates.emulated()
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["note: the history could not be written: *"])
    assert "All 4 gates passed" in page(gates)


def test_a_page_that_cannot_be_written_is_a_caution_and_no_failure(gates: GateDirectory) -> None:
    (gates.path / "mxq-report" / "index.html").mkdir(parents=True)
    (gates.path / "mxq-report" / "index.html" / "file").touch()
    result = gates.emulated()
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["note: the report's page could not be written: *"])


def test_the_page_of_a_run_that_died_says_so_and_is_not_that_of_an_earlier_run(gates: GateDirectory) -> None:
    gates.emulated()
    gates.write("import os\n\ndef test_it():\n    os._exit(9)\n")
    assert gates.run_apart("--mxq-formats=mxfp8", "--mxq-emulate").ret == 9
    assert "This run did not finish: 0 of 0 gates were judged" in page(gates)


def test_no_secret_of_the_environment_or_of_an_address_is_in_any_output(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("PIP_INDEX_URL", f"https://me:{SECRET}@index.local/simple")
    address = "https://me:pa55word@hub.local/x?token=t0ken-in-query"
    gates.behave(unavailable=f"cannot load from {address} with {SECRET}")
    gates.emulated()
    assert "cannot load from" in page(gates)
    files = [path for path in (gates.path / "mxq-report").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"index.html", "report.json", "report.jsonl"}
    for path in files:
        for secret in (SECRET, "pa55word", "t0ken-in-query"):
            assert secret.encode() not in path.read_bytes(), path.name


def test_the_page_names_the_skip_and_what_was_not_run(gates: GateDirectory) -> None:
    gates.run("--mxq-formats=mxfp8")
    text = page(gates)
    assert "Nothing was judged" in text
    assert "Not run" in text


def test_a_run_under_xdist_leaves_one_page_with_all_cells(gates: GateDirectory) -> None:
    gates.run_apart("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "-n2", "--dist=load")
    assert "All 4 gates passed" in page(gates)
    assert len(history(gates.path / "mxq-report" / "history.jsonl")) == 1


def test_lpips_and_ssim_of_one_image_share_its_sheet_and_its_images(gates: GateDirectory) -> None:
    gates.behave(shift={"nvfp4": 500})
    gates.emulated("--mxq-formats=nvfp4")
    first, second = gates.typed_report().verdicts
    assert first.comparisons == second.comparisons
    assert {output.quantized for output in first.outputs} == {output.quantized for output in second.outputs}
    names = [path.name for path in (gates.path / "mxq-report/demo/test_gate/nvfp4").iterdir()]
    assert sorted(names) == sorted(
        f"{index:02d}-{part}.png" for index in range(3) for part in ("quantized", "reference", "sheet")
    )


def test_beyond_the_worst_three_a_failed_gate_has_compressed_images_of_each_prompt(gates: GateDirectory) -> None:
    gates.write(GATE_TEST.replace("prompts=3", "prompts=5"))
    gates.behave(shift={"nvfp4": [50, 60, 70, 80, 90]})
    gates.emulated("--mxq-formats=nvfp4", "--mxq-gates=lpips")
    [verdict] = gates.typed_report().verdicts
    kinds = [str(output.quantized).rpartition(".")[2] for output in verdict.outputs]
    assert kinds == ["jpg", "jpg", "png", "png", "png"]
    assert len(verdict.comparisons) == 3


def test_no_secret_is_shown_in_the_terminal_or_in_junit_xml(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    address = "https://user:hunter2@host/simple?token=abcdefgh"
    noisy = f"    import sys; print({SECRET!r}, {address!r})\n    raise RuntimeError({SECRET!r} + ' ' + {address!r})\n"
    gates.write(GATE_TEST.replace("    return mxq_pipeline", noisy + "    return mxq_pipeline"))
    shown = gates.emulated("--junit-xml=junit.xml", "-o", "junit_logging=all").stdout.str()
    written = (gates.path / "junit.xml").read_text()
    assert "RuntimeError: '***" in shown or "RuntimeError: ***" in shown
    for hidden in (SECRET, "hunter2", "abcdefgh"):
        assert [line for line in (shown + written).splitlines() if hidden in line] == []


def test_no_secret_is_shown_of_a_failed_gate_or_a_skip(gates: GateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    gates.behave(unavailable=f"the index {SECRET} https://me:hunter2@index")
    for options in ((), ("--mxq-strict", "-rs")):
        shown = gates.emulated("--junit-xml=junit.xml", *options).stdout.str() + Path("junit.xml").read_text()
        assert (SECRET in shown, "hunter2" in shown) == (False, False)
