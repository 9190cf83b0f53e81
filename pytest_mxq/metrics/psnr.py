"""Peak signal-to-noise ratio (PSNR), by scikit-image."""

import math

import torch
from torch import Tensor

from pytest_mxq.metrics.images import measure_pairs


def psnr(reference: Tensor, other: Tensor) -> list[float]:
    """Measure the peak signal-to-noise ratio of each pair in dB, ``10 log10(255^2 / MSE)``.

    Equal images have an MSE of 0 and a true PSNR of infinity: ``math.inf`` is returned, not a made-up large number.
    A mean over a batch with an equal pair is therefore infinite too.

    Args:
        reference: Images, uint8 (N, 3, H, W).
        other: Images of the same shape, uint8.

    Returns:
        One value per image, in dB.

    Raises:
        ImageError: The shapes or types do not agree.
    """
    return measure_pairs(_ratio, reference, other)


def _ratio(one: Tensor, another: Tensor) -> float:
    from skimage.metrics import peak_signal_noise_ratio  # speed-only machines have no scikit-image

    if torch.equal(one, another):  # scikit-image divides by zero here and warns
        return math.inf
    return float(peak_signal_noise_ratio(one.numpy(), another.numpy(), data_range=255))
