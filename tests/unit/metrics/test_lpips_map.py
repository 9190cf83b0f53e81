"""The LPIPS map: the numbers of the lpips package, coloured, where the images differ."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from pytest_mxq.metrics.lpips import Lpips
from pytest_mxq.metrics.lpips_map import coloured, map_image


def test_the_map_has_the_numbers_of_the_package() -> None:
    metric = Lpips()
    generator = torch.Generator().manual_seed(0)
    reference, other = (torch.randint(0, 256, (1, 3, 64, 48), generator=generator, dtype=torch.uint8) for _ in "ab")
    found = metric.spatial(reference, other)
    metric._network.spatial = True
    with torch.no_grad():
        expected = metric._network(reference / 127.5 - 1, other / 127.5 - 1)[0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_map_is_bright_where_the_images_differ() -> None:
    reference = Image.new("RGB", (128, 128), (90, 120, 150))
    other = reference.copy()
    other.paste((250, 20, 20), (96, 96, 112, 112))
    found = map_image(reference, other)
    assert found is not None
    image, peak = found
    assert image.size == reference.size
    assert peak > 0.05
    levels = image.convert("L")
    assert levels.crop((96, 96, 112, 112)).getextrema()[1] > 200  # type: ignore[operator]
    assert levels.crop((0, 0, 32, 32)).getextrema()[1] < 60  # type: ignore[operator]


def test_equal_images_give_a_black_map() -> None:
    image = Image.new("RGB", (64, 64), (90, 120, 150))
    found = map_image(image, image)
    assert found is not None
    assert found[1] == 0
    assert found[0].convert("L").getextrema()[1] < 10  # type: ignore[operator]


@pytest.mark.parametrize("sizes", [((16, 16), (16, 16)), ((64, 64), (64, 32))])
def test_images_without_an_lpips_value_have_no_map(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    assert map_image(*(Image.new("RGB", size) for size in sizes)) is None


def test_colours_grow_lighter_with_the_value() -> None:
    pixels = coloured(torch.linspace(0, 1, 32)[None]).float()
    lightness = (pixels * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(0)[0]
    assert bool((lightness.diff() > 0).all())
