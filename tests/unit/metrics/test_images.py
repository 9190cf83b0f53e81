"""Pixels: the PNG that diffusers would save, and SSIM and PSNR against their formulas."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from pytest_mxq.metrics.images import ImageError, to_uint8
from pytest_mxq.metrics.psnr import psnr
from pytest_mxq.metrics.ssim import ssim

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Measure: TypeAlias = Callable[[Tensor, Tensor], list[float]]


def images(count: int = 2, side: int = 24, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def noisy(reference: Tensor, sigma: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(reference.shape, generator=generator) * sigma
    return (reference + noise).round().clamp(0, 255).to(torch.uint8)


def as_array(image: Tensor) -> Array:
    return image.permute(1, 2, 0).numpy().astype(np.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_to_uint8_rounds_as_diffusers_saves_a_png(dtype: torch.dtype) -> None:
    images = torch.rand((2, 3, 40, 40), generator=torch.Generator().manual_seed(0)).to(dtype)
    # diffusers 0.42: VaeImageProcessor.pt_to_numpy, then numpy_to_pil
    saved = (images.float().numpy() * 255).round().astype("uint8")
    assert to_uint8(images).numpy().tolist() == saved.tolist()


def test_to_uint8_rounds_half_to_even() -> None:
    halves = torch.tensor([0.5, 1.5, 2.5, 254.5]) / 255
    assert (halves * 255).tolist() == [0.5, 1.5, 2.5, 254.5]
    assert to_uint8(halves.expand(1, 3, 1, 4))[0, 0, 0].tolist() == [0, 2, 2, 254]


def test_to_uint8_never_wraps_around() -> None:
    row = torch.tensor([-0.1, 1.1, math.inf, -math.inf, math.nan]).expand(1, 3, 1, 5)
    assert to_uint8(row)[0, 0, 0].tolist() == [0, 255, 255, 0, 0]


def test_to_uint8_leaves_its_input_alone() -> None:
    images = torch.full((1, 3, 2, 2), 0.3)
    to_uint8(images)
    assert torch.equal(images, torch.full((1, 3, 2, 2), 0.3))


def test_to_uint8_refuses_images_that_are_8_bit_already() -> None:
    with pytest.raises(ImageError, match=r"torch\.uint8; expected floats in \[0, 1\]"):
        to_uint8(images())


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (0, 3, 8, 8), (1, 3, 0, 8)])
def test_what_is_not_a_batch_of_images_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError) as raised:
        to_uint8(torch.zeros(shape))
    assert str(shape) in str(raised.value)


def test_psnr_is_ten_log_of_the_peak_over_the_error() -> None:
    reference = images()
    other = noisy(reference, 9.0)
    expected = [
        10 * math.log10(255**2 / np.mean((as_array(a) - as_array(b)) ** 2))
        for a, b in zip(reference, other, strict=True)
    ]
    assert psnr(reference, other) == pytest.approx(expected, rel=1e-12)


def test_equal_images_have_infinite_psnr_and_ssim_one() -> None:
    reference = images()
    assert psnr(reference, reference.clone()) == [math.inf, math.inf]
    assert ssim(reference, reference.clone()) == [1.0, 1.0]


def formula_ssim(reference: Tensor, other: Tensor) -> float:
    """Wang et al. (2004), eq. 13: window of 11 pixels, sigma 1.5, K1 0.01, K2 0.03, borders cut by 5."""
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps /= taps.sum()

    def blur(values: Array) -> Array:
        blurred: Array = correlate1d(correlate1d(values, taps, axis=0), taps, axis=1)
        return blurred[5:-5, 5:-5]

    x, y = as_array(reference), as_array(other)
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float((((2 * mx * my + c1) * (2 * vxy + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def test_ssim_is_the_formula_of_wang_with_a_gaussian_window() -> None:
    reference = images()
    other = noisy(reference, 30.0)
    expected = [formula_ssim(a, b) for a, b in zip(reference, other, strict=True)]
    assert ssim(reference, other) == pytest.approx(expected, abs=1e-9)
    assert all(0.5 < value < 0.99 for value in expected)


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    with pytest.raises(ImageError, match="11 pixels a side"):
        ssim(images(side=10), images(side=10))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_sizes_that_differ_are_named_and_never_resized(measure: Measure) -> None:
    with pytest.raises(ImageError, match=r"\(2, 3, 24, 24\) and the others \(2, 3, 32, 32\)"):
        measure(images(side=24), images(side=32))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_a_missing_image_is_an_error_and_never_dropped(measure: Measure) -> None:
    with pytest.raises(ImageError, match=r"\(3, 3, 24, 24\) and the others \(2, 3, 24, 24\)"):
        measure(images(count=3), images(count=2))


def test_float_images_are_refused_by_the_metrics() -> None:
    with pytest.raises(ImageError, match=r"torch\.float32.*to_uint8"):
        psnr(images(), images().float())
