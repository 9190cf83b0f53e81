"""Files that are whole or absent: atomic writes, a lock among writers, and reads that no stored file can abuse."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pytest_mxq.baselines.git import restore_command
from pytest_mxq.baselines.strict_json import invalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import BufferedReader

    from filelock import BaseFileLock

    from pytest_mxq.errors import BaselineInvalidError

MAX_MANIFEST_BYTES = 2 * 2**20  # up to 60 times as much as Python objects; a manifest of 200 prompts has 0.2 MiB
MAX_IMAGE_BYTES = 256 * 2**20

_LONGEST_WAIT = 60.0  # seconds for another writer, which holds the lock only while it writes
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}(\.[a-z0-9]+)?")  # names beginning with a dot are never a case's or an image's

# What a file system answers that cannot sync a folder (fsync(2): EINVAL; others in use: ENOTSUP, ENOSYS, EBADF).
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_LFS_DIGEST = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.MULTILINE)


def make_folder(folder: Path) -> None:
    """Make `folder` and its parents so that they survive a power cut.

    Raises:
        OSError: A part of the path is a file, or may not be written.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` as `path`: at any moment a reader finds the old file or the new one, whole.

    Raises:
        OSError: It could not be written; `path` is as it was.
    """
    temporary = path.with_name(f".{uuid4().hex}{path.suffix.lower()}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def rename_files(folder: Path, names: Mapping[str, str]) -> None:
    """Rename files of a folder (old name -> new name), each in place of a file of the new name.

    Raises:
        OSError: One could not be renamed.
    """
    for old, new in names.items():
        (folder / old).replace(folder / new)
    if names:
        _sync_folder(folder)


def remove_temporary_files(folder: Path) -> None:
    """Remove what killed calls of `write_atomically` left in `folder`; call it with the folder locked.

    Raises:
        OSError: The folder cannot be read, or a file not be removed.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if _TEMPORARY.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
            path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Wait for others who lock the file `path`, then keep them out; the file is there only meanwhile.

    Yields:
        Whether it is locked: False where the file system has no locks.

    Raises:
        TimeoutError: Another process still holds it after a minute; names the file and what to do.
    """
    lock = _file_lock(path)
    is_locked = _acquire(lock)
    try:
        yield is_locked
    finally:
        if is_locked:
            # Removed while held, so that no file is left behind; who waits opens the file again.
            with suppress(OSError):
                Path(lock.lock_file).unlink()
            lock.release()


def read_capped(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of a regular file, if there are not too many.

    Raises:
        BaselineInvalidError: Not a regular file, or larger than `limit_bytes`.
        OSError: It cannot be read.
    """
    with _open_regular(path, limit_bytes) as file:
        return _read(file, path, limit_bytes)


def read_verified(path: Path, limit_bytes: int, sha256: str) -> bytes:
    """Return the bytes of a regular file after its SHA-256; a file with another one is never held in memory.

    Raises:
        BaselineInvalidError: Not a regular file, larger than `limit_bytes`, or of another SHA-256; a Git LFS pointer
            to the content is named with the command that fetches it.
        OSError: It cannot be read.
    """
    with _open_regular(path, limit_bytes) as file:
        start = file.read(1024)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            raise pointer_fault(path, start, sha256) or invalid(
                str(path),
                f"altered: its sha256 is {digest[:16]}..., the manifest says {sha256[:16]}...",
                remedy=restore_command(path),
            )
        file.seek(0)
        return _read(file, path, limit_bytes)


def pointer_fault(path: Path, data: bytes, sha256: str | None) -> BaselineInvalidError | None:
    """Return the error of a Git LFS pointer in place of content with this SHA-256 (None: any); None of other bytes."""
    if not data.startswith(_LFS_POINTER):
        return None
    found = _LFS_DIGEST.search(data)
    digest = found[1].decode() if found else "unknown"
    if sha256 in {None, digest}:
        said = "" if sha256 is None else "; it is the content that the manifest names"
        return invalid(str(path), f"a Git LFS pointer, not its content{said}", remedy="git lfs pull")
    problem = f"a Git LFS pointer to other content: sha256 {digest[:16]}..., the manifest says {str(sha256)[:16]}..."
    return invalid(str(path), problem, remedy=restore_command(path))


def reason_of(error: OSError) -> str:
    """Return an error's text without the path, which the message around it names already."""
    return error.strerror or type(error).__name__


def _open_regular(path: Path, limit_bytes: int) -> BufferedReader:
    _check_regular(path, path.stat(), limit_bytes)
    # Not blocking: between the two checks the file may have become a pipe that nobody writes to.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb")
    try:
        _check_regular(path, os.fstat(file.fileno()), limit_bytes)
    except BaseException:
        file.close()
        raise
    return file


def _check_regular(path: Path, status: os.stat_result, limit_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise invalid(str(path), f"cannot be read: it is {kind}, not a regular file")
    if status.st_size > limit_bytes:
        raise invalid(str(path), f"the file has {status.st_size} bytes, at most {limit_bytes} are read")


def _read(file: BufferedReader, path: Path, limit_bytes: int) -> bytes:
    data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:  # it grew since, or belongs to a file system that reports no sizes
        raise invalid(str(path), f"the file has more than {limit_bytes} bytes, at most {limit_bytes} are read")
    return data


def _file_lock(path: Path) -> BaseFileLock:
    from filelock import FileLock

    options: dict[str, Any] = {"timeout": _LONGEST_WAIT}
    # A lock that is only a file's existence would outlive a killed process; older releases have no such fallback.
    if "fallback_to_soft" in signature(FileLock.__init__).parameters:
        options["fallback_to_soft"] = False
    return FileLock(path, **options)


def _acquire(lock: BaseFileLock) -> bool:
    """Lock; False where that is not possible. A lock whose file was removed by its last holder is taken again."""
    from filelock import Timeout

    try:
        lock.acquire()
        while not Path(lock.lock_file).exists():
            lock.release()
            lock.acquire()
    except Timeout:
        said = f"another run has held {lock.lock_file} for {_LONGEST_WAIT:.0f} s; wait for its end or stop it"
        raise TimeoutError(said) from None
    except (OSError, NotImplementedError, RuntimeError):  # no locks there; RuntimeError: a release of ours is under way
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
