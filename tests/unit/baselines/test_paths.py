import pytest

from pytest_mxq.baselines.paths import (
    case_file_name,
    check_case_name,
    content_file_name,
    model_folder_name,
    output_file_name,
)
from pytest_mxq.errors import CaseFaultError


@pytest.mark.parametrize(
    "name", ["test_demo", "TestFlux.test_dev[b4-wide]", "a b+c=d,e", "0", "_x", "x" * 200, "v1.0", "a.json5"]
)
def test_allowed_case_names(name: str) -> None:
    check_case_name(name)
    assert "/" not in case_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "a..b",
        "a/b",
        "/a",
        "a\\b",
        "a\0b",
        "a\nb",
        "a\n",
        "a\x7fb",
        "a%2Fb",
        "a:b",
        "a*",
        "é",
        " a",
        "a ",
        "-a",
        "x" * 201,
        "[" + "x",
        "x" + "[" * 70,
        "a.json",
        "~a",
        "$a",
        "`a`",
    ],
)
def test_refused_case_names(name: str) -> None:
    with pytest.raises(CaseFaultError, match="case name") as caught:
        check_case_name(name)
    assert "@pytest.mark.mxq(..., case=" in str(caught.value)
    with pytest.raises(CaseFaultError):
        case_file_name(name)


@pytest.mark.parametrize(
    "name", ["", "..", "a/../b", "a/b/c", "/a", "a/", "a\\b", ".a", "a/.b", "a b", "a\0", "x" * 201]
)
def test_refused_model_names(name: str) -> None:
    with pytest.raises(CaseFaultError, match="model name"):
        model_folder_name(name)


@pytest.mark.parametrize(
    "name", ["owner/FLUX.1 dev", "my model", "x" * 5000, "\n" * 5000, "\ud800" * 5000, "\U0001f600" * 5000, "'" * 300]
)
def test_a_refusal_of_a_name_is_short_and_can_be_printed(name: str) -> None:
    for check in (model_folder_name, case_file_name):
        if check is case_file_name and name == "my model":
            continue  # a case may have spaces
        with pytest.raises(CaseFaultError) as caught:
            check(name)
        assert len(str(caught.value)) <= 500
        str(caught.value).encode()


def test_different_cases_never_share_a_file() -> None:
    cases = ["a[b]", "a b", "a,b", "a+b", "a=b", "a.b", "a-b", "a_b", "ab", "a[b", "a]b"]
    assert len({case_file_name(case) for case in cases}) == len(cases)


def test_model_folders_and_image_names() -> None:
    assert model_folder_name("flux.1-dev") == "flux.1-dev"
    assert output_file_name(7, "A " * 60) == f"07-{'a-' * 19}a.png"
    assert output_file_name(123, "…") == "123-prompt.png"
    assert content_file_name("123-prompt.mkv", "ab" * 32) == "123-prompt-abababab.mkv"
