import pytest
from gate_project import GATE_TEST, GateDirectory


def test_without_formats_a_gate_skips_once_with_one_short_reason(gates: GateDirectory) -> None:
    result = gates.run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*SKIPPED*no formats: add --mxq-formats=mxfp8,nvfp4*"])
    assert not (gates.path / "mxq-report").exists()


def test_ids_are_format_and_gate_in_the_order_that_builds_each_arm_once(gates: GateDirectory) -> None:
    result = gates.emulated("--collect-only", "-q")
    found = [line.partition("::")[2] for line in result.outlines if "::" in line]
    assert found == [f"test_gate[{name}-{gate}]" for name in ("mxfp8", "nvfp4") for gate in ("lpips", "ssim")]


def test_a_format_that_the_device_lacks_skips_and_says_what_is_needed_found_and_possible(gates: GateDirectory) -> None:
    gates.write(GATE_TEST.replace('{"mxfp8": 0.02, "nvfp4": 0.02}', "0.02"))
    result = gates.run("--mxq-formats=mxfp8,float8", "-rs")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(["SKIPPED * test_it.py:4: *"])
    text = result.stdout.str()
    assert "mxfp8 needs compute capability 10.0, found no CUDA device (cpu); --mxq-emulate runs its accuracy" in text
    assert "float8 needs compute capability 8.9" in text
    assert set(gates.outcomes().values()) == {"skipped"}


def test_an_unknown_format_is_refused_with_the_choices_before_anything_is_collected(gates: GateDirectory) -> None:
    result = gates.run("--mxq-formats=nvfp5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown format 'nvfp5' (did you mean 'nvfp4'?); formats: mxfp8*float8*"])


def test_formats_may_stand_in_the_ini_file(gates: GateDirectory) -> None:
    gates.pytester.makeini("[pytest]\nmxq_formats = nvfp4\nmxq_emulate = true\n")
    gates.run().assert_outcomes(passed=2)
    assert set(gates.outcomes()) == {"nvfp4-lpips", "nvfp4-ssim"}


def test_a_hook_registers_a_format_of_ones_own(gates: GateDirectory) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + """
from pytest_mxq.formats import Format
def pytest_mxq_formats():
    return [Format(name="int4", summary="x", capability=(8, 0), in_multiple=16, out_multiple=16,
                   native=lambda: None, emulation=lambda: None)]
"""
    )
    gates.write(
        'import pytest\n@pytest.mark.mxq("demo", prompts=2)\n@pytest.mark.mxq_lpips(max=0.02)\n'
        "def test_own(mxq_pipeline, mxq_prompt):\n    return mxq_pipeline(mxq_prompt)\n"
    )
    gates.run("--mxq-formats=int4", "--mxq-emulate").assert_outcomes(passed=1)
    (verdict,) = gates.typed_report().verdicts
    assert (verdict.cell.format, verdict.outcome, verdict.emulated) == ("int4", "pass", True)


def test_a_format_registered_twice_is_refused(gates: GateDirectory) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + """
from pytest_mxq.formats import built_in_formats
def pytest_mxq_formats():
    return built_in_formats()[:1]
"""
    )
    result = gates.emulated()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*mxfp8*registered twice*"])
