"""The quantization library's first import, uncompiled, in a project whose warnings are errors."""

import pytest

BAD = r'PATTERN = "\."' + "\n"
INI = "[pytest]\nfilterwarnings = error\n"


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Return a project with a module named as torchao's are, and one of its own, both with an invalid escape sequence."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    pytester.makeini(INI)
    for name in ("torchao_module", "own_module"):
        (pytester.path / f"{name}.py").write_text(BAD)
    return pytester


def test_a_test_module_that_imports_it_is_collected(project: pytest.Pytester) -> None:
    project.makepyfile("import torchao_module\ndef test_x():\n    pass\n")
    project.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=1)


def test_a_test_that_imports_it_passes(project: pytest.Pytester) -> None:
    project.makepyfile("def test_x():\n    import torchao_module\n")
    project.runpytest_subprocess("-p", "no:randomly").assert_outcomes(passed=1)


def test_without_the_plugin_collection_fails(project: pytest.Pytester) -> None:
    project.makepyfile("import torchao_module\ndef test_x():\n    pass\n")
    project.runpytest_subprocess("-p", "no:randomly", "-p", "no:mxq").assert_outcomes(errors=1)


def test_an_invalid_escape_of_the_project_itself_is_still_an_error(project: pytest.Pytester) -> None:
    project.makepyfile("import own_module\ndef test_x():\n    pass\n")
    project.runpytest_subprocess("-p", "no:randomly").assert_outcomes(errors=1)
