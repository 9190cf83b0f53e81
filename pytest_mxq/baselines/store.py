"""Where baselines lie: `<root>/<device>/<model>/<case>.json`, and their pictures in a folder of the case's name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pytest_mxq.baselines.manifest import SCHEMA_VERSION, Draft, Manifest, Picture, decode, encode
from pytest_mxq.baselines.media import MAX_CLIP_BYTES, decode_clip, encode_clip
from pytest_mxq.baselines.paths import case_file_name, check_case_name, model_folder_name, picture_file_name
from pytest_mxq.baselines.storage import (
    MAX_MANIFEST_BYTES,
    MAX_PICTURE_BYTES,
    decode_png,
    encode_png,
    locked,
    make_folder,
    read_capped,
    write_atomically,
)
from pytest_mxq.baselines.strict_json import REFRESH, invalid
from pytest_mxq.baselines.video import Clip
from pytest_mxq.errors import BaselineMissingError, MxqError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

    from pytest_mxq.baselines.identity import PictureKey

__all__ = ["BaselineStore", "check_case_name"]


class BaselineStore:
    """The baselines of one kind of device.

    A refresh writes pictures first, under names made of their content, and the manifest last: until then the old
    manifest finds its old pictures. Never a pickle.

    Args:
        root: Where the manifests lie.
        media: Where the pictures lie; None means beside their manifests.
        device: The device's slug.
    """

    def __init__(self, root: Path, *, media: Path | None, device: str) -> None:
        self._root = root
        self._media = root if media is None else media
        self._device = device

    def manifest_path(self, model: str, case: str) -> Path:
        """Where the case's manifest lies.

        Raises:
            CaseFaultError: a name that is not allowed.
            BaselineInvalidError: a link leads out of the root.
        """
        name = f"{case_file_name(case)}.json"
        return _inside(self._root, self._root / self._device / model_folder_name(model) / name)

    def manifests(self) -> list[Path]:
        """Every manifest of this device, sorted."""
        found = (self._root / self._device).glob("*/*.json")
        return sorted(path for path in found if not path.name.startswith("."))

    def load(self, model: str, case: str) -> Manifest:
        """The case's manifest.

        Raises:
            CaseFaultError: a name that is not allowed.
            BaselineMissingError: there is none.
            BaselineInvalidError: there is one that cannot be used, or that belongs to another case.
        """
        path = self.manifest_path(model, case)
        try:
            data = read_capped(path, MAX_MANIFEST_BYTES)
        except FileNotFoundError:
            place = f"no baseline of case {case!r}, model {model}, device {self._device}"
            raise BaselineMissingError(f"{place}: {path} does not exist; to measure it: {REFRESH}") from None
        except OSError as error:
            raise invalid(str(path), f"cannot be read ({error.strerror})") from error
        manifest = decode(data, where=str(path))
        belongs = (manifest.device, manifest.model, manifest.case)
        if belongs != (self._device, model, case):
            raise invalid(str(path), f"belongs to {' / '.join(belongs)}, not to {self._device} / {model} / {case}")
        return manifest

    def read_pictures(self, manifest: Manifest) -> list[Any]:
        """Every picture of the manifest in order: RGB images, or a `Clip` each where the model draws video.

        Raises:
            BaselineInvalidError: one is missing, too large, altered, damaged, or of another size or length; names the
                file.
            MxqError: a clip, and PyAV is not installed.
        """
        return [self._read_picture(manifest, picture) for picture in manifest.pictures]

    def _read_picture(self, manifest: Manifest, picture: Picture) -> Image | Clip:
        """One picture or clip of the manifest; its bytes are hashed before they are decoded."""
        path = _inside(self._media, self._picture_folder(manifest) / picture.file)
        try:
            data = read_capped(path, MAX_PICTURE_BYTES if picture.clip is None else MAX_CLIP_BYTES)
        except OSError as error:
            raise invalid(str(path), f"the {picture.noun} cannot be read ({error.strerror})") from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != picture.sha256:
            raise invalid(str(path), f"altered: its sha256 is {digest}, the manifest says {picture.sha256}")
        size = (picture.width, picture.height)
        if picture.clip is None:
            return decode_png(data, size=size, where=str(path))
        return decode_clip(data, size=size, facts=picture.clip, where=str(path))

    def save(self, draft: Draft, media: Sequence[Image | Clip]) -> Manifest:
        """Stores a baseline in place of an older one and returns what was stored.

        Pictures that the manifest no longer names are removed, unless they lie in a media directory of their own:
        other checkouts and older commits may still name those.

        Args:
            draft: All but the pictures.
            media: RGB images or clips, one for each of `draft.identity.picture_keys()` in that order; empty for a
                case without.

        Raises:
            CaseFaultError: a name that is not allowed.
            BaselineInvalidError: the draft or a picture is impossible; nothing was written.
            MxqError: it could not be written; the old baseline or the new one stands, whole. Or clips, and PyAV is
                not installed.
        """
        path = self.manifest_path(draft.model, draft.case)
        if draft.device != self._device:
            raise invalid(str(path), f"device is {draft.device!r}, this store holds {self._device!r}")
        folder = _inside(self._media, self._picture_folder(draft))
        files = _encode_pictures(draft, media)
        manifest = _complete(draft, tuple(files))
        data = encode(manifest)
        try:
            make_folder(path.parent)
            with locked(path.parent) as alone:
                _write_pictures(folder, files)
                write_atomically(path, data)
                if alone and self._media == self._root:
                    _remove_other_pictures(folder, manifest)
        except OSError as error:
            raise MxqError(f"{path}: the baseline could not be written ({error})") from error
        return manifest

    def check_writable(self) -> None:
        """Shows before anything is loaded that a refresh will be able to write.

        Raises:
            MxqError: a directory cannot be made or written; names it and the reason.
        """
        for root, option in ((self._root, "--mxq-baselines"), (self._media, "--mxq-media")):
            folder = root / self._device
            probe = folder / f".{uuid4().hex}"
            try:
                make_folder(folder)
                write_atomically(probe, b"")
                probe.unlink()
            except OSError as error:
                reason = f"cannot be written ({error.strerror}: {error.filename})"
                raise MxqError(f"{folder} {reason}; free it, or choose another directory with {option}=DIR") from error

    def _picture_folder(self, draft: Draft) -> Path:
        return self._media / self._device / model_folder_name(draft.model) / case_file_name(draft.case)


def _inside(root: Path, path: Path) -> Path:
    if not path.resolve().is_relative_to(root.resolve()):
        raise invalid(str(path), f"a link leads out of {root}, to {path.resolve()}")
    return path


def _encode_pictures(draft: Draft, media: Sequence[Image | Clip]) -> dict[Picture, bytes]:
    keys = list(draft.identity.picture_keys()) if media else []
    if len(media) != len(keys):
        raise invalid(f"baseline of {draft.case}", f"{len(media)} {_noun(media[0])}s were drawn of {len(keys)}")
    files: dict[Picture, bytes] = {}
    for order, (key, drawn) in enumerate(zip(keys, media, strict=True)):
        data = _encode_picture(drawn, where=f"{_noun(drawn)} {order} of {draft.case}")
        files[_picture(order, key, drawn, data)] = data
    return files


def _noun(drawn: Image | Clip) -> str:
    return "clip" if isinstance(drawn, Clip) else "picture"


def _encode_picture(drawn: Image | Clip, *, where: str) -> bytes:
    return encode_clip(drawn, where=where) if isinstance(drawn, Clip) else encode_png(drawn, where=where)


def _picture(order: int, key: PictureKey, drawn: Image | Clip, data: bytes) -> Picture:
    clip = drawn.facts if isinstance(drawn, Clip) else None
    digest = hashlib.sha256(data).hexdigest()
    file = picture_file_name(order, key.prompt, digest, suffix=".png" if clip is None else ".mkv")
    width, height = drawn.size
    return Picture(**key._asdict(), file=file, sha256=digest, width=width, height=height, clip=clip)


def _complete(draft: Draft, pictures: tuple[Picture, ...]) -> Manifest:
    # Not asdict: a Manifest is a Draft too, and a stored one may be saved again.
    known = {name: getattr(draft, name) for name in Draft.__struct_fields__}
    return Manifest(**known, schema_version=SCHEMA_VERSION, identity_sha256=draft.identity.digest, pictures=pictures)


def _write_pictures(folder: Path, files: dict[Picture, bytes]) -> None:
    if files:
        make_folder(folder)
    for picture, data in files.items():
        write_atomically(folder / picture.file, data)


def _remove_other_pictures(folder: Path, manifest: Manifest) -> None:
    named = {picture.file for picture in manifest.pictures}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix in {".png", ".mkv"} and path.name not in named:
            path.unlink(missing_ok=True)
