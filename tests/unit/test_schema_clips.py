"""Clips in a manifest."""

import json
from typing import Any

import msgspec
import pytest
from test_schema import WHERE, make_manifest, message_of, put

from pytest_mxq.baselines.manifest import ClipFacts, Manifest, decode, encode

FACTS = ClipFacts(frames=121, frame_rate=24000 / 1001, sample_rate=24_000, channels=2, samples=121_000)


def make_clip_manifest(clip: ClipFacts = FACTS) -> Manifest:
    manifest = make_manifest()
    pictures = tuple(
        msgspec.structs.replace(picture, file=picture.file.replace(".png", ".mkv"), clip=clip)
        for picture in manifest.pictures
    )
    return msgspec.structs.replace(manifest, pictures=pictures)


@pytest.mark.parametrize("clip", [FACTS, ClipFacts(frames=1, frame_rate=23.976)], ids=["with sound", "without"])
def test_a_manifest_of_clips_is_read_back_as_it_was(clip: ClipFacts) -> None:
    data = encode(make_clip_manifest(clip))
    assert decode(data, where=WHERE) == make_clip_manifest(clip)
    assert encode(decode(data, where=WHERE)) == data
    facts = json.loads(data)["pictures"][0]["clip"]
    assert facts["frame_rate"] == clip.frame_rate
    assert set(facts) == {"frames", "frame_rate", "sample_rate", "channels", "samples"}


def test_a_manifest_of_pictures_is_written_as_before_there_were_clips() -> None:
    data = encode(make_manifest())
    assert b"clip" not in data
    assert set(json.loads(data)["pictures"][0]) == {
        "prompt",
        "prompt_index",
        "image_index",
        "seed",
        "file",
        "sha256",
        "width",
        "height",
    }


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("pictures/0/file", "00.png", "pictures[0].file is '00.png', but clip is ClipFacts(frames=121"),
        ("pictures/1/file", "../01.mkv", "pictures[1].file is '../01.mkv': Expected `str` matching"),
        ("pictures/1/file", "01.mkv.pkl", "pictures[1].file is '01.mkv.pkl'"),
        ("pictures/1/clip", None, "pictures holds pictures as well as clips"),
        ("pictures/0/clip/frames", 0, "pictures[0].clip.frames is 0: Expected `int` >= 1"),
        ("pictures/0/clip/frame_rate", 0, "pictures[0].clip.frame_rate is 0: Expected `float` > 0.0"),
        ("pictures/1/clip/sample_rate", -1, "pictures[1].clip.sample_rate is -1"),
        ("pictures/1/clip/samples", None, "pictures[1].clip is ClipFacts("),
        ("pictures/1/clip/channels", None, "pictures[1].clip is ClipFacts("),
        ("pictures/1/clip/sample_rate", None, "pictures[1].clip is ClipFacts("),
        ("pictures/1/clip/surprise", 1, "pictures[1].clip: Object contains unknown field `surprise`"),
    ],
)
def test_an_impossible_clip_is_refused_with_its_path_and_value(path: str, value: object, expected: str) -> None:
    document = json.loads(encode(make_clip_manifest()))
    put(path, value)(document)
    assert message_of(json.dumps(document).encode()).startswith(f"{WHERE}: {expected}")


def picture_manifest_with(changes: dict[str, Any]) -> bytes:
    document = json.loads(encode(make_manifest()))
    for picture in document["pictures"]:
        picture.update({name: value(picture) for name, value in changes.items()})
    return json.dumps(document).encode()


def test_a_clips_file_without_its_facts_and_facts_without_a_clips_file_are_refused() -> None:
    film = picture_manifest_with({"file": lambda picture: picture["file"].replace(".png", ".mkv")})
    assert "pictures[0].file is '00.mkv', but clip is None: a clip is an .mkv file, a picture a .png" in message_of(
        film
    )
    facts = picture_manifest_with({"clip": lambda _: msgspec.to_builtins(FACTS)})
    assert "pictures[0].file is '00.png', but clip is ClipFacts(frames=121" in message_of(facts)


def test_a_missing_fact_is_named() -> None:
    for field in ("frames", "frame_rate"):
        document = json.loads(encode(make_clip_manifest()))
        del document["pictures"][0]["clip"][field]
        assert f"missing required field `{field}`" in message_of(json.dumps(document).encode())
