"""NVFP4 at batch size 32 and above: said at collection, whatever the project makes of warnings."""

import pytest
from gate_project import SPEED_TEST, GateDirectory

LARGE = SPEED_TEST.replace("prompts=2", "prompts=2, batch_size=32")
SAID = (
    "nvfp4 at batch size 32: flux.1-dev fails from batch size 32 on (https://github.com/pytorch/ao/issues/4023); "
    "of demo nothing is known"
)


@pytest.mark.parametrize("ini", ["[pytest]\n", "[pytest]\nfilterwarnings = error\n"])
@pytest.mark.parametrize("options", [(), ("-q",), ("--collect-only",), ("-W", "error")])
def test_it_names_the_tests_and_disturbs_nothing_also_where_warnings_are_errors(
    gates: GateDirectory, ini: str, options: tuple[str, ...]
) -> None:
    gates.pytester.makeini(ini)
    gates.on_blackwell(LARGE)
    gates.behave(seconds={"mxfp8": 0.5, "nvfp4": 0.5})
    result = gates.run("--mxq-formats=mxfp8,nvfp4", *options)
    result.stdout.fnmatch_lines([f"mxq: caution: test_it.py::test_speed?nvfp4-*? and 1 more: {SAID}"])
    assert result.stdout.str().count("mxq: caution") == 1
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert result.ret == 0
    assert "warnings summary" not in result.stdout.str()


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (31, ("--mxq-formats=nvfp4",)),
        (32, ("--mxq-formats=mxfp8",)),
        (32, ("--mxq-formats=nvfp4", "-k", "test_other")),
        (32, ("--mxq-refresh",)),
    ],
)
def test_it_is_silent_where_it_does_not_matter(gates: GateDirectory, size: int, options: tuple[str, ...]) -> None:
    gates.on_blackwell(LARGE.replace("batch_size=32", f"batch_size={size}"))
    assert "caution" not in gates.run("--collect-only", *options).stdout.str()


def test_emulated_numerics_do_not_fail_there(gates: GateDirectory) -> None:
    gates.write(LARGE.replace("mxq_speedup(min=", "mxq_lpips(max=").replace("1.15", "0.1").replace("1.40", "0.1"))
    result = gates.run("--mxq-formats=nvfp4", "--mxq-gates=lpips", "--mxq-emulate", "--collect-only")
    assert "caution" not in result.stdout.str()
    result = gates.run("--mxq-formats=nvfp4", "--mxq-gates=lpips", "--collect-only")  # skipped here, and said
    result.stdout.fnmatch_lines([f"*caution: *{SAID}"])


def test_of_the_model_that_fails_it_says_so_and_of_no_other(gates: GateDirectory) -> None:
    gates.on_blackwell(LARGE.replace('"demo"', '"flux.1-dev"'))
    result = gates.run("--mxq-formats=nvfp4", "--collect-only")
    result.stdout.fnmatch_lines(
        ["*: nvfp4 at batch size 32: fails from batch size 32 on, https://github.com/pytorch/ao/issues/4023"]
    )


def test_under_xdist_the_controller_says_it_once_in_the_summary(gates: GateDirectory) -> None:
    pytest.importorskip("xdist")
    gates.write(LARGE)
    result = gates.run_apart("--mxq-formats=nvfp4", "-n2")
    result.stdout.fnmatch_lines([f"note: test_it.py::*{SAID}"])
    assert result.stdout.str().count("issues/4023") == 1
