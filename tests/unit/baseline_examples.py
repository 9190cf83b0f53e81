"""A small baseline for tests."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pytest_mxq.baselines.fingerprint import Fingerprint
from pytest_mxq.baselines.schema import Draft, Identity
from pytest_mxq.baselines.store import BaselineStore

DEVICE = "cpu-x86-64"
CASE = "TestDemo.test_demo[b2-wide]"
SIZE = (8, 6)
OLD, NEW = (10, 20), (110, 120)  # shades of two picture sets


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
    return shades_of(store.read_pictures(store.load("demo", CASE)))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
