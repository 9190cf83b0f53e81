"""Parts of the plugin that ``-p no:NAME`` switches off."""

from __future__ import annotations

import pytest

from pytest_mxq import plugin

NAMES = """
def pytest_sessionfinish(session):
    names = [name for name, _ in session.config.pluginmanager.list_name_plugin() if name.startswith("mxq-")]
    print("registered:", *sorted(names))
"""
OPTIONS = {"gates": ("--mxq-formats=mxfp8", "--mxq-emulate"), "plans": ("--mxq-formats=mxfp8", "--mxq-plan")}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", plugin._PARTS)
def test_a_part_that_is_switched_off_is_a_usage_error(
    name: str, options: tuple[str, ...], pytester: pytest.Pytester
) -> None:
    pytester.makepyfile("def test_one(): pass")
    result = pytester.runpytest_subprocess("-p", f"no:{name}", *options)
    assert result.ret is pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(f"ERROR: -p no:{name} switches off a part of pytest-mxq*-p no:mxq*")
    result.stdout.no_fnmatch_line("*passed*")


@pytest.mark.parametrize("name", plugin._PARTS)
def test_a_run_that_gates_nothing_does_without_any_part(name: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_one(): pass")
    pytester.runpytest_subprocess("-p", f"no:{name}").assert_outcomes(passed=1)


def test_every_name_that_is_registered_is_among_them(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(NAMES)
    pytester.makepyfile("def test_one(): pass")
    found: set[str] = set()
    for options in OPTIONS.values():
        lines = pytester.runpytest_subprocess("-s", *options).stdout.lines
        found.update(*(line.split("registered:")[1].split() for line in lines if "registered:" in line))
    assert found == {*plugin._PARTS}
