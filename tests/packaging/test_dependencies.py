"""What is imported is declared, and what is declared is imported."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Used without an import: a fixture, command-line plugins.
NOT_IMPORTED = {"pytest-benchmark", "pytest-cov", "pytest-randomly", "pytest-rerunfailures", "pytest-xdist"}

# Comes with torch where torch is built for CUDA, and is looked for: without it PyTorch's operations emulate.
WITH_TORCH = {"triton"}


def names_of(requirements: list[str]) -> set[str]:
    return {str(canonicalize_name(Requirement(line).name)) for line in requirements} - {"pytest-mxq"}


DEPENDENCIES = names_of(PROJECT["dependencies"])
TEST = names_of(EXTRAS["test"])


def find_imports(source: str) -> Iterator[str]:
    """Yield the top-level packages that a module imports, also in functions, for types alone, and by a literal name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name.partition(".")[0] for alias in aliases)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "find_spec" | "importorskip"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name.partition(".")[0]


def find_distributions(*folders: str) -> set[str]:
    """Return the distributions that the Python files of these folders import."""
    own = {path.stem for path in (ROOT / "tests" / "support").glob("*.py")} | {"pytest_mxq", "conftest"}
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    imported = {name for file in files for name in find_imports(file.read_text())}
    owners = packages_distributions()
    third_party = imported - set(sys.stdlib_module_names) - own
    return {canonicalize_name(owner) for name in third_party for owner in owners.get(name, [name])}


@pytest.mark.parametrize(
    "source",
    [
        "import heavy.part",
        "from heavy.part import thing",
        "def f():\n    import heavy",
        "if TYPE_CHECKING:\n    from heavy import T",
        "importlib.util.find_spec('heavy')",
    ],
)
def test_an_import_is_found_wherever_it_stands(source: str) -> None:
    assert set(find_imports(source)) == {"heavy"}


def test_what_the_package_imports_is_a_dependency_or_the_extra_that_it_asks_for() -> None:
    assert find_distributions("pytest_mxq") - DEPENDENCIES - WITH_TORCH - names_of(EXTRAS["video"]) == set()


def test_what_the_tests_import_is_a_dependency_or_in_their_extra() -> None:
    assert find_distributions("tests") - DEPENDENCIES - WITH_TORCH - TEST - names_of(EXTRAS["video"]) == set()


def test_every_dependency_is_imported_or_used_in_a_way_that_is_named_here() -> None:
    unused = (DEPENDENCIES | TEST | names_of(EXTRAS["video"])) - find_distributions("pytest_mxq", "tests")
    assert unused <= NOT_IMPORTED


def test_the_given_packages_stay_dependencies() -> None:
    given = {"torch", "torchao", "diffusers", "pytest", "pytest-benchmark", "lpips", "scikit-image"}
    assert given <= DEPENDENCIES


@pytest.mark.parametrize("line", [*PROJECT["dependencies"], *EXTRAS["video"], *EXTRAS["test"]])
def test_every_dependency_has_a_lower_bound_that_the_installed_one_meets(line: str) -> None:
    requirement = Requirement(line)
    if canonicalize_name(requirement.name) == "pytest-mxq":
        return
    assert any(specifier.operator in (">=", "~=", "==") for specifier in requirement.specifier)
    assert requirement.specifier.contains(version(requirement.name), prereleases=True)
