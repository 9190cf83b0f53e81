import pytest
from gate_project import GateDirectory


def refreshed(gates: GateDirectory) -> GateDirectory:
    gates.run("--mxq-refresh").assert_outcomes(passed=1)
    return gates


def test_a_clean_strict_run_passes(gates: GateDirectory) -> None:
    result = refreshed(gates).emulated("--mxq-strict")
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    assert gates.report()["problems"] == []


def test_a_skip_fails(gates: GateDirectory) -> None:
    result = refreshed(gates).run("--mxq-formats=mxfp8,nvfp4", "--mxq-strict")
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["2 skipped under --mxq-strict: mxfp8 needs compute capability 10.0*"])


def test_skips_of_one_reason_are_said_once_and_counted(gates: GateDirectory) -> None:
    broken = "\n\n@pytest.fixture\ndef broken():\n    raise RuntimeError('own')\n\n\n"
    broken += "".join(f"def test_own_{index}(broken):\n    pass\n\n\n" for index in range(2))
    path = gates.path / "test_it.py"
    path.write_text(path.read_text() + broken)
    result = gates.run("--mxq-formats=mxfp8,nvfp4", "--mxq-strict")
    result.assert_outcomes(errors=6)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = result.stdout.lines
    for name in ("mxfp8", "nvfp4"):
        reason = f"{name} needs compute capability 10.0"
        [line] = [line for line in lines if reason in line]
        assert line.startswith("2 skipped under --mxq-strict: ")
    assert sum(line.startswith("ERROR test_it.py::test_own") for line in lines) == 2  # none of ours: each is shown
    assert sum("ERROR at setup of " in line for line in lines) == 2


def test_a_skip_by_a_marker_of_the_user_fails_too(gates: GateDirectory) -> None:
    path = gates.path / "test_it.py"
    path.write_text(path.read_text().replace("def test_gate", "@pytest.mark.skip(reason='later')\ndef test_gate"))
    gates.emulated("--mxq-strict").assert_outcomes(errors=4)


def test_a_missing_baseline_fails(gates: GateDirectory) -> None:
    gates.emulated("--mxq-strict").assert_outcomes(failed=4)
    assert set(gates.outcomes().values()) == {"missing"}


def test_no_formats_fails(gates: GateDirectory) -> None:
    result = gates.run("--mxq-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*--mxq-strict: no formats*"])


def test_no_gate_at_all_fails(gates: GateDirectory) -> None:
    gates.write("def test_ordinary():\n    pass\n")
    result = gates.emulated("--mxq-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*--mxq-strict: no gate at all*"])


@pytest.mark.parametrize("option", ["-kmxfp8-lpips", "--deselect=test_it.py::test_gate[mxfp8-ssim]"])
def test_a_planned_gate_that_was_deselected_fails_the_run(gates: GateDirectory, option: str) -> None:
    result = refreshed(gates).emulated("--mxq-strict", option)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    advice = (
        f"*; instead of {option[:2] if option[1] == 'k' else '--deselect'} give --mxq-models, --mxq-gates or FILE::TEST"
    )
    result.stdout.fnmatch_lines([f"--mxq-strict: * planned gates were deselected {advice}"])
    assert gates.outcomes()["mxfp8-ssim"] == "not-run"


def test_what_fails_without_strictness_too_is_not_ascribed_to_it(gates: GateDirectory) -> None:
    refreshed(gates).behave(shift={"mxfp8": 100})
    result = gates.emulated("--mxq-strict", "-x", "--deselect=test_it.py::test_gate[nvfp4-ssim]")
    result.stdout.fnmatch_lines(
        ["2 planned gates did not run: *", "--mxq-strict: 1 planned gates were deselected *nvfp4-ssim*"]
    )
    gates.emulated("-x").stdout.fnmatch_lines(["3 planned gates did not run: *"])


@pytest.mark.parametrize("option", ["--lf", "--sw"])
def test_options_that_leave_out_what_passed_before_are_refused_by_name(gates: GateDirectory, option: str) -> None:
    result = gates.pytester.runpytest_inprocess("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-strict", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: *{option}*--mxq-strict*"])


def test_failed_first_leaves_out_nothing(gates: GateDirectory) -> None:
    refreshed(gates)
    options = ("--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-strict", "-p", "no:randomly", "--ff")
    gates.pytester.runpytest_inprocess(*options).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    "options", [("-x",), ("--maxfail=1",), ("--maxfail=1", "--mxq-strict", "--mxq-reference=live")]
)
def test_stopping_early_leaves_not_run_verdicts_also_without_strict(
    gates: GateDirectory, options: tuple[str, ...]
) -> None:
    gates.behave(shift={"mxfp8": 100})
    gates.emulated(*options).assert_outcomes(failed=1)
    assert gates.outcomes() == {
        "mxfp8-lpips": "regression",
        "mxfp8-ssim": "not-run",
        "nvfp4-lpips": "not-run",
        "nvfp4-ssim": "not-run",
    }


def test_a_gate_that_deselection_left_out_is_not_run_only_under_strict(gates: GateDirectory) -> None:
    gates.emulated("-kmxfp8").assert_outcomes(passed=2, deselected=2)
    assert gates.outcomes() == {"mxfp8-lpips": "pass", "mxfp8-ssim": "pass"}


def test_a_baseline_that_no_test_asks_for_fails(gates: GateDirectory) -> None:
    refreshed(gates)
    path = gates.path / "test_it.py"
    path.write_text(path.read_text().replace("def test_gate", "def test_renamed"))
    gates.run("--mxq-refresh").assert_outcomes(passed=1)
    result = gates.emulated("--mxq-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*test_gate.json belongs to no collected test*"])


def test_collect_only_is_not_judged(gates: GateDirectory) -> None:
    assert gates.emulated("--mxq-strict", "--collect-only").ret == 0


def test_the_next_command_of_a_strict_run_can_go_green(gates: GateDirectory) -> None:
    (gates.path / "test_two.py").write_text((gates.path / "test_it.py").read_text().replace("test_gate", "test_other"))
    gates.run("--mxq-refresh").assert_outcomes(passed=2)
    one = gates.run("test_it.py::test_gate[mxfp8-lpips]", "--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-strict")
    assert one.ret == 0
    assert gates.run("--mxq-gates=ssim", "--mxq-formats=mxfp8", "--mxq-emulate", "--mxq-strict").ret == 0


def test_a_baseline_that_no_test_asks_for_is_noted_also_without_strict(gates: GateDirectory) -> None:
    refreshed(gates)
    path = gates.path / "test_it.py"
    path.write_text(path.read_text().replace("def test_gate", "def test_renamed"))
    result = gates.emulated()
    assert result.ret == 0
    result.stdout.fnmatch_lines(["note: the baseline *test_gate.json belongs to no collected test*"])


LATE = """
import pytest

class Dropper:
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if "nvfp4" not in item.nodeid]
        return (yield)

def pytest_sessionstart(session):
    session.config.pluginmanager.register(Dropper())
"""


def add_to_conftest(gates: GateDirectory, source: str) -> None:
    conftest = gates.path / "conftest.py"
    conftest.write_text(f"{conftest.read_text()}\n{source}")


def test_gates_that_another_plugin_drops_before_ours_are_not_run_under_strict(gates: GateDirectory) -> None:
    add_to_conftest(gates, LATE)
    refreshed(gates)
    result = gates.emulated("--mxq-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert gates.outcomes() == {
        "mxfp8-lpips": "pass",
        "mxfp8-ssim": "pass",
        "nvfp4-lpips": "not-run",
        "nvfp4-ssim": "not-run",
    }
    assert gates.emulated().ret == 0
    assert gates.emulated("--mxq-strict", "--collect-only").ret == 0


SKIPS = [
    "import pytest\npytest.importorskip('no_such_package')\n",
    "import pytest\npytest.skip('no GPU', allow_module_level=True)\n",
]


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("options", [(), ("-n1",)])
def test_a_module_of_gates_that_is_skipped_at_its_import_fails(
    gates: GateDirectory, skip: str, options: tuple[str, ...]
) -> None:
    refreshed(gates)
    text = (gates.path / "test_it.py").read_text().replace("test_gate", "test_other")
    gates.write(skip + text, "test_skipped.py")
    assert gates.emulated().ret == 0
    result = gates.run_apart("--mxq-formats=mxfp8,nvfp4", "--mxq-emulate", "--mxq-strict", *options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    problem = gates.report()["problems"][0]
    assert problem.startswith("test_skipped.py mentions mxq and was skipped at its import: ")
    assert "no_such_package" in problem or "no GPU" in problem
    assert gates.emulated("--mxq-strict", "--collect-only").ret in {0, pytest.ExitCode.NO_TESTS_COLLECTED}


def test_a_module_of_other_tests_may_be_skipped_at_its_import(gates: GateDirectory) -> None:
    refreshed(gates)
    gates.write(SKIPS[1], "test_skipped.py")
    assert gates.emulated("--mxq-strict").ret == 0


def emulate_by(gates: GateDirectory, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    if where == "environment":
        monkeypatch.setenv("PYTEST_ADDOPTS", "--mxq-emulate")
        return
    line = "mxq_emulate = true" if where == "ini" else "addopts = --mxq-emulate"
    gates.pytester.makeini(f"[pytest]\n{line}\n")


@pytest.mark.parametrize("where", ["ini", "addopts", "environment"])
def test_emulation_that_is_not_typed_does_not_count(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    refreshed(gates)
    emulate_by(gates, monkeypatch, where)
    assert gates.run("--mxq-formats=mxfp8").ret == 0
    assert set(gates.outcomes().values()) == {"pass"}
    result = gates.run("--mxq-formats=mxfp8", "--mxq-strict")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert set(gates.outcomes().values()) == {"skipped"}
    assert "only if --mxq-emulate stands on the command line" in gates.report()["verdicts"][0]["sentence"]
    assert gates.report()["settings"]["emulate"] is False
    assert gates.run("--mxq-formats=mxfp8", "--mxq-strict", "--mxq-emulate").ret == 0


@pytest.mark.parametrize("typed", [True, False])
def test_xdist_workers_know_whether_emulation_was_typed(
    gates: GateDirectory, monkeypatch: pytest.MonkeyPatch, typed: bool
) -> None:
    refreshed(gates)
    if not typed:
        emulate_by(gates, monkeypatch, "addopts")
    options = ["--mxq-formats=mxfp8", "--mxq-strict", "-n1", *(["--mxq-emulate"] if typed else [])]
    assert gates.run_apart(*options).ret == (0 if typed else pytest.ExitCode.TESTS_FAILED)
    assert set(gates.outcomes().values()) == {"pass" if typed else "skipped"}


@pytest.mark.parametrize("option", ["gates=ssim", "models=demo", "reference=live"])
@pytest.mark.parametrize("where", ["ini", "addopts"])
def test_what_an_ini_value_leaves_out_is_said_and_fails_unless_it_is_typed(
    gates: GateDirectory, option: str, where: str
) -> None:
    refreshed(gates)
    line = f"mxq_{option}" if where == "ini" else f"addopts = --mxq-{option}"
    gates.pytester.makeini(f"[pytest]\n{line}\n")
    result = gates.emulated()
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"mxq: *{option.partition('=')[2]}*", f"note: --mxq-{option}, *left out*"])
    assert gates.emulated("--mxq-strict").ret == pytest.ExitCode.TESTS_FAILED
    assert [problem.partition(",")[0] for problem in gates.report()["problems"]] == [f"--mxq-{option}"]
    assert gates.emulated("--mxq-strict", f"--mxq-{option}").ret == 0
