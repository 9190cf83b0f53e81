"""Verdicts and reports as JSON, both ways; the types are the schema.

JSON has no infinity and no NaN: such a number is written as the text "inf", "-inf" or "nan", and read back as a number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Any, Literal, TypeAlias

import msgspec

from pytest_mxq.baselines.unknown_fields import unknown_field
from pytest_mxq.errors import ReportInvalidError
from pytest_mxq.gates.verdict import Cell, Verdict

SCHEMA_VERSION = 2

Json: TypeAlias = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """The device of a run: its name, its folder among the baselines, and whether it is "cuda" or "cpu"."""

    name: str
    slug: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerprintFacts:
    """What must be equal for numbers to be comparable, and what is only recorded."""

    hard: dict[str, str]
    recorded: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The options of a run; paths relative to the project's root, or as they were given where they lie elsewhere."""

    formats: tuple[str, ...]
    models: tuple[str, ...]
    gates: tuple[str, ...]
    reference: str
    refresh: bool
    emulate: bool
    strict: bool
    random_weights: bool
    alpha: float
    baselines: str
    media: str | None
    sources: dict[str, str]


Status: TypeAlias = Literal["running", "finished", "interrupted"]
"""How far a run came by the time its report was written. "running": it is running still, or was killed. "interrupted":
it was stopped before every planned gate had its turn, by Ctrl-C, SIGTERM, or an error outside of the gates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What ``report.json`` holds.

    Attributes:
        schema_version: of this layout.
        created: ISO 8601 date and time at which it was written.
        commit: of the project that was tested, "+" behind it where files differ; None where git does not tell.
        status: how far the run had come by then.
        planned: what the run is to judge; of these, the cells without a verdict have not been judged.
        verdicts: one for every judged (case, format, gate), at the end for every planned one; paths of comparison
            images are relative to the report's folder, those of manifests to the project's root.
        problems: what is wrong with the run as a whole.
        cautions: what is known to go wrong.
    """

    schema_version: Literal[2] = 2
    created: str
    status: Status
    commit: str | None
    settings: RunSettings
    device: DeviceFacts
    fingerprint: FingerprintFacts
    planned: tuple[Cell, ...]
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]
    cautions: tuple[str, ...]


def to_record(verdict: Verdict, portable: Callable[[str], str] = str) -> Json:
    """Return a verdict as plain values that cross xdist and JSON.

    Args:
        verdict: the verdict.
        portable: takes the machine's paths out of a text.
    """
    return jsonable(msgspec.to_builtins(verdict), portable)


def from_record(record: Json) -> Verdict:
    """Return the verdict of a record.

    Raises:
        ReportInvalidError: it is no such record; names the field.
    """
    verdict: Verdict = converted(record, Verdict, "a verdict")
    return verdict


def cell_record(cell: Cell) -> dict[str, str]:
    """Return a cell as plain values."""
    record: dict[str, str] = msgspec.to_builtins(cell)
    return record


def cell_of(record: Mapping[str, str]) -> Cell:
    """Return the cell of a record.

    Raises:
        ReportInvalidError: it is no such record.
    """
    cell: Cell = converted(dict(record), Cell, "a cell")
    return cell


def encode_report(report: Report) -> bytes:
    """Return the text of ``report.json``."""
    plain = jsonable(msgspec.to_builtins(report), str)
    return (json.dumps(plain, indent=2, allow_nan=False) + "\n").encode()


def portable_report(report: Report, portable: Callable[[str], str]) -> Report:
    """Return a report with every text passed through ``portable``, which takes out paths and secrets."""
    clean: Report = converted(jsonable(msgspec.to_builtins(report), portable), Report, "the report")
    return clean


def decode_report(data: bytes, *, where: str) -> Report:
    """Return the report in a ``report.json``.

    Args:
        data: its bytes.
        where: the file, for messages.

    Raises:
        ReportInvalidError: not JSON, of another schema version, or not what the schema says; names ``where``, the
            field, and the next step.
    """
    try:
        document = json.loads(data)
    except ValueError as error:
        raise ReportInvalidError(f"{where}: not a JSON document ({error}); run the gates again") from None
    found = document.get("schema_version") if isinstance(document, dict) else None
    if found != SCHEMA_VERSION:
        is_newer = isinstance(found, int) and found > SCHEMA_VERSION
        way = "written by a newer pytest-mxq: upgrade pytest-mxq" if is_newer else "run the gates again"
        raise ReportInvalidError(
            f"{where}: the report has schema_version {found!r}, this pytest-mxq reads {SCHEMA_VERSION}; {way}"
        )
    report: Report = converted(document, Report, where)
    return report


def converted(value: Any, kind: type[Any], where: str) -> Any:
    """Return plain values as a value of a type.

    Raises:
        ReportInvalidError: they are no such value, or have a field that it has not; names ``where`` and the field.
    """
    unknown = unknown_field(value, kind)
    if unknown is not None:
        raise ReportInvalidError(
            f"{where}: {unknown}; a newer pytest-mxq wrote it, or it was edited: upgrade pytest-mxq, or run the gates "
            "again"
        )
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        pass  # perhaps of a text that stands for a number, which few records have
    try:
        return msgspec.convert(_with_numbers(value, msgspec.inspect.type_info(kind)), kind)
    except msgspec.ValidationError as error:
        raise ReportInvalidError(f"{where}: {error}; run the gates again") from None


_NUMBERS = {"inf": inf, "-inf": -inf, "nan": nan}


def _with_numbers(value: Any, kind: msgspec.inspect.Type) -> Any:
    """Return plain values with a number in the place of each text that stands for one where a number belongs."""
    kinds = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    if isinstance(value, str):
        is_number = any(isinstance(one, msgspec.inspect.FloatType) for one in kinds)
        return _NUMBERS.get(value, value) if is_number else value
    for one in kinds:
        if isinstance(one, msgspec.inspect.VarTupleType) and isinstance(value, list | tuple):
            return [_with_numbers(item, one.item_type) for item in value]
        if isinstance(one, msgspec.inspect.DataclassType) and isinstance(value, dict):
            types = {field.name: field.type for field in one.fields}
            return {key: _with_numbers(item, types[key]) if key in types else item for key, item in value.items()}
    return value


def jsonable(value: Any, portable: Callable[[str], str]) -> Any:
    """Return plain values as JSON has them, every text passed through ``portable``."""
    if isinstance(value, dict):
        return {key: jsonable(item, portable) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, portable) for item in value]
    if isinstance(value, str):
        return portable(value)
    return str(value) if isinstance(value, float) and not isfinite(value) else value
