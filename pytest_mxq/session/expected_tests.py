"""The gate tests in the files of a run, read from their source: what a hook left out never became an item."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mxq.planning.markers import PIPELINE

if TYPE_CHECKING:
    import pytest


def gate_tests_in_source(config: pytest.Config) -> Iterator[str]:
    """Yield the nodeids, without parameters, of the gate tests in every file that was asked for as a whole."""
    for path in dict.fromkeys(_asked_files(config)):
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_relative_to(config.rootpath) else ""
        if "mxq" in text:
            place = path.relative_to(config.rootpath).as_posix()
            yield from (f"{place}::{name}" for name in _tests_of(text, config))


def place_of_test(item: pytest.Item) -> str:
    """Return the nodeid of an item without its parameters."""
    parent = item.parent.nodeid if item.parent is not None else ""
    return f"{parent}::{getattr(item, 'originalname', None) or item.name}"


def _asked_files(config: pytest.Config) -> Iterator[Path]:
    for argument in config.args:
        path = Path(os.path.normpath(config.invocation_params.dir / argument))
        if path.is_dir():
            yield from _files_below(path, config)
        elif path.is_file() and path.suffix == ".py":
            yield path


def _files_below(folder: Path, config: pytest.Config) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not _matches(name, config.getini("norecursedirs")) and not Path(place, name, "pyvenv.cfg").exists()
        ]
        yield from (Path(place, name) for name in files if _matches(name, config.getini("python_files")))


def _tests_of(text: str, config: pytest.Config) -> Iterator[str]:
    try:
        module = ast.parse(text)
    except SyntaxError:  # a failure of its collection
        return
    yield from _tests_among(module.body, config)


def _tests_among(body: Iterable[ast.stmt], config: pytest.Config) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef) and _is_named(node.name, config.getini("python_functions")):
            names = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
            if PIPELINE in names or any("mxq" in ast.unparse(decorator) for decorator in node.decorator_list):
                yield node.name
        elif isinstance(node, ast.ClassDef) and _is_named(node.name, config.getini("python_classes")):
            yield from (f"{node.name}::{name}" for name in _tests_among(node.body, config))


def _is_named(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether pytest collects a function or class of this name: each pattern is a prefix or has wildcards."""
    return any(name.startswith(pattern) or fnmatch(name, pattern) for pattern in patterns)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
