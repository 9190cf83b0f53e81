"""Stored images that are not what the manifest says."""

import hashlib
import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
from baseline_examples import CASE, DEVICE, OLD, SIZE, make_draft, make_images, names_in
from PIL import Image

from pytest_mxq.baselines import storage
from pytest_mxq.baselines.manifest import Manifest
from pytest_mxq.baselines.paths import case_file_name
from pytest_mxq.baselines.png import encode_png
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.errors import BaselineInvalidError


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    return BaselineStore(tmp_path / "baselines", media=None, device=DEVICE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "baselines" / DEVICE / "demo" / case_file_name(CASE)


def with_first_image(manifest: Manifest, **changes: object) -> Manifest:
    first, *others = manifest.outputs
    return msgspec.structs.replace(manifest, outputs=(msgspec.structs.replace(first, **changes), *others))


def first_replaced(store: BaselineStore, folder: Path, data: bytes, **changes: object) -> Manifest:
    """A manifest whose first image is `data`, with a hash that agrees."""
    saved = store.save(make_draft(), make_images(OLD))
    (folder / saved.outputs[0].file).write_bytes(data)
    return with_first_image(saved, sha256=hashlib.sha256(data).hexdigest(), **changes)


def assert_refused(store: BaselineStore, manifest: Manifest, folder: Path, problem: str) -> None:
    with pytest.raises(BaselineInvalidError) as caught:
        store.read_outputs(manifest)
    assert str(caught.value).startswith(f"{folder / manifest.outputs[0].file}: ")
    assert problem in str(caught.value)
    assert "pytest --mxq-refresh" in str(caught.value)


def png_of(image: Image.Image) -> bytes:
    return encode_png(image, where="test")


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_every_flipped_bit_is_noticed(store: BaselineStore, folder: Path) -> None:
    saved = store.save(make_draft(), make_images(OLD))
    path = folder / saved.outputs[0].file
    data = path.read_bytes()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert_refused(store, saved, folder, "altered: its sha256 is")


def test_a_missing_image_is_refused(store: BaselineStore, folder: Path) -> None:
    saved = store.save(make_draft(), make_images(OLD))
    (folder / saved.outputs[0].file).unlink()
    assert_refused(store, saved, folder, "cannot be read (No such file or directory)")


@pytest.mark.parametrize("keep", [0, 10, 40, -30])
def test_a_truncated_png_is_refused_even_if_its_hash_agrees(store: BaselineStore, folder: Path, keep: int) -> None:
    data = png_of(make_images(OLD)[0])[:keep]
    problem = "the PNG is damaged" if len(data) >= 33 else "not a PNG file"
    assert_refused(store, first_replaced(store, folder, data), folder, problem)


def test_a_decompression_bomb_is_not_decoded(
    store: BaselineStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = first_replaced(store, folder, png_header(8193, 8192), width=8193, height=8192)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    assert_refused(store, bomb, folder, "8193 x 8192, at most 67108864 pixels are decoded")


def test_an_enormous_file_is_not_read(store: BaselineStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = store.save(make_draft(), make_images(OLD))
    os.truncate(folder / saved.outputs[0].file, storage.MAX_IMAGE_BYTES + 1)
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("opened"))
    assert_refused(store, saved, folder, "268435457 bytes, at most 268435456 are read")


def test_an_image_of_another_size_is_refused(store: BaselineStore, folder: Path) -> None:
    data = png_of(Image.new("RGB", (6, 8)))
    assert_refused(store, first_replaced(store, folder, data), folder, "6 x 8, the manifest says 8 x 6")


def saved_by_pillow(mode: str, suffix: str = ".png") -> bytes:
    buffer = BytesIO()
    Image.new(mode, SIZE).save(buffer, format={".png": "PNG", ".tif": "TIFF", ".bmp": "BMP", ".jpg": "JPEG"}[suffix])
    return buffer.getvalue()


def png_of_16_bits() -> bytes:
    """RGB of 16 bits a channel, which Pillow would read as 8 without a word."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *SIZE, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\1\2" * 3 * SIZE[0]) * SIZE[1])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (saved_by_pillow("L"), "grey of 8 bits a channel"),
        (saved_by_pillow("1"), "grey of 1 bits a channel"),
        (saved_by_pillow("I;16"), "grey of 16 bits a channel"),
        (saved_by_pillow("P"), "palette of 1 bits"),
        (saved_by_pillow("LA"), "grey with alpha"),
        (saved_by_pillow("RGBA"), "RGB with alpha"),
        (png_of_16_bits(), "RGB of 16 bits a channel"),
        (saved_by_pillow("RGB", ".bmp"), "not a PNG file"),
        (saved_by_pillow("CMYK", ".jpg"), "not a PNG file"),
        (saved_by_pillow("CMYK", ".tif"), "not a PNG file"),
    ],
    ids=[
        "grey",
        "1 bit",
        "16-bit grey",
        "palette",
        "grey alpha",
        "alpha",
        "16-bit RGB",
        "BMP",
        "CMYK JPEG",
        "CMYK TIFF",
    ],
)
def test_an_image_that_is_not_8_bit_rgb_in_a_png_is_refused(
    store: BaselineStore, folder: Path, data: bytes, problem: str
) -> None:
    assert_refused(store, first_replaced(store, folder, data), folder, problem)


@pytest.mark.parametrize("kind", [b"acTL", b"iCCP", b"zTXt", b"tRNS", b"eXIf", b"\x00\xff\n\x1b"])
def test_a_png_with_more_than_pixels_is_refused_before_it_is_decoded(
    store: BaselineStore, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    data = png_of(make_images(OLD)[0])
    body = b"a\0\0" + zlib.compress(bytes(100_000))
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    manifest = first_replaced(store, folder, data[:33] + chunk + data[33:])
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("decoded"))
    assert_refused(store, manifest, folder, "the PNG has a chunk")


def test_links_out_of_the_root_are_refused(store: BaselineStore, folder: Path, tmp_path: Path) -> None:
    saved = store.save(make_draft(), make_images(OLD))
    path = folder / saved.outputs[0].file
    path.rename(tmp_path / "outside.png")
    path.symlink_to(tmp_path / "outside.png")
    assert_refused(store, saved, folder, "a link leads out of")

    (tmp_path / "elsewhere").mkdir()
    (folder.parent.parent / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BaselineInvalidError, match="a link leads out of"):
        store.save(make_draft(model="linked"), make_images(OLD))
    assert names_in(tmp_path / "elsewhere") == set()
