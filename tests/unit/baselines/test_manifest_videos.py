"""Videos in a manifest."""

import json
from typing import Any

import msgspec
import pytest
from manifest_examples import WHERE, make_manifest, message_of, put

from pytest_mxq.baselines.manifest import Manifest, VideoFacts, decode, encode

FACTS = VideoFacts(frames=121, frame_rate=24000 / 1001, sample_rate=24_000, channels=2, samples=121_000)


def make_video_manifest(video: VideoFacts = FACTS) -> Manifest:
    manifest = make_manifest()
    images = tuple(
        msgspec.structs.replace(image, file=image.file.replace(".png", ".mkv"), video=video)
        for image in manifest.outputs
    )
    return msgspec.structs.replace(manifest, outputs=images)


@pytest.mark.parametrize("video", [FACTS, VideoFacts(frames=1, frame_rate=23.976)], ids=["with audio", "without"])
def test_a_manifest_of_videos_is_read_back_as_it_was(video: VideoFacts) -> None:
    data = encode(make_video_manifest(video))
    assert decode(data, where=WHERE) == make_video_manifest(video)
    assert encode(decode(data, where=WHERE)) == data
    facts = json.loads(data)["pictures"][0]["clip"]
    assert facts["frame_rate"] == video.frame_rate
    assert set(facts) == {"frames", "frame_rate", "sample_rate", "channels", "samples"}


def test_a_manifest_of_images_is_written_as_before_there_were_videos() -> None:
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
        ("pictures/0/file", "00.png", "pictures[0].file is '00.png', but clip is VideoFacts(frames=121"),
        ("pictures/1/file", "../01.mkv", "pictures[1].file is '../01.mkv': Expected `str` matching"),
        ("pictures/1/file", "01.mkv.pkl", "pictures[1].file is '01.mkv.pkl'"),
        ("pictures/1/clip", None, "pictures holds images as well as videos"),
        ("pictures/0/clip/frames", 0, "pictures[0].clip.frames is 0: Expected `int` >= 1"),
        ("pictures/0/clip/frame_rate", 0, "pictures[0].clip.frame_rate is 0: Expected `float` > 0.0"),
        ("pictures/1/clip/sample_rate", -1, "pictures[1].clip.sample_rate is -1"),
        ("pictures/1/clip/samples", None, "pictures[1].clip is VideoFacts("),
        ("pictures/1/clip/channels", None, "pictures[1].clip is VideoFacts("),
        ("pictures/1/clip/sample_rate", None, "pictures[1].clip is VideoFacts("),
        ("pictures/1/clip/surprise", 1, "pictures[1].clip: Object contains unknown field `surprise`"),
    ],
)
def test_an_impossible_video_is_refused_with_its_path_and_value(path: str, value: object, expected: str) -> None:
    document = json.loads(encode(make_video_manifest()))
    put(path, value)(document)
    assert message_of(json.dumps(document).encode()).startswith(f"{WHERE}: {expected}")


def image_manifest_with(changes: dict[str, Any]) -> bytes:
    document = json.loads(encode(make_manifest()))
    for image in document["pictures"]:
        image.update({name: value(image) for name, value in changes.items()})
    return json.dumps(document).encode()


def test_a_videos_file_without_its_facts_and_facts_without_a_videos_file_are_refused() -> None:
    video = image_manifest_with({"file": lambda image: image["file"].replace(".png", ".mkv")})
    assert "pictures[0].file is '00.mkv', but clip is None: a video is an .mkv file, an image a .png" in message_of(
        video
    )
    facts = image_manifest_with({"clip": lambda _: msgspec.to_builtins(FACTS)})
    assert "pictures[0].file is '00.png', but clip is VideoFacts(frames=121" in message_of(facts)


def test_a_missing_fact_is_named() -> None:
    for field in ("frames", "frame_rate"):
        document = json.loads(encode(make_video_manifest()))
        del document["pictures"][0]["clip"][field]
        assert f"missing required field `{field}`" in message_of(json.dumps(document).encode())
