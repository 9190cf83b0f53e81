"""No module is longer than 400 lines, and no seam wider than five members: a longer one does more than one thing."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_LINES = 400
MAX_MEMBERS = 5


def test_no_module_is_longer_than_400_lines() -> None:
    files = [file for name in ("pytest_mxq", "tests", "tools") for file in (ROOT / name).rglob("*.py")]
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in files}
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def protocol_members(source: str) -> dict[str, int]:
    """Count the methods and attributes of each protocol that a module defines, inherited ones left out."""
    classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    return {
        node.name: sum(isinstance(part, ast.FunctionDef | ast.AnnAssign) for part in node.body)
        for node in classes
        if any("Protocol" in ast.unparse(base) for base in node.bases)
    }


def test_no_seam_of_the_evaluation_asks_for_more_than_five_members() -> None:
    found = protocol_members((ROOT / "pytest_mxq" / "evaluation" / "protocols.py").read_text())
    assert {"Generator", "Scorer", "Processes"} <= found.keys()
    assert {name: count for name, count in found.items() if count > MAX_MEMBERS} == {}


def test_a_protocol_that_grew_is_found() -> None:
    grown = "class Wide(Base, Protocol[T]):\n    name: str\n" + "".join(f"    def f{n}(self): ...\n" for n in range(5))
    assert protocol_members(grown) == {"Wide": MAX_MEMBERS + 1}
