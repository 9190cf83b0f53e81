"""What no record may hold: credentials in addresses, tokens, values of secret variables."""

import pytest

from pytest_mxq.environment.secrets import secret_values, without_secrets


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("from https://me:pa55@index.local/simple", "me:pa55"),
        ("from https://token-of-mine@index.local/simple", "token-of-mine"),
        ("https://host/x?token=t0ken&y=1", "t0ken"),
        ("https://host/x?X-Amz-Signature=abcdef", "abcdef"),
        ("https://host/x?y=1&api_key=abcdef", "abcdef"),
        ("Bearer hf_ABCDEFGHIJKLMNOPQRSTUVWX", "hf_ABCDEFGHIJKLMNOPQRSTUVWX"),
        ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
        ("glpat-abcdefghij_klmnopqrst", "glpat-abcdefghij_klmnopqrst"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
    ],
)
def test_a_secret_is_hidden_and_the_rest_stays(text: str, hidden: str) -> None:
    found = without_secrets(text)
    assert hidden not in found
    assert "***" in found
    assert found.startswith(text.partition(hidden)[0])


@pytest.mark.parametrize(
    "text",
    ["mean 0.0053 > 0.0020", "a token of love", "https://host/x?y=1", "tests/t.py::x[a@b]", "torch 2.11 -> 2.12"],
)
def test_other_texts_stay(text: str) -> None:
    assert without_secrets(text) == text


def test_values_of_secret_variables_are_hidden_wherever_they_stand() -> None:
    values = secret_values({"HF_TOKEN": "correct-horse-battery", "PIP_PASSWORD": "another-secret", "TOKEN_N": "1"})
    assert without_secrets("a correct-horse-battery b another-secret 1", values) == "a *** b *** 1"
