"""Videos in a manifest."""

import json
from typing import Any

import msgspec
import pytest
from manifest_examples import WHERE, make_manifest, message_of, put

from pytest_mxq.baselines.manifest import Manifest, VideoFacts, decode, encode, sealed

FACTS = VideoFacts(frames=121, frame_rate=24000 / 1001, sample_rate=24_000, channels=2, samples=121_000)


def make_video_manifest(video: VideoFacts = FACTS) -> Manifest:
    manifest = make_manifest()
    images = tuple(
        msgspec.structs.replace(image, file=image.file.replace(".png", ".mkv"), video=video)
        for image in manifest.outputs
    )
    return sealed(msgspec.structs.replace(manifest, outputs=images))


@pytest.mark.parametrize("video", [FACTS, VideoFacts(frames=1, frame_rate=23.976)], ids=["with audio", "without"])
def test_a_manifest_of_videos_is_read_back_as_it_was(video: VideoFacts) -> None:
    data = encode(make_video_manifest(video))
    assert decode(data, where=WHERE) == make_video_manifest(video)
    assert encode(decode(data, where=WHERE)) == data
    facts = json.loads(data)["outputs"][0]["video"]
    assert facts["frame_rate"] == video.frame_rate
    assert set(facts) == {"frames", "frame_rate", "sample_rate", "channels", "samples"}


def test_a_manifest_of_images_has_no_facts_of_videos() -> None:
    data = encode(make_manifest())
    assert b"video" not in data
    assert set(json.loads(data)["outputs"][0]) == {
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
        ("outputs/0/file", "00.png", "outputs[0].file is '00.png', but video is VideoFacts(frames=121"),
        ("outputs/1/file", "../01.mkv", "outputs[1].file is '../01.mkv'"),
        ("outputs/1/file", "01.mkv.pkl", "outputs[1].file is '01.mkv.pkl'"),
        ("outputs/1/video", None, "outputs holds images as well as videos"),
        ("outputs/0/video/frames", 0, "outputs[0].video.frames is 0"),
        ("outputs/0/video/frame_rate", 0, "outputs[0].video.frame_rate is 0"),
        ("outputs/1/video/sample_rate", -1, "outputs[1].video.sample_rate is -1"),
        ("outputs/1/video/samples", None, "outputs[1].video is VideoFacts("),
        ("outputs/1/video/channels", None, "outputs[1].video is VideoFacts("),
        ("outputs/1/video/sample_rate", None, "outputs[1].video is VideoFacts("),
        ("outputs/1/video/surprise", 1, "outputs[1].video: Object contains unknown field `surprise`"),
    ],
)
def test_an_impossible_video_is_refused_with_its_path_and_value(path: str, value: object, expected: str) -> None:
    document = json.loads(encode(make_video_manifest()))
    put(path, value)(document)
    assert message_of(json.dumps(document).encode()).startswith(f"{WHERE}: {expected}")


def image_manifest_with(changes: dict[str, Any]) -> bytes:
    document = json.loads(encode(make_manifest()))
    for image in document["outputs"]:
        image.update({name: value(image) for name, value in changes.items()})
    return json.dumps(document).encode()


def test_a_videos_file_without_its_facts_and_facts_without_a_videos_file_are_refused() -> None:
    video = image_manifest_with({"file": lambda image: image["file"].replace(".png", ".mkv")})
    assert "outputs[0].file is '00.mkv', but video is None: a video is an .mkv file, an image a .png" in message_of(
        video
    )
    facts = image_manifest_with({"video": lambda _: msgspec.to_builtins(FACTS)})
    assert "outputs[0].file is '00.png', but video is VideoFacts(frames=121" in message_of(facts)


def test_a_missing_fact_is_named() -> None:
    for field in ("frames", "frame_rate"):
        document = json.loads(encode(make_video_manifest()))
        del document["outputs"][0]["video"][field]
        assert f"missing required field `{field}`" in message_of(json.dumps(document).encode())
