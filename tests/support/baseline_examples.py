"""A small baseline for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pytest_mxq.baselines.manifest import Draft, Identity
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.baselines.video import Video
from pytest_mxq.environment.fingerprint import Fingerprint

DEVICE = "cpu-x86-64"
CASE = "TestDemo.test_demo[b2-wide]"
SIZE = (8, 6)
OLD, NEW = (10, 20), (110, 120)  # shades of two image sets


def make_draft(case: str = CASE, model: str = "demo", device: str = DEVICE) -> Draft:
    return Draft(
        case=case,
        model=model,
        device=device,
        created="2026-01-02T03:04:05Z",
        identity=Identity(
            model=model,
            weights="packaged:0123456789ab",
            prompts=("A large, striped red circle", "日本"),
            seed=0,
            batch_size=2,
            images_per_prompt=1,
            width=8,
            height=6,
            execution="eager",
            calls=({"num_inference_steps": 4},),
        ),
        selections={},
        noise_floor=None,
        lpips=None,
        fingerprint=Fingerprint(hard={"torch": "2.15.0"}, recorded={}),
    )


def make_images(shades: Sequence[int]) -> list[Image.Image]:
    images = [Image.new("RGB", SIZE, (shade, 0, 255)) for shade in shades]
    for image, shade in zip(images, shades, strict=True):
        image.putpixel((1, 2), (1, 2, shade))
    return images


def shades_of(images: Sequence[Image.Image]) -> tuple[int, ...]:
    reds = []
    for image in images:
        pixel = image.getpixel((0, 0))
        assert isinstance(pixel, tuple)
        reds.append(int(pixel[0]))
    return tuple(reds)


def stored_shades(store: BaselineStore) -> tuple[int, ...]:
    return shades_of(store.read_outputs(store.load("demo", CASE)))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def make_video(seed: int = 0, frames: int = 3, *, audio: bool = True) -> Video:
    """Noise: frames of the size of the images, and 50 samples of stereo that pass beyond full scale."""
    random = np.random.default_rng(seed)
    return Video(
        frames=random.integers(0, 256, (frames, SIZE[1], SIZE[0], 3), dtype=np.uint8),
        frame_rate=23.976,
        audio=random.normal(0, 2, (2, 50)).astype(np.float32) if audio else None,
        sample_rate=24_000 if audio else None,
    )


def make_videos(seeds: Sequence[int]) -> list[Video]:
    return [make_video(seed) for seed in seeds]


def assert_same_video(read: Video, written: Video) -> None:
    """Assert that frames and audio are bit-identical, and the rates equal."""
    assert read.facts == written.facts
    assert read.frames.dtype == np.uint8
    assert np.array_equal(read.frames, written.frames)
    assert (read.audio is None) == (written.audio is None)
    if written.audio is not None and read.audio is not None:
        assert read.audio.dtype == np.float32
        assert read.audio.tobytes() == written.audio.tobytes()
