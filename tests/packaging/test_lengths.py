"""No module of the package or of its tests is longer than 400 lines: a longer one does more than one thing."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_LINES = 400


def test_no_module_is_longer_than_400_lines() -> None:
    files = [file for name in ("pytest_mxq", "tests", "tools") for file in (ROOT / name).rglob("*.py")]
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in files}
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}
