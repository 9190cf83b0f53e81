"""With the plugin installed but not asked for, a run pays nothing."""

import pytest

WITNESS = """
import sys

def pytest_unconfigure(config):
    heavy = {"torch", "numpy", "PIL", "diffusers", "torchao", "lpips", "skimage", "msgspec", "pynvml"}
    ours = {name for name in sys.modules if name.startswith("pytest_mxq")}
    assert config.pluginmanager.has_plugin("mxq")
    assert not config.pluginmanager.has_plugin("mxq-session")
    with open("loaded.txt", "w") as file:
        file.write("\\n".join(sorted((heavy & set(sys.modules)) | ours)))
"""


def test_an_idle_run_imports_nothing_heavy_and_registers_no_active_object(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(WITNESS)
    pytester.makepyfile("def test_x():\n    pass\n")
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:benchmark")
    result.assert_outcomes(passed=1)
    loaded = (pytester.path / "loaded.txt").read_text().split()
    assert loaded == [
        "pytest_mxq",
        "pytest_mxq.fixtures",
        "pytest_mxq.gates",
        "pytest_mxq.hookspecs",
        "pytest_mxq.plugin",
    ]


def test_an_idle_run_does_so_also_with_gate_tests_that_skip(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(WITNESS)
    pytester.makepyfile(
        'import pytest\n@pytest.mark.mxq("demo")\n@pytest.mark.mxq_lpips(max=0.1)\n'
        "def test_x(mxq_pipeline, mxq_prompt):\n    return mxq_pipeline(mxq_prompt)\n"
    )
    pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:benchmark").assert_outcomes(skipped=1)
    assert "torch" not in (pytester.path / "loaded.txt").read_text().split()


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
