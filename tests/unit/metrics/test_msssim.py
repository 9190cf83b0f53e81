"""MS-SSIM: the numbers of two other implementations."""

import pytest
import torch
from checked_images import reference_and_others

from pytest_mxq.metrics.images import ImageError
from pytest_mxq.metrics.msssim import msssim

# piq 0.8.0, multi_scale_ssim(data_range=1.0) of float64 images; the formulas of the paper in NumPy agree to 2e-8.
PUBLISHED = [0.890571032787177, 0.982291130850018, 0.9621228772264122]


def test_it_gives_the_numbers_of_another_implementation() -> None:
    assert msssim(*reference_and_others()) == pytest.approx(PUBLISHED, abs=1e-5)


def test_equal_images_have_one_and_inverted_ones_no_nan() -> None:
    reference, _ = reference_and_others()
    assert msssim(reference, reference.clone()) == pytest.approx([1.0] * 3, abs=1e-12)
    assert msssim(reference[:1], 255 - reference[:1]) == [0.0]


@pytest.mark.parametrize(("height", "width"), [(160, 192), (192, 160)])
def test_images_too_small_for_five_scales_are_refused_with_their_shape(height: int, width: int) -> None:
    small = torch.zeros((1, 3, height, width), dtype=torch.uint8)
    with pytest.raises(ImageError, match=rf"\(1, 3, {height}, {width}\); .* need 161 pixels a side"):
        msssim(small, small)


def test_the_smallest_images_have_a_value() -> None:
    reference, others = reference_and_others(161, 161)
    assert all(0 < value < 1 for value in msssim(reference, others))
