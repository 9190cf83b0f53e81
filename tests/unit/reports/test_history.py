"""The history file: each run adds a line, whatever happened to the file before."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
from page_examples import cell, judged, report, timed, unjudged

from pytest_mxq.baselines import storage
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.reports.history import SHOWN_RUNS, Run, append_run, points_of, read_history, run_of

BOUND = Bound(mean=0.13, worst=0.45)
NIGHT = report(judged([0.1, 0.2], BOUND), timed())
DEVICE = NIGHT.device.slug


def line(number: int = 0, **changes: object) -> Run:
    run = run_of(replace(NIGHT, created=f"2026-01-01T00:00:{number:02d}+00:00"))
    assert run is not None
    return replace(run, **changes)  # type: ignore[arg-type]


def dates(path: Path) -> list[str]:
    return [point.created[-8:-6] for point in points_of(read_history(path), DEVICE, cell(), emulated=False)]


def test_a_run_comes_back_with_numbers_outcome_and_commit(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "history.jsonl"
    append_run(path, line())
    [point] = points_of(read_history(path), DEVICE, cell(), emulated=False)
    assert (point.cell.outcome, point.cell.bound, point.cell.worst) == (Outcome.REGRESSION, 0.13, 0.2)
    assert point.cell.observed == pytest.approx(0.15)
    assert point.commit == "0123456789ab"


def test_runs_are_in_the_order_in_which_they_came_and_the_last_fifty_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for number in range(55):
        append_run(path, line(number))
    assert dates(path) == [f"{number:02d}" for number in range(55 - SHOWN_RUNS, 55)]


def test_other_devices_and_emulated_numerics_are_other_series(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_run(path, line(device="cpu-x86-64"))
    append_run(path, line(cells=tuple(replace(run, emulated=True) for run in line().cells)))
    assert dates(path) == []
    assert len(points_of(read_history(path), DEVICE, cell(), emulated=True)) == 1


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_file_that_was_cut_off_loses_only_its_last_line(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "history.jsonl"
    append_run(path, line(1))
    whole = path.read_bytes()
    append_run(path, line(2))
    end = len(whole) + int(kept * len(whole))
    path.write_bytes(path.read_bytes()[:end])
    append_run(path, line(3))
    assert dates(path) == ["01", "03"]


@pytest.mark.parametrize("junk", [b"\x00\xff\n", b"[]\n", b'{"created": 1}\n', b"\n\n", b"not json\n"])
def test_lines_that_hold_no_run_are_left_out(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(junk)
    append_run(path, line(4))
    path.write_bytes(path.read_bytes() + junk)
    append_run(path, line(5))
    assert dates(path) == ["04", "05"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2, "colour": 1}, "line 1: schema_version 2, this pytest-mxq reads up to 1"),
        ({"colour": 1}, "line 1: unknown field `colour`; allowed: created, commit, device, cells, schema_version"),
    ],
)
def test_a_line_of_a_newer_version_is_told_left_out_and_kept(tmp_path: Path, change: dict[str, int], said: str) -> None:
    path = tmp_path / "history.jsonl"
    append_run(path, line(1))
    newer = json.dumps({**json.loads(path.read_text()), **change}) + "\n"
    path.write_text(newer)
    append_run(path, line(2))
    told: list[str] = []
    assert [key[1] for key in read_history(path, told.append)]
    assert len(told) == 1
    assert said in told[0]
    assert "upgrade pytest-mxq" in told[0]
    assert dates(path) == ["02"]
    assert path.read_text().startswith(newer)


def test_a_line_without_a_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_run(path, line(1))
    document = json.loads(path.read_text())
    assert document.pop("schema_version") == 1
    path.write_text(json.dumps(document) + "\n")
    assert dates(path) == ["01"]


def test_two_writers_lose_no_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append_run(path, line(number)), range(24)))
    assert sorted(dates(path)) == [f"{number:02d}" for number in range(24)]


def test_a_nan_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_run(path, line(cells=tuple(replace(run, observed=nan) for run in line().cells)))
    [point] = points_of(read_history(path), DEVICE, cell(), emulated=False)
    assert str(point.cell.observed) == "nan"


def test_a_run_that_judged_nothing_is_no_line() -> None:
    assert run_of(report(unjudged(Outcome.SKIPPED, "no device"), unjudged(Outcome.NOT_RUN, "deselected"))) is None


def test_without_a_file_there_is_no_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "history.jsonl") == {}


def test_a_lock_that_another_run_holds_for_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.jsonl"
    monkeypatch.setattr(storage, "_LONGEST_WAIT", 0.2)
    with (
        storage.locked(tmp_path / "history.jsonl.lock"),
        pytest.raises(TimeoutError, match=r"another run has held .*history\.jsonl\.lock .* stop it"),
    ):
        append_run(path, line())
    assert not path.exists()
