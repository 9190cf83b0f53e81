"""Degenerate output: each kind is found, and a good image is not."""

import math

import pytest
import torch
from torch import Tensor

from pytest_mxq.metrics.degenerate import DegenerateKind, find_degenerate
from pytest_mxq.metrics.images import ImageError

SIDE = 40


def good(count: int = 3) -> Tensor:
    return torch.rand((count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))


def found(images: Tensor, size: tuple[int, int] | None = (SIDE, SIDE)) -> list[tuple[int, DegenerateKind]]:
    return [(fault.index, fault.kind) for fault in find_degenerate(images, size=size)]


def test_good_images_have_no_fault() -> None:
    assert found(good()) == []
    assert found(good().bfloat16(), size=None) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_is_enough(value: float) -> None:
    images = good()
    images[1, 2, 5, 7] = value
    assert found(images) == [(1, DegenerateKind.NOT_FINITE)]
    assert find_degenerate(images, size=None)[0].detail == "1 of 4800 values are NaN or infinite"


def test_images_of_nothing_but_nan_are_not_finite_rather_than_duplicates() -> None:
    images = torch.full((2, 3, SIDE, SIDE), math.nan)
    assert found(images) == [(0, DegenerateKind.NOT_FINITE), (1, DegenerateKind.NOT_FINITE)]


@pytest.mark.parametrize("colour", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 0.0, 0.2)])
def test_a_flat_colour_is_constant(colour: tuple[float, float, float]) -> None:
    images = good()
    images[2] = torch.tensor(colour)[:, None, None]
    assert found(images) == [(2, DegenerateKind.CONSTANT)]


def test_the_bound_of_constant_is_two_levels_of_deviation() -> None:
    checkers = (torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2 * 2.0 - 1.0  # standard deviation exactly 1
    below, above = (0.5 + checkers.expand(1, 3, SIDE, SIDE) * levels / 255 for levels in (1.9, 2.1))
    assert found(below) == [(0, DegenerateKind.CONSTANT)]
    assert found(above) == []


def one_colour(others: int) -> Tensor:
    """An image of grey with so many bright pixels of other colours; 1600 pixels in all."""
    flat = torch.full((3, SIDE * SIDE), 0.5)
    flat[:, :others] = torch.linspace(0.6, 1.0, 3 * others).reshape(3, others)
    return flat.reshape(1, 3, SIDE, SIDE)


def test_more_than_99_percent_of_one_colour_is_one_colour() -> None:
    assert found(one_colour(15)) == [(0, DegenerateKind.ONE_COLOUR)]
    assert found(one_colour(16)) == []  # exactly 99 %
    assert "99.06% of the pixels are #808080" in find_degenerate(one_colour(15), size=None)[0].detail


def test_the_wrong_size_is_a_fault_of_every_image_and_hides_no_other() -> None:
    images = good(2)
    images[1] = 0.5
    faults = [(0, DegenerateKind.WRONG_SIZE), (1, DegenerateKind.WRONG_SIZE), (1, DegenerateKind.CONSTANT)]
    assert found(images, size=(SIDE, 64)) == faults
    assert find_degenerate(images, size=(SIDE, 64))[0].detail == "40x40 pixels, asked for 64x40 (width x height)"


def test_an_image_equal_to_another_names_the_other() -> None:
    images = good(4)
    images[3] = images[1] + 1e-6  # below what eight bits can show
    assert found(images) == [(3, DegenerateKind.DUPLICATE)]
    assert find_degenerate(images, size=None)[0].detail == "identical to image 1"


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ImageError, match=r"\(0, 3, 8, 8\)"):
        find_degenerate(torch.zeros(0, 3, 8, 8), size=None)
