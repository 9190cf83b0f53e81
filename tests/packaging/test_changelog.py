"""Changelog fragments are named and written so that towncrier collects them."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TYPES = [
    kind["directory"] for kind in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]["type"]
]
NAME = re.compile(rf"\+[a-z0-9-]+\.({'|'.join(TYPES)})\.md")
FRAGMENTS = sorted(path for path in (ROOT / "changelog.d").glob("*") if path.name != "README.md")


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_has_a_known_type_and_says_something_in_lines_of_120_columns(path: Path) -> None:
    assert NAME.fullmatch(path.name)
    text = path.read_text()
    assert len(text.split()) >= 5
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", ["speed.added.md", "+speed.feature.md", "+speed.added.rst", "+Speed.added.md"])
def test_a_fragment_of_another_name_is_refused(name: str) -> None:
    assert not NAME.fullmatch(name)


def test_the_changelog_has_the_line_below_which_releases_are_written() -> None:
    start = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["towncrier"]["start_string"]
    assert (ROOT / "CHANGELOG.md").read_text().count(start) == 1
