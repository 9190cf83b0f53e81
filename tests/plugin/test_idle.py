"""With the plugin installed but not asked for, a run pays nothing."""

import pytest

HEAVY = {"torch", "numpy", "PIL", "diffusers", "torchao", "lpips", "skimage", "msgspec", "pynvml"}
OURS = {"pytest_mxq", "pytest_mxq.fixtures", "pytest_mxq.gates", "pytest_mxq.hookspecs", "pytest_mxq.plugin"}
NOTE_MODULES = """
import sys

def pytest_unconfigure(config):
    assert not config.pluginmanager.has_plugin("mxq-session")
    with open("loaded.txt", "w") as file:
        file.write("\\n".join(sorted(sys.modules)))
"""
GATE_TEST = (
    'import pytest\n@pytest.mark.mxq("demo")\n@pytest.mark.mxq_lpips(max=0.1)\n'
    "def test_x(mxq_pipeline, mxq_prompt):\n    return mxq_pipeline(mxq_prompt)\n"
)


def load(pytester: pytest.Pytester, *options: str) -> set[str]:
    """Return what a run with these options has imported by its end, with every installed plugin but random order."""
    pytester.makeconftest(NOTE_MODULES)
    pytester.runpytest_subprocess("-p", "no:randomly", *options)
    return set((pytester.path / "loaded.txt").read_text().split())


@pytest.mark.parametrize("options", [(), ("-p", "no:benchmark")], ids=["as users have it", "without pytest-benchmark"])
def test_an_idle_run_imports_five_small_modules_of_ours_and_nothing_because_of_them(
    pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    pytester.makepyfile("def test_x():\n    pass\n")
    assert load(pytester, *options) - load(pytester, "-p", "no:mxq", *options) == OURS


def test_an_idle_run_with_pytest_benchmark_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x():\n    pass\n")
    loaded = load(pytester)
    assert "pytest_benchmark.plugin" in loaded
    assert HEAVY & loaded == set()


def test_a_run_of_gate_tests_that_asks_for_no_format_loads_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(GATE_TEST)
    assert HEAVY & load(pytester) == set()


def test_the_plugin_can_be_turned_off(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x():\n    pass\n")
    pytester.runpytest_subprocess("-p", "no:mxq").assert_outcomes(passed=1)
    result = pytester.runpytest_subprocess("-p", "no:mxq", "--mxq-formats=mxfp8")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_help_and_markers_are_declared(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--help")
    assert result.ret == 0
    for name in ("formats", "models", "gates", "baselines", "media", "reference", "emulate", "strict", "report"):
        assert f"--mxq-{name}" in result.stdout.str()
        assert f"mxq_{name} (" in result.stdout.str()
    pytester.runpytest_subprocess("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.mxq(model*", "@pytest.mark.mxq_lpips*"]
    )
