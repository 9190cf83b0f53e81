"""Schema version 2: every section is covered by a digest; version 1 is read under its own keys."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from manifest_examples import WHERE, altered, in_schema_1, make_manifest, message_of, put, resealed

from pytest_mxq.baselines.manifest import SCHEMA_VERSION, Manifest, VideoFacts, content_digest, decode, encode, sealed
from pytest_mxq.baselines.store import BaselineStore

BASELINES = Path(__file__).parents[3] / "baselines"


def make_videos_manifest() -> Manifest:
    facts = VideoFacts(frames=3, frame_rate=24.0, sample_rate=24_000, channels=2, samples=50)
    manifest = make_manifest()
    outputs = tuple(
        msgspec.structs.replace(output, file=output.file.replace("png", "mkv"), video=facts)
        for output in manifest.outputs
    )
    return sealed(msgspec.structs.replace(manifest, outputs=outputs))


def old_bytes(manifest: Manifest) -> bytes:
    return json.dumps(in_schema_1(json.loads(encode(manifest)))).encode()


@pytest.mark.parametrize("manifest", [make_manifest(), make_videos_manifest()], ids=["images", "videos"])
def test_version_1_is_read_under_its_own_keys_and_says_that_no_digest_covers_it(manifest: Manifest) -> None:
    old = decode(old_bytes(manifest), where=WHERE)
    assert (old.schema_version, old.is_covered) == (1, False)
    assert (old.outputs, old.lpips, old.identity) == (manifest.outputs, manifest.lpips, manifest.identity)
    assert sealed(old) == manifest


def test_version_2_alone_is_written() -> None:
    old = decode(old_bytes(make_manifest()), where=WHERE)
    document = json.loads(encode(old))
    assert document["schema_version"] == SCHEMA_VERSION == 2
    assert document["content_sha256"] == content_digest(document)
    assert not {"pictures", "clip", "trunk_sha256"} & set(json.dumps(document).replace('"', " ").split())
    assert decode(encode(old), where=WHERE).is_covered


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("noise_floor/repeat", 0.02),
        ("noise_floor/note", "x"),
        ("selections/mxfp8/weight_share", 0.8),
        ("selections/mxfp8/sha256", "f" * 64),
        ("fingerprint/hard/torch", "2.16.0"),
        ("fingerprint/recorded/host", "x"),
        ("lpips/version", "0.2"),
        ("created", "2026-01-02T03:04:06+00:00"),
        ("outputs/0/sha256", "f" * 64),
        ("case", "other"),
        ("sessions", []),
    ],
)
def test_a_section_edited_by_hand_is_refused(path: str, value: object) -> None:
    if path == "sessions":  # one session too few
        manifest = sealed(msgspec.structs.replace(make_manifest(), sessions=()))
        document = json.loads(encode(manifest))
        del document["sessions"]
        assert "content_sha256" in message_of(json.dumps(document).encode())
        return
    assert "the manifest was altered" in message_of(altered(put(path, value)))
    document = json.loads(altered(put(path, value)))
    decode(json.dumps(resealed(document)).encode(), where=WHERE)  # the digest is what refuses it


def test_version_2_without_its_digest_is_refused() -> None:
    assert "content_sha256 is missing" in message_of(altered(lambda document: document.pop("content_sha256")))


def test_order_of_keys_and_spaces_are_not_content() -> None:
    document = json.loads(encode(make_manifest()))
    shuffled = json.dumps(dict(reversed(document.items())), indent=7).encode()
    assert decode(shuffled, where=WHERE) == make_manifest()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (put("outputs", []), "outputs"),
        (put("content_sha256", "f" * 64), "content_sha256"),
        (put("lpips/weights_sha256", "f" * 64), "weights_sha256"),
        (put("pictures/0/video", None), "video"),
    ],
)
def test_version_1_with_a_key_of_version_2_is_refused(change: Any, field: str) -> None:
    document = in_schema_1(json.loads(encode(make_manifest())))
    change(document)
    assert f"schema_version 1 has no field `{field}`" in message_of(json.dumps(document).encode())


@pytest.mark.parametrize("field", ["pictures", "lpips", "noise_floor"])
def test_version_1_without_a_field_is_refused(field: str) -> None:
    document = in_schema_1(json.loads(encode(make_manifest())))
    del document[field]
    assert "missing required field" in message_of(json.dumps(document).encode())


def test_the_committed_baseline_is_covered_and_its_images_are_read() -> None:
    store = BaselineStore(BASELINES, media=None, device="cpu-x86-64")
    manifest = store.load("demo", "test_demo")
    assert manifest.is_covered
    assert len(store.read_outputs(manifest)) == 8
    assert encode(manifest) == store.manifest_path("demo", "test_demo").read_bytes()
