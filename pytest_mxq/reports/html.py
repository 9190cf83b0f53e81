"""``index.html``: the page of a run, which opens from a folder without a network.

Every text of a record is data: the template escapes it, the script's JSON cannot end its element, and a policy (CSP)
lets no other script run and nothing be fetched.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pytest_mxq.baselines.storage import write_atomically
from pytest_mxq.reports.page_cells import CellView, quantized_layers
from pytest_mxq.reports.page_model import Page, build_page
from pytest_mxq.reports.paths import PAGE

if TYPE_CHECKING:
    from jinja2 import Environment

    from pytest_mxq.gates.verdict import JudgedOutput
    from pytest_mxq.reports.history import Key, Point
    from pytest_mxq.reports.records import Report

_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webm": "video/webm", ".wav": "audio/wav"}

MAX_INLINE = 20
"""Failed cells whose details show without the script; those of the others are made when they are opened."""

# HTML has no control characters: each is shown by its symbol. Half of a surrogate pair has no bytes.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_VISIBLE |= dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], 0xFFFD)


def write_page(folder: Path, report: Report, history: Mapping[Key, list[Point]], *, embed: bool) -> None:
    """Write the page of a report beside it; the file appears whole or not at all.

    Args:
        folder: the report's folder, to which the paths of images are relative.
        report: the report.
        history: the runs of each cell, this one included.
        embed: whether the page holds its images itself.

    Raises:
        OSError: it cannot be written.
    """
    page = build_page(report, history)
    text = render(page, _embedded(folder, page) if embed else {})
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE, text.encode())


def render(page: Page, embedded: Mapping[str, str]) -> str:
    """Return the text of a page; ``embedded`` holds the images by their address, where it holds them itself."""
    styles, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src 'self' file: data:; media-src 'self' file: data:; style-src '{_digest(styles)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    later = [view for place, view in enumerate(page.cells) if not _is_inline(view, place)]
    return (
        _environment()
        .get_template("index.html.j2")
        .render(
            page=page,
            policy=policy,
            styles=styles,
            script=script,
            data=script_json({**page.data, "embedded": embedded}),
            later={view.anchor: place for place, view in enumerate(later)},
            bodies=_packed(later),
        )
    )


def _packed(views: Sequence[CellView]) -> str:
    """Return the details of cells for the script to unpack, gzip in base64: as HTML, thousands open too slowly."""
    body = _environment().get_template("cell.html.j2").module.body  # type: ignore[attr-defined]
    return base64.b64encode(gzip.compress("\0".join(map(body, views)).encode(), compresslevel=3, mtime=0)).decode()


def visible(value: Any) -> Any:
    r"""Return a text with its control characters as symbols; anything else as it is.

    >>> visible("a\x00\x1b[31m")
    'a␀␛[31m'
    """
    return value.translate(_VISIBLE) if type(value) is str else value


def address(path: str) -> str:
    """Return a file's path as a relative address.

    >>> address("a b/#1?.png")
    'a%20b/%231%3F.png'
    """
    return quote(path, errors="replace")


def script_json(value: Any) -> str:
    r"""Return a value as JSON that no parser of HTML takes for the end of its element.

    >>> script_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _embedded(folder: Path, page: Page) -> dict[str, str]:
    """Return the files of a page as data addresses by their relative ones; what is not in the folder is left out."""
    outputs = [row.output for view in page.cells for row in view.shown]
    paths = {path for output in outputs for path in _files(output) if path is not None}
    return {address(path): _data_address(folder / path) for path in sorted(paths) if _is_ours(folder, path)}


def _data_address(path: Path) -> str:
    return f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _is_ours(folder: Path, path: str) -> bool:
    whole = folder / path
    return whole.suffix in _TYPES and whole.is_file() and whole.resolve().is_relative_to(folder.resolve())


def _files(output: JudgedOutput) -> tuple[str | None, ...]:
    images = (output.reference, output.quantized, output.lpips_map)
    return (
        *images,
        output.reference_video,
        output.quantized_video,
        output.reference_audio,
        output.quantized_audio,
    )


def _asset(name: str) -> str:
    return importlib.resources.files("pytest_mxq.reports").joinpath("page", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pytest_mxq.reports", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(address=address, layers=quantized_layers)
    return environment


def _is_inline(view: CellView, place: int) -> bool:
    return view.look.group in {"bad", "unclear"} and place < MAX_INLINE
