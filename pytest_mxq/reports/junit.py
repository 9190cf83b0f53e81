"""What other reports of a test show of its verdict: properties in JUnit XML, attachments in GitLab, images in HTML."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_mxq.gates.verdict import Verdict


def properties(verdict: Verdict) -> Iterator[tuple[str, str | float]]:
    """Yield what of a verdict is a property of its test; what it has not is left out."""
    cell = verdict.cell
    found: dict[str, Any] = {
        "outcome": verdict.outcome.value,
        "format": cell.format,
        "gate": cell.gate,
        "model": cell.model,
        "case": cell.case,
        "observed": verdict.observed,
        "worst": verdict.scores.worst if verdict.scores is not None else None,
        "bound": verdict.bound,
        "worst_bound": verdict.worst_bound,
        "reference": verdict.reference.mode if verdict.reference is not None else None,
        "emulated": str(verdict.emulated).lower(),
        "images": " ".join(verdict.comparisons),
        "next": verdict.next_command,
    }
    yield from ((f"mxq_{name}", value) for name, value in found.items() if value not in {None, ""})


def attachments(verdict: Verdict, report: Path, started_in: Path) -> str:
    """Return the lines by which GitLab attaches a failure's images to its test, if they stand in its ``system-out``.

    Args:
        verdict: the verdict.
        report: the report's folder, to which its images' paths are relative.
        started_in: the folder to which GitLab's paths are relative.
    """
    paths = verdict.comparisons if verdict.outcome.is_failure else ()
    return "\n".join(f"[[ATTACHMENT|{os.path.relpath(report / path, started_in)}]]" for path in paths)


def html_extras(verdict: Verdict, report: Path) -> list[dict[str, Any]]:
    """Return a verdict's images as pytest-html's extras: what its ``extras.png`` returns, without importing it.

    Args:
        verdict: the verdict.
        report: the report's folder, to which its images' paths are relative; a missing file is left out.
    """
    files = [report / path for path in verdict.comparisons]
    kind = {"format_type": "image", "mime_type": "image/png", "extension": "png"}
    return [
        {"name": file.name, "content": base64.b64encode(file.read_bytes()).decode(), **kind}
        for file in files
        if file.is_file()
    ]
