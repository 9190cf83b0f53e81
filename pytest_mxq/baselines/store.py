"""The store of baselines: `<root>/<device>/<model>/<case>.json`, and outputs in a folder of the case's name."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from pytest_mxq.baselines.git import move_command, restore_command
from pytest_mxq.baselines.manifest import SCHEMA_VERSION, Draft, Manifest, StoredOutput, decode, encode, sealed
from pytest_mxq.baselines.media import MAX_VIDEO_BYTES, decode_video, encode_video
from pytest_mxq.baselines.paths import (
    case_file_name,
    case_of_file,
    check_case_name,
    content_file_name,
    model_folder_name,
    output_file_name,
)
from pytest_mxq.baselines.png import decode_png, encode_png
from pytest_mxq.baselines.storage import (
    MAX_IMAGE_BYTES,
    MAX_MANIFEST_BYTES,
    locked,
    make_folder,
    pointer_fault,
    read_capped,
    read_verified,
    reason_of,
    remove_temporary_files,
    rename_files,
    write_atomically,
)
from pytest_mxq.baselines.strict_json import MAX_MESSAGE, REFRESH, cut, invalid, printable, shown
from pytest_mxq.baselines.video import Video
from pytest_mxq.errors import BaselineInvalidError, BaselineMissingError, MxqError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from PIL.Image import Image

    from pytest_mxq.baselines.identity import OutputKey

__all__ = ["BaselineStore", "check_case_name"]

_LOCK = ".refresh.lock"


class BaselineStore:
    """The baselines of one kind of device.

    A refresh writes images under names made of their content, then the manifest, and then gives the images the names
    that the manifest says: until the second step the old manifest finds its old images, and from then on the new one
    finds each new image under one of its two names (where the file system has no locks, they keep the first: another
    refresh may be reading). In a media directory of their own, where other checkouts and older
    commits find theirs, images keep the names made of their content. Nothing is ever pickled.

    Args:
        root: The directory of the manifests.
        media: The directory of the images; None means beside their manifests.
        device: The device's slug.
    """

    def __init__(self, root: Path, *, media: Path | None, device: str) -> None:
        self._root = root
        self._media = root if media is None else media
        self._device = device

    def manifest_path(self, model: str, case: str) -> Path:
        """Return the path of the case's manifest.

        Raises:
            CaseFaultError: A name that is not allowed.
            BaselineInvalidError: A link leads out of the root.
        """
        return _inside(self._root, self._place(model, case))

    def _place(self, model: str, case: str) -> Path:
        return self._root / self._device / model_folder_name(model) / f"{case_file_name(case)}.json"

    def manifests(self) -> list[Path]:
        """Return the path of every manifest of this device, sorted."""
        found = (self._root / self._device).glob("*/*.json")
        return sorted(path for path in found if not path.name.startswith("."))

    def manifests_beside(self, cases: Iterable[tuple[str, str]]) -> list[Path]:
        """Return the path of every manifest of this device that belongs to none of some cases (model, case)."""
        known = {self._place(model, case) for model, case in cases}
        return [path for path in self.manifests() if path not in known]

    def cases(self, model: str) -> list[str]:
        """Return the cases of a model that have a manifest, sorted."""
        folder = model_folder_name(model)
        return [case_of_file(path.stem) for path in self.manifests() if path.parent.name == folder]

    def load(self, model: str, case: str) -> Manifest:
        """Return the case's manifest.

        Raises:
            CaseFaultError: A name that is not allowed.
            BaselineMissingError: There is no such file.
            BaselineInvalidError: The file cannot be used, or belongs to another case.
        """
        path = self.manifest_path(model, case)
        try:
            data = read_capped(path, MAX_MANIFEST_BYTES)
        except FileNotFoundError:
            place = f"no baseline of case {shown(case)}, model {cut(model, 80)}, device {self._device}"
            missing = printable(f"{place}: {cut(str(path), 250)} does not exist")
            raise BaselineMissingError(missing, steps=f"; to measure it: {REFRESH}") from None
        except OSError as error:
            raise invalid(str(path), f"cannot be read ({reason_of(error)})", remedy=restore_command(path)) from error
        manifest = _decoded(data, path)
        belongs = (manifest.device, manifest.model)
        if belongs != (self._device, model):
            owner = " / ".join(cut(name, 80) for name in belongs)
            raise invalid(str(path), f"belongs to {owner}, not to {self._device} / {model}")
        # A manifest that was moved after its test is that test's: whether the case is the same, its identity says.
        return manifest if manifest.case == case else replace(manifest, case=case)

    def move_commands(self, model: str, old: str, new: str) -> str:
        """Return the command that gives a case's baseline to another case, which has none."""
        paths = [[self.manifest_path(model, case), self.output_folder(model, case)] for case in (old, new)]
        return " && ".join(move_command(before, after) for before, after in zip(*paths, strict=True) if before.exists())

    def check_outputs(self, manifest: Manifest) -> None:
        """Raise where an output is missing or altered: each is read and hashed, and none decoded.

        Raises:
            BaselineInvalidError: As for `read_outputs`.
        """
        for output in manifest.outputs:
            self._read_bytes(manifest, output)

    def read_outputs(self, manifest: Manifest) -> list[Any]:
        """Read every output of the manifest in order: RGB images, or a `Video` each where the model generates video.

        Raises:
            BaselineInvalidError: One is missing, too large, altered, damaged, or of another size or length; names the
                file.
            MxqError: A video, and PyAV is not installed.
        """
        return [self._read_output(manifest, image) for image in manifest.outputs]

    def _read_output(self, manifest: Manifest, image: StoredOutput) -> Image | Video:
        """Read one output of the manifest; its bytes are hashed before they are decoded."""
        path, data = self._read_bytes(manifest, image)
        size = (image.width, image.height)
        if image.video is None:
            return decode_png(data, size=size, where=str(path))
        return decode_video(data, size=size, facts=image.video, where=str(path))

    def _read_bytes(self, manifest: Manifest, image: StoredOutput) -> tuple[Path, bytes]:
        path = _inside(self._media, self.output_folder(manifest.model, manifest.case) / image.file)
        unnamed = _inside(self._media, path.with_name(self._unnamed(image)))
        path = unnamed if unnamed.exists() else path
        limit = MAX_IMAGE_BYTES if image.video is None else MAX_VIDEO_BYTES
        try:
            return path, read_verified(path, limit, image.sha256)
        except OSError as error:
            problem = f"the {image.noun} cannot be read ({reason_of(error)})"
            raise invalid(str(path), problem, remedy=restore_command(path)) from error

    def save(self, draft: Draft, media: Sequence[Image | Video]) -> Manifest:
        """Store a baseline in place of an older one, and return what was stored.

        Images that the manifest no longer names are removed, unless they are in a media directory of their own:
        other checkouts and older commits may still name those. So are temporary files of a killed refresh.

        Args:
            draft: All but the images.
            media: RGB images or videos, one for each of `draft.identity.output_keys()` in that order; empty for a
                case without.

        Raises:
            CaseFaultError: A name that is not allowed.
            BaselineInvalidError: The draft or an image is impossible; nothing was written.
            MxqError: It could not be written; the old baseline or the new one stands, whole. Or videos, and PyAV is
                not installed.
        """
        path = self.manifest_path(draft.model, draft.case)
        if draft.device != self._device:
            raise invalid(str(path), f"device is {draft.device!r}, this store holds {self._device!r}")
        folder = _inside(self._media, self.output_folder(draft.model, draft.case))
        files = _encode_outputs(draft, media, keep_names=self._media == self._root)
        manifest = sealed(_complete(draft, tuple(files)))
        data = encode(manifest)
        try:
            self._write(path, data, folder, files)
        except TimeoutError as error:  # of the lock: names its file and what to do
            raise MxqError(printable(f"the baseline could not be written: {error}")) from error
        except OSError as error:
            place = cut(str(path), MAX_MESSAGE // 2)
            problem = f"the baseline could not be written ({cut(str(error), MAX_MESSAGE // 3)})"
            raise MxqError(printable(f"{place}: {problem}")) from error
        return manifest

    def _write(self, path: Path, data: bytes, folder: Path, files: dict[StoredOutput, bytes]) -> None:
        """Write the outputs, then the manifest, with their folders locked where the file system has locks."""
        parents = {path.parent} | ({folder.parent} if files else set())
        with ExitStack() as locks:
            for parent in sorted(parents):
                make_folder(parent)
            found = [locks.enter_context(locked(parent / _LOCK)) for parent in sorted(parents)]
            is_locked = all(found)
            if is_locked:
                remove_temporary_files(path.parent)
                remove_temporary_files(folder)
            names = {image.file: self._unnamed(image) for image in files}
            _write_outputs(folder, {names[image.file]: data for image, data in files.items()})
            write_atomically(path, data)
            if is_locked:
                rename_files(folder, {unnamed: file for file, unnamed in names.items() if unnamed != file})
            if is_locked and self._media == self._root:
                _remove_other_outputs(folder, {image.file for image in files})

    def _unnamed(self, image: StoredOutput) -> str:
        """Return the name under which an image is written before the manifest names it."""
        return content_file_name(image.file, image.sha256) if self._media == self._root else image.file

    def check_writable(self) -> None:
        """Raise before anything is loaded if a refresh will not be able to write.

        Raises:
            MxqError: A directory cannot be made or written; names it and the reason.
        """
        for root, option in ((self._root, "--mxq-baselines"), (self._media, "--mxq-media")):
            folder = root / self._device
            try:
                make_folder(folder)
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(b"x")
            except OSError as error:
                reason = f"cannot be written ({reason_of(error)}: {error.filename})"
                way = f"free it, or choose another directory with {option}=DIR"
                raise MxqError(printable(f"{folder} {reason}; {way}")) from error

    def output_folder(self, model: str, case: str) -> Path:
        """Return the folder of the case's images or videos."""
        return self._media / self._device / model_folder_name(model) / case_file_name(case)


def _decoded(data: bytes, path: Path) -> Manifest:
    try:
        return decode(data, where=str(path))
    except BaselineInvalidError as error:
        fault = pointer_fault(path, data, None)
        if fault is not None:
            raise fault from None
        error.command = error.command or restore_command(path)
        raise


def _inside(root: Path, path: Path) -> Path:
    """Return `path`, which neither links nor `..` lead out of `root`.

    Raises:
        BaselineInvalidError: They do, or lead in a circle.
    """
    try:
        target, within = path.resolve(), root.resolve()
    except (OSError, RuntimeError) as error:  # up to Python 3.12 a circle of links is a RuntimeError
        raise invalid(str(path), "cannot be read: links lead in a circle", remedy=restore_command(path)) from error
    if not target.is_relative_to(within):
        raise invalid(str(path), f"a link leads out of {cut(str(root), 80)}, to {cut(str(target), 80)}")
    return path


def _encode_outputs(draft: Draft, media: Sequence[Image | Video], *, keep_names: bool) -> dict[StoredOutput, bytes]:
    keys = list(draft.identity.output_keys()) if media else []
    if len(media) != len(keys):
        raise invalid(f"baseline of {draft.case}", f"{len(media)} {_noun(media[0])}s were generated of {len(keys)}")
    files: dict[StoredOutput, bytes] = {}
    for order, (key, generated) in enumerate(zip(keys, media, strict=True)):
        data = _encode_output(generated, where=f"{_noun(generated)} {order} of {draft.case}")
        image = _image(order, key, generated, data)
        file = image.file if keep_names else content_file_name(image.file, image.sha256)
        files[replace(image, file=file)] = data
    return files


def _noun(generated: Image | Video) -> str:
    return "video" if isinstance(generated, Video) else "image"


def _encode_output(generated: Image | Video, *, where: str) -> bytes:
    return encode_video(generated, where=where) if isinstance(generated, Video) else encode_png(generated, where=where)


def _image(order: int, key: OutputKey, generated: Image | Video, data: bytes) -> StoredOutput:
    video = generated.facts if isinstance(generated, Video) else None
    digest = hashlib.sha256(data).hexdigest()
    file = output_file_name(order, key.prompt, suffix=".png" if video is None else ".mkv")
    width, height = generated.size
    return StoredOutput(**key._asdict(), file=file, sha256=digest, width=width, height=height, video=video)


def _complete(draft: Draft, images: tuple[StoredOutput, ...]) -> Manifest:
    # Not asdict: a Manifest is a Draft too, and a stored one may be saved again.
    known = {name: getattr(draft, name) for name in Draft.__struct_fields__}
    return Manifest(**known, schema_version=SCHEMA_VERSION, identity_sha256=draft.identity.digest, outputs=images)


def _write_outputs(folder: Path, files: dict[str, bytes]) -> None:
    if files:
        make_folder(folder)
    for name, data in files.items():
        write_atomically(folder / name, data)


def _remove_other_outputs(folder: Path, named: set[str]) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix in {".png", ".mkv"} and path.name not in named:
            path.unlink(missing_ok=True)
