"""Stored files that are not what a refresh wrote: each is an error of ours, short, at once, and says what helps."""

import errno
import hashlib
import json
import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from baseline_examples import CASE, DEVICE, OLD, make_draft, make_images
from manifest_examples import altered, make_manifest, message_of, put

from pytest_mxq.baselines import storage
from pytest_mxq.baselines.git import restore_command
from pytest_mxq.baselines.manifest import encode
from pytest_mxq.baselines.storage import make_folder, read_capped, read_verified, write_atomically
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.baselines.strict_json import MAX_MESSAGE, invalid
from pytest_mxq.errors import BaselineInvalidError, BaselineMissingError, MxqError


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    return BaselineStore(tmp_path / "baselines", media=None, device=DEVICE)


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 5


def make_socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:  # by its descriptor: a socket's path may have 107 bytes
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def make_unreadable(path: Path) -> None:
    path.write_bytes(b"{}")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads every file")


def make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**42)


def make_circle(path: Path) -> None:
    other = path.with_name("circle")
    path.symlink_to(other)
    other.symlink_to(path)


REPLACED: dict[str, Callable[[Path], object]] = {
    "named pipe": os.mkfifo,
    "directory": Path.mkdir,
    "socket": make_socket,
    "unreadable": make_unreadable,
    "circle of links": make_circle,
    "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "link to /dev/stdin": lambda path: path.symlink_to("/dev/stdin"),
    "link to /proc/self/mem": lambda path: path.symlink_to("/proc/self/mem"),
    "link to itself": lambda path: path.symlink_to(path),
    "sparse": make_sparse,
    "empty": Path.touch,
}


@pytest.mark.parametrize("what", ["manifest", "image"])
@pytest.mark.parametrize("kind", REPLACED)
def test_what_is_no_readable_file_is_refused_at_once(store: BaselineStore, kind: str, what: str) -> None:
    saved = store.save(make_draft(), make_images(OLD))
    manifest = store.manifest_path("demo", CASE)
    path = manifest if what == "manifest" else manifest.with_suffix("") / saved.outputs[0].file
    path.unlink()
    REPLACED[kind](path)
    with pytest.raises(BaselineInvalidError) as caught:
        store.read_outputs(store.load("demo", CASE))
    assert len(str(caught.value)) <= MAX_MESSAGE
    assert path.name in str(caught.value)


@pytest.mark.parametrize("kind", ["named pipe", "directory", "socket"])
def test_a_message_names_the_kind_of_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    REPLACED[kind](path)
    with pytest.raises(BaselineInvalidError, match=f"it is a {kind}, not a regular file"):
        read_capped(path, 10)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_device_is_not_read(path: str) -> None:
    with pytest.raises(BaselineInvalidError, match="it is a device"):
        read_capped(Path(path), 10)


def test_a_file_that_became_a_pipe_after_it_was_looked_at_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regular, pipe = tmp_path / "regular", tmp_path / "pipe"
    regular.touch()
    os.mkfifo(pipe)
    status = regular.stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    with pytest.raises(BaselineInvalidError, match="named pipe"):
        read_capped(pipe, 10)


def test_a_file_that_reports_no_size_is_not_read_beyond_the_limit() -> None:
    assert Path("/proc/self/status").stat().st_size == 0
    with pytest.raises(BaselineInvalidError, match="more than 10 bytes"):
        read_capped(Path("/proc/self/status"), 10)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ELOOP, errno.ESTALE, errno.ENXIO])
def test_a_file_that_cannot_be_opened_is_refused_with_the_reason(
    store: BaselineStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    saved = store.save(make_draft(), make_images(OLD))

    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    for read in (lambda: store.load("demo", CASE), lambda: store.read_outputs(saved)):
        with pytest.raises(BaselineInvalidError, match=os.strerror(number)):
            read()


def test_a_missing_manifest_is_missing_and_a_file_in_the_way_of_its_folder_is_invalid(
    store: BaselineStore, tmp_path: Path
) -> None:
    with pytest.raises(BaselineMissingError):
        store.load("demo", CASE)
    (tmp_path / "baselines" / DEVICE).mkdir(parents=True)
    (tmp_path / "baselines" / DEVICE / "demo").touch()
    with pytest.raises(BaselineInvalidError, match="Not a directory"):
        store.load("demo", CASE)


def put_raw(text: str) -> bytes:
    """Return a manifest with `text` as the value of a call's argument."""
    return encode(make_manifest()).replace(b'"guidance_scale": 3.5', f'"guidance_scale": {text}'.encode())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (put_raw('"\\ud800"'), "lone surrogates"),
        (put_raw('{"\\udfff": 1}'), "lone surrogates"),
        (altered(put("case", "\ud800")), "lone surrogates"),
        (put_raw("[" * 100 + "]" * 100), "nested more than 64 deep"),
        (put_raw('{"a":' * 70 + "1" + "}" * 70), "nested more than 64 deep"),
        (put_raw("[" * 100_000), "not a JSON document"),
        (b'{"a":' * 100_000, "not a JSON document"),
        (put_raw("1" + "0" * 30), "64 bits"),
        (put_raw("-" + "9" * 20), "64 bits"),
        (put_raw("1" * 5000), "not a JSON document"),
        (put_raw("1e400"), "finite"),
        (put_raw("NaN"), "finite"),
        (b"\xff\xfe" + b"{" * 7, "not a JSON document"),
        (b"\x00" * 4000, "not a JSON document"),
        (b"", "not a JSON document"),
        (b"null", "the document"),
        (altered(put("case", "x" * 10_000_00)), "altered"),
        (altered(put("identity/calls/0", {"k" * 1_000_000: float("nan")})), "finite"),
        (altered(put("x" * 1_000_000, 1)), "unknown field"),
        (altered(put("selections/" + "y" * 1_000_000, {"quantized": "z" * 1_000_000})), "Expected"),
        (altered(put("fingerprint/hard", {str(at): "x" for at in range(50_000)} | {"last": 1})), "hard.last is 1"),
        (altered(put("schema_version", 2**63)), "newer"),
        (altered(put("schema_version", -1)), "schema_version is -1"),
        (altered(put("schema_version", True)), "schema_version is True"),
        (altered(put("created", "9" * 100_000)), "not an ISO 8601"),
        (altered(put("outputs/0/file", "x" * 100_000 + ".mkv")), "video"),
        (altered(put("identity/images_per_prompt", 2**60)), "altered"),
    ],
    ids=range(27),
)
def test_a_hostile_manifest_is_refused_shortly_and_at_once(data: bytes, said: str) -> None:
    start = time.process_time()
    message = message_of(data)
    assert time.process_time() - start < 1
    assert said in message
    assert len(message) <= MAX_MESSAGE
    message.encode()


def test_a_manifest_of_the_largest_size_is_refused_within_a_second() -> None:
    document = json.loads(encode(make_manifest()))
    document["outputs"] = document["outputs"] * 5_000
    data = json.dumps(document).encode()
    assert 1.5 * 2**20 < len(data) < storage.MAX_MANIFEST_BYTES
    start = time.process_time()
    assert "entries" in message_of(data)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("where", "problem", "remedy"),
    [
        ("w" * 5000, "p" * 5000, "r" * 5000),
        ("w" * 5000, "p" * 5000, "r" * 100),
        ("w", "p" * 5000, "r" * 100),
        ("w" * 200, "short", "r" * 100),
        ("\udcff", "\ud800", None),
    ],
)
def test_no_message_is_longer_than_500_characters_or_cannot_be_printed(
    where: str, problem: str, remedy: str | None
) -> None:
    message = str(invalid(where, problem, remedy=remedy))
    assert len(message) <= 500
    assert message.endswith("pytest --mxq-refresh")
    message.encode()


def test_a_short_path_and_problem_keep_the_remedy() -> None:
    assert "do this" in str(invalid("w" * 200, "short", remedy="do this"))


def pointer_to(sha256: str) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 12345\n".encode()


def fault_of(path: Path, sha256: str) -> str:
    with pytest.raises(BaselineInvalidError) as caught:
        read_verified(path, 10_000, sha256)
    return str(caught.value)


def test_an_lfs_pointer_to_the_content_says_git_lfs_pull(tmp_path: Path) -> None:
    path = tmp_path / "00.png"
    path.write_bytes(pointer_to("a" * 64))
    assert "git lfs pull" in fault_of(path, "a" * 64)
    other = fault_of(path, "b" * 64)
    assert "git lfs pull" not in other
    assert f"Git LFS pointer to other content: sha256 {'a' * 16}" in other


def test_a_truncated_or_deleted_image_in_a_checkout_says_git_checkout(
    store: BaselineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved = store.save(make_draft(), make_images(OLD))
    path = store.manifest_path("demo", CASE).with_suffix("") / saved.outputs[0].file
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    data = path.read_bytes()
    for damage in (lambda: path.write_bytes(data[:40]), path.unlink):
        damage()
        with pytest.raises(BaselineInvalidError) as caught:
            store.read_outputs(saved)
        assert f"git checkout -- {path.relative_to(tmp_path)}" in str(caught.value)
        assert caught.value.command == f"git checkout -- {path.relative_to(tmp_path)}"
        assert "pytest --mxq-refresh" in str(caught.value)


def test_outside_of_a_checkout_nothing_is_said_of_git(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert restore_command(path) is None
    path.write_bytes(b"data")
    assert "git" not in fault_of(path, "a" * 64)


def test_where_git_cannot_be_looked_for_nothing_is_said_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert restore_command(tmp_path / "x") is None


def test_a_file_of_another_digest_is_never_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"data")
    monkeypatch.setattr(storage, "_read", lambda *_: pytest.fail("read"))
    assert "altered: its sha256 is" in fault_of(path, "a" * 64)


def test_a_file_of_the_right_digest_is_read_whole(tmp_path: Path) -> None:
    path, data = tmp_path / "x", os.urandom(3 * 2**20)
    path.write_bytes(data)
    assert read_verified(path, len(data), hashlib.sha256(data).hexdigest()) == data


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO, errno.ENOSPC])
def test_a_folder_that_cannot_be_synced_is_an_error_only_where_the_disk_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if number in {errno.EINVAL, errno.ENOTSUP}:
        make_folder(tmp_path / "a" / "b")
        write_atomically(tmp_path / "a" / "b" / "c", b"data")
        assert (tmp_path / "a" / "b" / "c").read_bytes() == b"data"
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            write_atomically(tmp_path / "c", b"data")


def test_a_file_that_cannot_be_synced_is_always_an_error(store: BaselineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(MxqError, match="could not be written"):
        store.save(make_draft(), make_images(OLD))
