"""Batches of images as 8-bit pixels, and what every metric checks of them.

Every metric takes a batch of images as a ``torch.uint8`` tensor of shape (N, 3, H, W) on the CPU; what a pipeline
returns is a float tensor (N, 3, H, W) in [0, 1]. Nothing is ever resized: two sizes are two different cases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pytest_mxq.errors import MxqError

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageError(MxqError):
    """Images that cannot be measured: wrong shape or type, an empty batch, or two batches that do not match."""


def check_set(images: Tensor) -> None:
    """Raise unless ``images`` is a non-empty batch of RGB images.

    Raises:
        ImageError: The shape is not (N, 3, H, W) with N, H and W at least 1.
    """
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise ImageError(
            f"images have shape {shape}; a batch of images is (N, 3, H, W), every size at least 1. "
            "Return the pipeline's own images from the test."
        )


def check_pair(reference: Tensor, other: Tensor) -> None:
    """Raise unless two batches can be compared image by image.

    Args:
        reference: Images, uint8 (N, 3, H, W).
        other: Images of the same shape, uint8.

    Raises:
        ImageError: The shapes differ or a batch is not uint8; both shapes and types are named.
    """
    check_set(reference)
    if reference.shape != other.shape:
        raise ImageError(
            f"the reference images have shape {tuple(reference.shape)} and the others {tuple(other.shape)}; "
            "they must agree, nothing is resized. Refresh the baseline if the case has changed on purpose."
        )
    if (reference.dtype, other.dtype) != (torch.uint8, torch.uint8):
        raise ImageError(
            f"the reference images are {reference.dtype} and the others {other.dtype}; "
            "both must be torch.uint8. Convert what a pipeline returns with to_uint8()."
        )


def to_uint8(images: Tensor) -> Tensor:
    """Return the 8-bit images that diffusers would save as PNG.

    diffusers (``VaeImageProcessor.numpy_to_pil``) takes float32, multiplies by 255 and rounds half to even; for
    values in [0, 1] this is bit-identical. Values outside are clamped, where a bare cast would wrap them around, and
    NaN becomes black: ``find_degenerate`` looks at the float images and says so.

    Args:
        images: Float images (N, 3, H, W) in [0, 1], any float type, any device.

    Returns:
        uint8 images (N, 3, H, W) on the CPU.

    Raises:
        ImageError: Not a float tensor, or not a batch of images.
    """
    check_set(images)
    if not images.is_floating_point():
        raise ImageError(f"images are {images.dtype}; expected floats in [0, 1], as output_type='pt' gives them.")
    pixels = torch.empty(images.shape, dtype=torch.uint8)
    for target, image in zip(pixels, images.detach(), strict=True):  # one at a time as floats: videos have hundreds
        scaled = image.cpu().float().mul(255)
        target.copy_(scaled.round_().nan_to_num_(nan=0.0, posinf=255.0, neginf=0.0).clamp_(0, 255))
    return pixels


def measure_pairs(measure: Callable[[Tensor, Tensor], float], reference: Tensor, other: Tensor) -> list[float]:
    """Return ``measure`` of each pair of images, given to it as (H, W, 3).

    Args:
        measure: Takes the reference image and the other.
        reference: Images, uint8 (N, 3, H, W).
        other: Images of the same shape, uint8.

    Raises:
        ImageError: The shapes or types do not agree.
    """
    check_pair(reference, other)
    channels_last = (images.permute(0, 2, 3, 1) for images in (reference, other))
    return [measure(one, another) for one, another in zip(*channels_last, strict=True)]


def to_image(pixels: Tensor) -> Image:
    """Return uint8 pixels (3, H, W) as PIL image."""
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
