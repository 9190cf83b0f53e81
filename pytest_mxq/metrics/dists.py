"""DISTS (Ding, Ma, Wang and Simoncelli 2020): structure and texture of VGG16's features, at full resolution."""

import functools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from pytest_mxq.metrics.images import check_pair
from pytest_mxq.metrics.vgg16_weights import read_dists_weights, read_vgg16_weights

_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_CHANNELS = [3, 64, 128, 256, 512, 512]  # of the image itself and of each stage's end
_STABLE = 1e-6  # the constants c1 and c2 of l and s
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as VGG16 was trained


class Dists:
    """DISTS distances on the CPU in float32. Create one object per session.

    Raises:
        VggWeightsError: The VGG16 or the DISTS weights are not installed, or are others than the published ones.
    """

    def __init__(self) -> None:
        self._layers = read_vgg16_weights()
        weights = read_dists_weights()
        total = weights["alpha"].sum() + weights["beta"].sum()
        parts = (torch.split(weights[name] / total, _CHANNELS, dim=1) for name in ("alpha", "beta"))
        self._alpha, self._beta = parts

    def distances(self, reference: Tensor, other: Tensor) -> list[float]:
        """Measure the DISTS distance of each pair, 0 for equal images up to rounding.

        ``1 - sum_ij (alpha_ij l(x_ij, y_ij) + beta_ij s(x_ij, y_ij))`` over the channels of the image and
        of five stages of VGG16, l of means and s of variances and covariance. The authors' code without ``resize``: the
        paper shrinks images to 256 pixels first, and nothing is resized here.

        Args:
            reference: Images, uint8 (N, 3, H, W).
            other: Images of the same shape, uint8.

        Returns:
            One value per image.

        Raises:
            ImageError: The shapes or types do not agree.
        """
        check_pair(reference, other)
        with torch.no_grad():
            pairs = zip(torch.split(reference, 1), torch.split(other, 1), strict=True)
            return [self._distance(one.float().div(255), another.float().div(255)) for one, another in pairs]

    def _distance(self, one: Tensor, another: Tensor) -> float:
        total = torch.ones(())
        stages = zip(self._features(one), self._features(another), self._alpha, self._beta, strict=True)
        for x, y, alpha, beta in stages:
            total -= (alpha * _structure_of_means(x, y) + beta * _structure(x, y)).sum()
        return float(total)

    def _features(self, image: Tensor) -> Iterator[Tensor]:
        """Yield the image and the end of each stage: only one stage of each image is held at a time."""
        yield image
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        values = (image - mean) / std
        for index, stage in enumerate(_STAGES):
            values = _pool(values) if index else values
            for layer in stage:
                weight, bias = (self._layers[f"features.{layer}.{part}"] for part in ("weight", "bias"))
                values = conv2d(values, weight, bias, padding=1).relu_()
            yield values


def _pool(values: Tensor) -> Tensor:
    """Return the L2 pooling of the paper: the root of the blurred squares, Hann window of 3, every second pixel."""
    window = torch.tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(window, window).expand(values.shape[1], 1, 3, 3)
    squares = conv2d(values.square(), kernel, stride=2, padding=1, groups=values.shape[1])
    return squares.add_(1e-12).sqrt_()


def _structure_of_means(x: Tensor, y: Tensor) -> Tensor:
    """Return l, the similarity of the means, of each channel."""
    a, b = (values.mean((2, 3), keepdim=True) for values in (x, y))
    return (2 * a * b + _STABLE) / (a.square() + b.square() + _STABLE)


def _structure(x: Tensor, y: Tensor) -> Tensor:
    """Return s, the similarity of structure, of each channel."""
    a, b = (values - values.mean((2, 3), keepdim=True) for values in (x, y))
    variances = a.square().mean((2, 3), keepdim=True) + b.square().mean((2, 3), keepdim=True)
    return (2 * (a * b).mean((2, 3), keepdim=True) + _STABLE) / (variances + _STABLE)


@functools.cache
def shared_dists() -> Dists:
    """Return the one `Dists` of this process."""
    return Dists()
