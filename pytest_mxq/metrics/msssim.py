"""Multi-scale structural similarity (MS-SSIM; Wang, Simoncelli and Bovik 2003), by pytorch-msssim."""

from torch import Tensor

from pytest_mxq.metrics.images import ImageError, measure_pairs

MIN_SIDE = 161
"""Smallest side in pixels that the window of 11 still fits in at the fifth scale, a sixteenth of the size."""


def msssim(reference: Tensor, other: Tensor) -> list[float]:
    """Measure the multi-scale structural similarity of each pair, 1.0 for equal images.

    ``l_5^0.1333 (cs_1)^0.0448 ... (cs_5)^0.1333``: five scales with the published exponents, each half the size of the
    one before it; window and constants are those of SSIM, in double precision, mean over the colour channels. A
    negative factor counts as 0. An odd side is padded with zeros before it is halved.

    Args:
        reference: Images, uint8 (N, 3, H, W), sides of at least 161 pixels.
        other: Images of the same shape, uint8.

    Returns:
        One value per image.

    Raises:
        ImageError: The shapes or types do not agree, or a side is too short for five scales.
    """
    if min(reference.shape[-2:]) < MIN_SIDE:
        raise ImageError(
            f"images have shape {tuple(reference.shape)}; the five scales of MS-SSIM need {MIN_SIDE} pixels a side. "
            "Generate larger images or gate on SSIM."
        )
    return measure_pairs(_similarity, reference, other)


def _similarity(one: Tensor, another: Tensor) -> float:
    from pytorch_msssim import ms_ssim  # speed-only machines may do without

    pair = (image.permute(2, 0, 1).unsqueeze(0).double() for image in (one, another))
    return float(ms_ssim(*pair, data_range=255))
