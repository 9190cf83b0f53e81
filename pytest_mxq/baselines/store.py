"""Where baselines lie: `<root>/<device>/<model>/<case>.json`, and their images in a folder of the case's name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pytest_mxq.baselines.manifest import SCHEMA_VERSION, Draft, Manifest, StoredOutput, decode, encode
from pytest_mxq.baselines.media import MAX_VIDEO_BYTES, decode_video, encode_video
from pytest_mxq.baselines.paths import case_file_name, check_case_name, model_folder_name, output_file_name
from pytest_mxq.baselines.storage import (
    MAX_IMAGE_BYTES,
    MAX_MANIFEST_BYTES,
    decode_png,
    encode_png,
    locked,
    make_folder,
    read_capped,
    write_atomically,
)
from pytest_mxq.baselines.strict_json import REFRESH, invalid
from pytest_mxq.baselines.video import Video
from pytest_mxq.errors import BaselineMissingError, MxqError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

    from pytest_mxq.baselines.identity import OutputKey

__all__ = ["BaselineStore", "check_case_name"]


class BaselineStore:
    """The baselines of one kind of device.

    A refresh writes images first, under names made of their content, and the manifest last: until then the old
    manifest finds its old images. Never a pickle.

    Args:
        root: Where the manifests lie.
        media: Where the images lie; None means beside their manifests.
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

    def read_outputs(self, manifest: Manifest) -> list[Any]:
        """Every image of the manifest in order: RGB images, or a `Video` each where the model generates video.

        Raises:
            BaselineInvalidError: one is missing, too large, altered, damaged, or of another size or length; names the
                file.
            MxqError: a video, and PyAV is not installed.
        """
        return [self._read_output(manifest, image) for image in manifest.outputs]

    def _read_output(self, manifest: Manifest, image: StoredOutput) -> Image | Video:
        """One image or video of the manifest; its bytes are hashed before they are decoded."""
        path = _inside(self._media, self._output_folder(manifest) / image.file)
        try:
            data = read_capped(path, MAX_IMAGE_BYTES if image.video is None else MAX_VIDEO_BYTES)
        except OSError as error:
            raise invalid(str(path), f"the {image.noun} cannot be read ({error.strerror})") from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != image.sha256:
            raise invalid(str(path), f"altered: its sha256 is {digest}, the manifest says {image.sha256}")
        size = (image.width, image.height)
        if image.video is None:
            return decode_png(data, size=size, where=str(path))
        return decode_video(data, size=size, facts=image.video, where=str(path))

    def save(self, draft: Draft, media: Sequence[Image | Video]) -> Manifest:
        """Stores a baseline in place of an older one and returns what was stored.

        Images that the manifest no longer names are removed, unless they lie in a media directory of their own:
        other checkouts and older commits may still name those.

        Args:
            draft: All but the images.
            media: RGB images or videos, one for each of `draft.identity.output_keys()` in that order; empty for a
                case without.

        Raises:
            CaseFaultError: a name that is not allowed.
            BaselineInvalidError: the draft or an image is impossible; nothing was written.
            MxqError: it could not be written; the old baseline or the new one stands, whole. Or videos, and PyAV is
                not installed.
        """
        path = self.manifest_path(draft.model, draft.case)
        if draft.device != self._device:
            raise invalid(str(path), f"device is {draft.device!r}, this store holds {self._device!r}")
        folder = _inside(self._media, self._output_folder(draft))
        files = _encode_outputs(draft, media)
        manifest = _complete(draft, tuple(files))
        data = encode(manifest)
        try:
            make_folder(path.parent)
            with locked(path.parent) as alone:
                _write_outputs(folder, files)
                write_atomically(path, data)
                if alone and self._media == self._root:
                    _remove_other_outputs(folder, manifest)
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

    def _output_folder(self, draft: Draft) -> Path:
        return self._media / self._device / model_folder_name(draft.model) / case_file_name(draft.case)


def _inside(root: Path, path: Path) -> Path:
    if not path.resolve().is_relative_to(root.resolve()):
        raise invalid(str(path), f"a link leads out of {root}, to {path.resolve()}")
    return path


def _encode_outputs(draft: Draft, media: Sequence[Image | Video]) -> dict[StoredOutput, bytes]:
    keys = list(draft.identity.output_keys()) if media else []
    if len(media) != len(keys):
        raise invalid(f"baseline of {draft.case}", f"{len(media)} {_noun(media[0])}s were generated of {len(keys)}")
    files: dict[StoredOutput, bytes] = {}
    for order, (key, generated) in enumerate(zip(keys, media, strict=True)):
        data = _encode_output(generated, where=f"{_noun(generated)} {order} of {draft.case}")
        files[_image(order, key, generated, data)] = data
    return files


def _noun(generated: Image | Video) -> str:
    return "video" if isinstance(generated, Video) else "image"


def _encode_output(generated: Image | Video, *, where: str) -> bytes:
    return encode_video(generated, where=where) if isinstance(generated, Video) else encode_png(generated, where=where)


def _image(order: int, key: OutputKey, generated: Image | Video, data: bytes) -> StoredOutput:
    video = generated.facts if isinstance(generated, Video) else None
    digest = hashlib.sha256(data).hexdigest()
    file = output_file_name(order, key.prompt, digest, suffix=".png" if video is None else ".mkv")
    width, height = generated.size
    return StoredOutput(**key._asdict(), file=file, sha256=digest, width=width, height=height, video=video)


def _complete(draft: Draft, images: tuple[StoredOutput, ...]) -> Manifest:
    # Not asdict: a Manifest is a Draft too, and a stored one may be saved again.
    known = {name: getattr(draft, name) for name in Draft.__struct_fields__}
    return Manifest(**known, schema_version=SCHEMA_VERSION, identity_sha256=draft.identity.digest, outputs=images)


def _write_outputs(folder: Path, files: dict[StoredOutput, bytes]) -> None:
    if files:
        make_folder(folder)
    for image, data in files.items():
        write_atomically(folder / image.file, data)


def _remove_other_outputs(folder: Path, manifest: Manifest) -> None:
    named = {image.file for image in manifest.outputs}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix in {".png", ".mkv"} and path.name not in named:
            path.unlink(missing_ok=True)
