"""Retired words stay out of the code, its messages and docstrings, and the tests; CONTRIBUTING.md has the glossary."""

import re
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def read_table() -> Iterator[tuple[str, str]]:
    """Yield the first and the last column of the glossary's rows."""
    lines = iter((ROOT / "CONTRIBUTING.md").read_text().splitlines())
    for line in lines:
        if line == "<!-- glossary -->":
            break
    for row in list(takewhile(lambda line: not line.startswith("<!--"), lines))[2:]:
        _, retired, _, lets_pass, _ = row.split("|")
        yield retired, lets_pass


def quoted(cell: str) -> list[str]:
    """Return what stands between backticks, longest first."""
    return sorted(re.findall(r"`([^`]+)`", cell), key=len, reverse=True)


def make_pattern(words: list[str]) -> re.Pattern[str]:
    """Return what matches any of the words, with a capital too if it begins with a small letter, never inside a word."""
    return re.compile("|".join(f"(?<![A-Za-z]){_either(word)}{_end(word)}" for word in words))


def _either(word: str) -> str:
    first = f"[{word[0]}{word[0].upper()}]" if word[0].islower() else word[0]
    return first + re.escape(word[1:])


def _end(word: str) -> str:
    return "(?![A-Za-z])" if word[-1].isalpha() else ""


ROWS = list(read_table())
RETIRED = make_pattern([word for retired, _ in ROWS for word in quoted(retired)])
LETS_PASS = [phrase for _, lets_pass in ROWS for phrase in quoted(lets_pass)]


def find_retired(text: str) -> list[str]:
    """Return the retired words of a text, in order, with the parts of a camel-case name read as words."""
    for phrase in LETS_PASS:
        text = text.replace(phrase, "")
    return RETIRED.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))


def list_files() -> list[Path]:
    """Return what the glossary holds for: code and tests but this one, the checks, and all prose but past results."""
    folders = [ROOT / name for name in ("pytest_mxq", "tests", "examples")]
    code = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    prose = [ROOT / name for name in tracked("*.md") if not name.startswith(("benchmarks/results/", "tests/"))]
    checks = [file for file in sorted((ROOT / ".ci").iterdir()) if file.is_file()]
    return [file for file in (*code, *prose, *checks) if file != Path(__file__)]


def tracked(pattern: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=False)
    return listed.stdout.splitlines() or [path.name for path in ROOT.glob(pattern)]


def text_of(file: Path) -> str:
    """Return a file's text without the glossary, line by line as it stands there."""
    before, glossary, rest = file.read_text().partition("<!-- glossary -->")
    table, _, after = rest.partition("<!-- end of the glossary -->")
    return before + "\n" * table.count("\n") + after if glossary else before


def test_no_retired_word_stands_anywhere() -> None:
    found = []
    for file in list_files():
        name = file.relative_to(ROOT).as_posix()
        lines = enumerate(text_of(file).splitlines(), 1)
        found += [f"{name}:{number}: {word}" for number, line in lines for word in find_retired(line)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a picture is drawn", ["picture", "drawn"]),
        ("Pictures", ["Pictures"]),
        ("class ReferencePictures:", ["Pictures"]),
        ("drawn_by = no_room", ["drawn", "room"]),
        ("keep=(Keep(pattern),)", ["Keep("]),
        ("equal to the bit", ["to the bit"]),
        ("there is none", ["is none"]),
    ],
)
def test_a_retired_word_is_found_in_prose_and_in_names(text: str, expected: list[str]) -> None:
    assert find_retired(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "CLIPTextModel",
        "CLIP's text encoder",
        "torch.nn.utils.clip_grad_norm_",
        "x.clamp(0, 1)",
        "DrawBench",
        "a random draw",
        "headroom and mushrooms",
        "keep the file",
        "a screenshot",
        "x is None",
        "soundness",
    ],
)
def test_an_ordinary_use_passes(text: str) -> None:
    assert find_retired(text) == []


def test_every_row_of_the_glossary_is_read() -> None:
    assert len(ROWS) >= 20
    assert all(quoted(retired) for retired, _ in ROWS)
