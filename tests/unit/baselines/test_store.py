import hashlib
import os
import tempfile
from pathlib import Path

import msgspec
import pytest
from baseline_examples import CASE, DEVICE, NEW, OLD, SIZE, make_draft, make_images, names_in, shades_of, stored_shades
from PIL import Image

from pytest_mxq.baselines import storage
from pytest_mxq.baselines.manifest import Draft, decode, encode
from pytest_mxq.baselines.paths import case_file_name, content_file_name
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.errors import BaselineInvalidError, BaselineMissingError, MxqError


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    return BaselineStore(tmp_path / "baselines", media=None, device=DEVICE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "baselines" / DEVICE / "demo" / case_file_name(CASE)


def test_what_is_saved_is_loaded_to_the_pixel(store: BaselineStore) -> None:
    images = make_images(OLD)
    saved = store.save(make_draft(), images)
    assert store.load("demo", CASE) == saved
    read = store.read_outputs(saved)
    assert [image.tobytes() for image in read] == [image.tobytes() for image in images]
    assert {(image.mode, image.size) for image in read} == {("RGB", SIZE)}


def test_layout_on_disk(store: BaselineStore, folder: Path, tmp_path: Path) -> None:
    saved = store.save(make_draft(), make_images(OLD))
    manifest = tmp_path / "baselines/cpu-x86-64/demo/TestDemo.test_demo%5Bb2-wide%5D.json"
    assert store.manifest_path("demo", CASE) == manifest
    assert decode(manifest.read_bytes(), where="x") == saved
    first, second = saved.outputs
    assert (first.file, second.file) == ("00-a-large-striped-red-circle.png", "01-prompt.png")
    assert names_in(folder) == {first.file, second.file}
    assert hashlib.sha256((folder / first.file).read_bytes()).hexdigest() == first.sha256
    assert (first.seed, second.seed, first.width, first.height) == (0, 1, 8, 6)


def test_media_lies_elsewhere_if_asked(tmp_path: Path) -> None:
    store = BaselineStore(tmp_path / "root", media=tmp_path / "media", device=DEVICE)
    saved = store.save(make_draft(), make_images(OLD))
    place = tmp_path / "media" / DEVICE / "demo" / case_file_name(CASE)
    assert names_in(place) == {image.file for image in saved.outputs}
    assert names_in(tmp_path / "root" / DEVICE / "demo") == {f"{case_file_name(CASE)}.json"}
    assert stored_shades(store) == OLD


def test_images_keep_their_names_when_their_content_changes_and_in_a_shared_media_folder_do_not(
    store: BaselineStore, tmp_path: Path
) -> None:
    shared = BaselineStore(tmp_path / "root", media=tmp_path / "media", device=DEVICE)
    for kind, is_kept in ((store, True), (shared, False)):
        old = kind.save(make_draft(), make_images(OLD))
        new = kind.save(make_draft(), make_images(NEW))
        assert ([image.file for image in old.outputs] == [image.file for image in new.outputs]) is is_kept
        assert stored_shades(kind) == NEW
    assert [image.tobytes() for image in shared.read_outputs(old)] == [image.tobytes() for image in make_images(OLD)]


def test_images_under_the_names_of_earlier_versions_are_read_and_get_names_that_stay(
    store: BaselineStore, folder: Path
) -> None:
    saved = store.save(make_draft(), make_images(OLD))
    names = {image.file: content_file_name(image.file, image.sha256) for image in saved.outputs}
    for file, earlier in names.items():
        (folder / file).rename(folder / earlier)
    outputs = tuple(msgspec.structs.replace(image, file=names[image.file]) for image in saved.outputs)
    store.manifest_path("demo", CASE).write_bytes(encode(msgspec.structs.replace(saved, outputs=outputs)))
    assert stored_shades(store) == OLD
    store.save(make_draft(), make_images(NEW))
    assert names_in(folder) == set(names)
    assert stored_shades(store) == NEW


def test_a_hub_id_becomes_one_folder(store: BaselineStore) -> None:
    store.save(make_draft(model="black-forest-labs/FLUX.1-dev"), make_images(OLD))
    assert store.manifest_path("black-forest-labs/FLUX.1-dev", CASE).parent.name == "black-forest-labs--FLUX.1-dev"
    assert store.load("black-forest-labs/FLUX.1-dev", CASE).model == "black-forest-labs/FLUX.1-dev"


def test_a_case_without_images_is_stored(store: BaselineStore, folder: Path) -> None:
    saved = store.save(make_draft(), [])
    assert saved.outputs == ()
    assert store.read_outputs(store.load("demo", CASE)) == []
    assert not folder.exists()


def test_all_manifests_of_the_device_are_listed(store: BaselineStore, tmp_path: Path) -> None:
    assert store.manifests() == []
    for case in ("b", "a"):
        store.save(make_draft(case=case), make_images(OLD))
    other = BaselineStore(tmp_path / "baselines", media=None, device="cpu-aarch64")
    other.save(make_draft(device="cpu-aarch64"), make_images(OLD))
    (store.manifest_path("demo", "a").parent / ".left-by-a-crash.json").write_text("{")
    assert [path.name for path in store.manifests()] == ["a.json", "b.json"]


def test_a_missing_baseline_names_the_path_and_the_command(store: BaselineStore) -> None:
    with pytest.raises(BaselineMissingError) as caught:
        store.load("demo", CASE)
    assert str(store.manifest_path("demo", CASE)) in str(caught.value)
    assert "pytest --mxq-refresh" in str(caught.value)


def test_a_truncated_manifest_names_its_file(store: BaselineStore) -> None:
    store.save(make_draft(), make_images(OLD))
    path = store.manifest_path("demo", CASE)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BaselineInvalidError, match="not a JSON document") as caught:
        store.load("demo", CASE)
    assert str(caught.value).startswith(str(path))


def test_a_manifest_copied_to_another_model_is_refused(store: BaselineStore) -> None:
    store.save(make_draft(), make_images(OLD))
    path = store.manifest_path("other", CASE)
    path.parent.mkdir()
    path.write_bytes(store.manifest_path("demo", CASE).read_bytes())
    with pytest.raises(BaselineInvalidError, match="not to cpu-x86-64 / other"):
        store.load("other", CASE)


def test_a_baseline_that_was_moved_with_its_images_is_that_of_its_new_name(store: BaselineStore) -> None:
    saved = store.save(make_draft(), make_images(OLD))
    store.manifest_path("demo", CASE).rename(store.manifest_path("demo", "other"))
    store.output_folder("demo", CASE).rename(store.output_folder("demo", "other"))
    moved = store.load("demo", "other")
    assert (moved.case, moved.identity, moved.outputs) == ("other", saved.identity, saved.outputs)
    assert len(store.read_outputs(moved)) == len(saved.outputs)
    assert store.cases("demo") == ["other"]


def test_a_manifest_that_cannot_be_read_is_invalid_not_missing(store: BaselineStore) -> None:
    store.manifest_path("demo", CASE).mkdir(parents=True)
    with pytest.raises(BaselineInvalidError, match="cannot be read"):
        store.load("demo", CASE)


def test_an_enormous_manifest_is_not_read(store: BaselineStore) -> None:
    store.save(make_draft(), [])
    os.truncate(store.manifest_path("demo", CASE), storage.MAX_MANIFEST_BYTES + 1)
    with pytest.raises(BaselineInvalidError, match="2097153 bytes, at most 2097152 are read"):
        store.load("demo", CASE)


@pytest.mark.parametrize(
    ("draft", "images", "problem"),
    [
        (make_draft(), make_images((1,)), "1 images were generated of 2"),
        (make_draft(), make_images((1, 2, 3)), "3 images were generated of 2"),
        (make_draft(), [Image.new("RGBA", SIZE)] * 2, "the image is RGBA of 8 x 6: it must be RGB"),
        (make_draft(device="cpu-aarch64"), make_images(OLD), "device is 'cpu-aarch64', this store holds 'cpu-x86-64'"),
        (msgspec.structs.replace(make_draft(), created="today"), make_images(OLD), "created is 'today'"),
    ],
)
def test_an_impossible_draft_is_refused_before_anything_is_written(
    store: BaselineStore, tmp_path: Path, draft: Draft, images: list[Image.Image], problem: str
) -> None:
    with pytest.raises(BaselineInvalidError) as caught:
        store.save(draft, images)
    assert problem in str(caught.value)
    assert names_in(tmp_path) == set()


def test_equal_pixels_give_equal_bytes_whatever_metadata_they_carry(store: BaselineStore) -> None:
    plain = store.save(make_draft(), make_images(OLD))
    images = make_images(OLD)
    for image in images:
        image.info.update(icc_profile=b"profile", transparency=(10, 0, 255), dpi=(72, 72), comment="x")
    assert store.save(make_draft(), images) == plain


def test_a_refresh_removes_the_images_that_it_replaced_and_nothing_else(store: BaselineStore, folder: Path) -> None:
    store.save(make_draft(), make_images(OLD))
    neighbour = store.save(make_draft(case="neighbour"), make_images(OLD))
    (folder / "notes.txt").write_text("kept")
    (folder / ".0123456789abcdef0123456789abcdef.png").write_text("left by a crash")
    saved = store.save(make_draft(), make_images((OLD[0], NEW[1])))
    assert names_in(folder) == {image.file for image in saved.outputs} | {"notes.txt"}
    assert shades_of(store.read_outputs(neighbour)) == OLD


def test_a_media_directory_keeps_old_images_for_other_checkouts(tmp_path: Path) -> None:
    mine, theirs = (BaselineStore(tmp_path / root, media=tmp_path / "media", device=DEVICE) for root in ("a", "b"))
    theirs.save(make_draft(), make_images(OLD))
    mine.save(make_draft(), make_images(NEW))
    assert (stored_shades(mine), stored_shades(theirs)) == (NEW, OLD)


def test_a_stored_manifest_can_be_saved_again(store: BaselineStore) -> None:
    saved = store.save(make_draft(), make_images(OLD))
    assert store.save(saved, store.read_outputs(saved)) == saved


def test_check_writable_passes_and_leaves_nothing_behind(store: BaselineStore, tmp_path: Path) -> None:
    store.check_writable()
    assert names_in(tmp_path / "baselines" / DEVICE) == set()


def test_a_directory_that_cannot_be_written_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MxqError, match=r"file/cpu-x86-64 cannot be written \(.*File exists.*--mxq-baselines=DIR"):
        BaselineStore(tmp_path / "file", media=None, device=DEVICE).check_writable()
    with pytest.raises(MxqError, match="--mxq-media=DIR"):
        BaselineStore(tmp_path / "good", media=tmp_path / "file" / "deeper", device=DEVICE).check_writable()


def test_a_read_only_file_system_is_found_before_the_work(
    store: BaselineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", "probe")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(MxqError, match=r"cannot be written \(Read-only file system: probe\)"):
        store.check_writable()
