"""Warnings of other packages' compilation do not fail their first import, whatever the filters say."""

import logging
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest

from pytest_mxq.environment.third_party_warnings import silence_third_party_warnings


@pytest.fixture
def module_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module with an invalid escape sequence that no cache holds compiled."""
    (tmp_path / "escapes_badly.py").write_text(r'PATTERN = "\."' + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "escapes_badly", raising=False)
    return "escapes_badly"


def test_an_invalid_escape_fails_an_import_where_warnings_are_errors(module_name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SyntaxError, match="invalid escape sequence"):
            import_module(module_name)


def test_an_invalid_escape_is_silenced_while_the_stack_is_imported(module_name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with silence_third_party_warnings():
            assert import_module(module_name).PATTERN == r"\."


def test_other_deprecations_stay_errors_while_the_stack_is_imported() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with silence_third_party_warnings(), pytest.raises(DeprecationWarning):
            warnings.warn("use the other function", DeprecationWarning, stacklevel=1)


def test_levels_and_filters_are_as_before_afterwards() -> None:
    logger = logging.getLogger("torch.utils._pytree")
    level, filters = logger.level, list(warnings.filters)
    with silence_third_party_warnings():
        assert logger.level == logging.ERROR
    assert logger.level == level
    assert list(warnings.filters) == filters
