"""Images as 8-bit pixels, and the two measures that look at pixels alone: SSIM and PSNR.

Everywhere in the probes a set of images is a ``torch.uint8`` tensor of shape (N, 3, H, W) on the CPU; what a
pipeline returns is a float tensor (N, 3, H, W) in [0, 1]. Nothing is ever resized: two sizes are two different cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pytest_mxq.errors import MxqError

if TYPE_CHECKING:
    from PIL.Image import Image

SSIM_MIN_SIDE = 11
"""Smallest side in pixels that SSIM's window (sigma 1.5, cut at 3.5 sigma) fits in."""


class ImageError(MxqError):
    """Images that cannot be measured: wrong kind of tensor, none at all, or two sets that do not belong together."""


def check_set(images: Tensor) -> None:
    """Refuse what is not a non-empty set of colour images.

    Raises:
        ImageError: the shape is not (N, 3, H, W) with N, H and W at least 1.
    """
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise ImageError(
            f"images have shape {shape}; a set of images is (N, 3, H, W) with nothing empty. "
            "Return the pipeline's own images from the test."
        )


def check_pair(reference: Tensor, other: Tensor) -> None:
    """Refuse two sets that cannot be compared image by image.

    Args:
        reference: uint8 images (N, 3, H, W).
        other: uint8 images of the same shape.

    Raises:
        ImageError: the shapes differ or a set is not uint8; both shapes and types are named.
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
    """The 8-bit images that diffusers would save as PNG.

    diffusers (``VaeImageProcessor.numpy_to_pil``) takes float32, multiplies by 255 and rounds half to even; so does
    this, to the bit, for values in [0, 1]. Values outside are clamped, where a bare cast would wrap them around, and
    NaN becomes black: ``find_degenerate`` looks at the float images and says so.

    Args:
        images: float images (N, 3, H, W) in [0, 1], any float type, any device.

    Returns:
        uint8 images (N, 3, H, W) on the CPU.

    Raises:
        ImageError: not a float tensor, or not a set of images.
    """
    check_set(images)
    if not images.is_floating_point():
        raise ImageError(f"images are {images.dtype}; expected floats in [0, 1], as output_type='pt' gives them.")
    pixels = torch.empty(images.shape, dtype=torch.uint8)
    for target, image in zip(pixels, images.detach(), strict=True):  # one at a time as floats: videos have hundreds
        scaled = image.cpu().float().mul(255)
        target.copy_(scaled.round_().nan_to_num_(nan=0.0, posinf=255.0, neginf=0.0).clamp_(0, 255))
    return pixels


def _per_image(measure: Callable[[Tensor, Tensor], float], reference: Tensor, other: Tensor) -> list[float]:
    check_pair(reference, other)
    channels_last = (images.permute(0, 2, 3, 1) for images in (reference, other))
    return [measure(one, another) for one, another in zip(*channels_last, strict=True)]


def ssim(reference: Tensor, other: Tensor) -> list[float]:
    """Structural similarity of each pair, 1.0 for equal images.

    scikit-image with the parameters of Wang et al. (2004): Gaussian window of sigma 1.5, population covariance,
    ``data_range`` 255, mean over the colour channels.

    Args:
        reference: uint8 images (N, 3, H, W).
        other: uint8 images of the same shape.

    Returns:
        One value an image.

    Raises:
        ImageError: the sets do not agree, or a side is shorter than the window (11 pixels).
    """
    from skimage.metrics import structural_similarity  # speed-only machines have no scikit-image

    if min(reference.shape[-2:]) < SSIM_MIN_SIDE:
        raise ImageError(
            f"images have shape {tuple(reference.shape)}; SSIM needs {SSIM_MIN_SIDE} pixels a side. "
            "Generate larger images or gate on PSNR."
        )

    def measure(one: Tensor, another: Tensor) -> float:
        value = structural_similarity(
            one.numpy(),
            another.numpy(),
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        return float(value)

    return _per_image(measure, reference, other)


def psnr(reference: Tensor, other: Tensor) -> list[float]:
    """Peak signal-to-noise ratio of each pair in dB, ``10 log10(255^2 / MSE)`` by scikit-image.

    Equal images have an MSE of 0 and a true PSNR of infinity: ``math.inf`` is returned, not a made-up large number.
    A mean over a set with an equal pair is therefore infinite too.

    Args:
        reference: uint8 images (N, 3, H, W).
        other: uint8 images of the same shape.

    Returns:
        One value an image, in dB.

    Raises:
        ImageError: the sets do not agree.
    """
    from skimage.metrics import peak_signal_noise_ratio  # speed-only machines have no scikit-image

    def measure(one: Tensor, another: Tensor) -> float:
        if torch.equal(one, another):  # scikit-image divides by zero here and warns
            return math.inf
        return float(peak_signal_noise_ratio(one.numpy(), another.numpy(), data_range=255))

    return _per_image(measure, reference, other)


def to_image(pixels: Tensor) -> Image:
    """Return uint8 pixels (3, H, W) as PIL image."""
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
