"""Interrupted, failing and simultaneous refreshes."""

import fcntl
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from baseline_examples import CASE, DEVICE, NEW, OLD, make_draft, make_images, names_in, shades_of, stored_shades

from pytest_mxq.baselines import storage
from pytest_mxq.baselines.paths import case_file_name, content_file_name
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.errors import MxqError


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    return BaselineStore(tmp_path / "baselines", media=None, device=DEVICE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "baselines" / DEVICE / "demo" / case_file_name(CASE)


STEPS = 5  # two images, the manifest, and the names of the images
MANIFEST = 2


class PowerCutError(BaseException):
    """Not an Exception: nothing may catch it by the way."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(STEPS))
def test_an_interrupted_refresh_leaves_a_whole_baseline(
    store: BaselineStore, folder: Path, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    store.save(make_draft(), make_images(OLD))
    real, calls = os.replace, iter(range(STEPS))

    def cut(source: str, target: str) -> None:
        now = next(calls) == step
        if after or not now:
            real(source, target)
        if now:
            raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(PowerCutError):
            store.save(make_draft(), make_images(NEW))
    has_manifest = step > MANIFEST or (after and step == MANIFEST)
    assert stored_shades(store) == (NEW if has_manifest else OLD)
    assert not [name for name in names_in(folder) | names_in(folder.parent) if name.startswith(".")]
    saved = store.save(make_draft(), make_images(NEW))
    assert stored_shades(store) == NEW
    assert names_in(folder) == {image.file for image in saved.outputs}


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import baseline_examples as examples
from pytest_mxq.baselines.store import BaselineStore
real, left = os.replace, [int(sys.argv[3])]
def die(source, target):
    if not left[0]:
        os._exit(9)
    left[0] -= 1
    real(source, target)
os.replace = die
store = BaselineStore(Path(sys.argv[2]), media=None, device=examples.DEVICE)
store.save(examples.make_draft(), examples.make_images(examples.NEW))
"""


@pytest.mark.parametrize("step", [1, MANIFEST, STEPS - 1])
def test_a_killed_refresh_leaves_one_baseline_whole_and_the_next_clears_up(
    store: BaselineStore, folder: Path, tmp_path: Path, step: int
) -> None:
    store.save(make_draft(), make_images(OLD))
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(Path(__file__).parents[2] / "support"),
        str(tmp_path / "baselines"),
        str(step),
    ]
    assert subprocess.run(command, check=False).returncode == 9
    assert len(names_in(folder)) > 2
    assert stored_shades(store) == (NEW if step > MANIFEST else OLD)
    saved = store.save(make_draft(), make_images(NEW))
    assert names_in(folder) == {image.file for image in saved.outputs}


def test_a_save_killed_at_any_line_leaves_a_whole_baseline_and_nothing_after_the_next(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "support" / "killed_saves.py"
    command = [sys.executable, str(script), str(tmp_path / "baselines"), "30"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    counts = json.loads(done.stdout)
    assert (counts["killed"], counts["broken"], counts["left_over"]) == (30, 0, 0)
    assert counts["new_after_next_save"] == 30
    assert counts["old"] + counts["new"] == 30
    assert counts["hidden_after_kill"] > 0  # some kills came between the writes


def test_each_file_is_synced_before_its_rename_and_the_folder_after_and_the_manifest_is_last(
    store: BaselineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = store.save(make_draft(), make_images(OLD))
    events: list[str] = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        events.append(Path(target).name)
        real(source, target)

    def fsync(descriptor: int) -> None:
        events.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    store.save(make_draft(), make_images(OLD))
    files = [image.file for image in saved.outputs]
    written = [content_file_name(image.file, image.sha256) for image in saved.outputs]
    targets = [*written, f"{case_file_name(CASE)}.json"]
    whole = [event for target in targets for event in ("sync file", target, "sync folder")]
    assert events == [*whole, *files, "sync folder"]


def test_a_full_disk_is_an_error_of_ours_and_the_old_baseline_stands(
    store: BaselineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(make_draft(), make_images(OLD))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MxqError, match=r"could not be written.*No space left"):
            store.save(make_draft(), make_images(NEW))
    assert stored_shades(store) == OLD


def in_the_middle(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Runs `action` once, between the images and the manifest of the next refresh."""
    real, done = os.replace, threading.Event()

    def replace(source: Path, target: Path) -> None:
        if Path(target).suffix == ".json" and not done.is_set():
            done.set()
            action()
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


def test_a_second_refresh_waits_for_the_first(store: BaselineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = threading.Event()

    def second() -> None:
        store.save(make_draft(), make_images(OLD))
        finished.set()

    thread = threading.Thread(target=second)

    def start_second() -> None:
        thread.start()
        assert not finished.wait(0.3)

    in_the_middle(monkeypatch, start_second)
    store.save(make_draft(), make_images(NEW))
    thread.join(10)
    assert finished.is_set()
    assert stored_shades(store) == OLD


def test_many_refreshes_at_once_leave_one_whole_baseline(store: BaselineStore, folder: Path) -> None:
    def refresh(shade: int) -> None:
        for _ in range(4):
            store.save(make_draft(), make_images((shade, shade + 100)))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(refresh, range(4))) == [None] * 4
    first, second = stored_shades(store)
    assert second == first + 100
    assert len(names_in(folder)) == 2


def test_where_the_file_system_has_no_locks_nothing_is_removed(
    store: BaselineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    in_the_middle(monkeypatch, lambda: store.save(make_draft(), make_images(NEW)))
    old = store.save(make_draft(), make_images(OLD))
    assert shades_of(store.read_outputs(old)) == OLD
    new = store.save(make_draft(), make_images(NEW))
    assert (shades_of(store.read_outputs(old)), shades_of(store.read_outputs(new))) == (OLD, NEW)


def test_a_lock_that_another_run_holds_for_too_long_is_named_and_nothing_is_written(
    store: BaselineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.save(make_draft(), make_images(OLD))
    monkeypatch.setattr(storage, "_LONGEST_WAIT", 0.2)
    lock = tmp_path / "baselines" / DEVICE / "demo" / ".refresh.lock"
    with (
        storage.locked(lock),
        pytest.raises(MxqError, match=rf"another run has held {re.escape(str(lock))} .* stop it"),
    ):
        store.save(make_draft(), make_images(NEW))
    assert shades_of(store.read_outputs(old)) == OLD
