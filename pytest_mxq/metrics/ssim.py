"""Structural similarity (SSIM), by scikit-image."""

from torch import Tensor

from pytest_mxq.metrics.images import ImageError, measure_pairs

MIN_SIDE = 11
"""Smallest side in pixels that the window (sigma 1.5, cut at 3.5 sigma) fits in."""


def ssim(reference: Tensor, other: Tensor) -> list[float]:
    """Measure the structural similarity of each pair, 1.0 for equal images.

    scikit-image with the parameters of Wang et al. (2004): Gaussian window of sigma 1.5, population covariance,
    ``data_range`` 255, mean over the colour channels.

    Args:
        reference: Images, uint8 (N, 3, H, W).
        other: Images of the same shape, uint8.

    Returns:
        One value per image.

    Raises:
        ImageError: The shapes or types do not agree, or a side is shorter than the window (11 pixels).
    """
    if min(reference.shape[-2:]) < MIN_SIDE:
        raise ImageError(
            f"images have shape {tuple(reference.shape)}; SSIM needs {MIN_SIDE} pixels a side. "
            "Generate larger images or gate on PSNR."
        )
    return measure_pairs(_similarity, reference, other)


def _similarity(one: Tensor, another: Tensor) -> float:
    from skimage.metrics import structural_similarity  # speed-only machines have no scikit-image

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
