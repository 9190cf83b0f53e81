"""Write the JSON schema of ``report.json``, generated from the types, into docs/report.schema.json.

python tools/report_schema.py
"""

import json
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from pytest_mxq.reports.records import Report

TARGET = Path(__file__).parents[1] / "docs" / "report.schema.json"


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``report.json``, from the types."""
    schema = msgspec.json.schema(Report)
    _sort_choices(schema)
    _clean_descriptions(schema)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    widened: dict[str, Any] = _with_texts_for_numbers(schema)
    return widened


def _sort_choices(node: Any) -> None:
    """Sort the members of each ``anyOf`` in place: releases of msgspec order them differently."""
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _sort_choices(child)
    if isinstance(node, dict) and "anyOf" in node:
        node["anyOf"].sort(key=json.dumps)


def _clean_descriptions(node: Any) -> None:
    """Take the indentation out of docstrings in place, as Python 3.13 does when it compiles them."""
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _clean_descriptions(child)
    if isinstance(node, dict) and isinstance(node.get("description"), str):
        node["description"] = cleandoc(node["description"])


def _with_texts_for_numbers(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_with_texts_for_numbers(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "number":
        return {"anyOf": [schema, {"enum": ["inf", "-inf", "nan"]}]}
    return {key: _with_texts_for_numbers(item) for key, item in schema.items()}


if __name__ == "__main__":
    TARGET.write_text(json.dumps(json_schema(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(TARGET.name)
