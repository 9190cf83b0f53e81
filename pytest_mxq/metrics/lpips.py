"""LPIPS (Zhang et al. 2018), net alex, at full resolution, in batches.

The ``lpips`` package gives the architecture and the calibrated heads; the AlexNet weights come with pytest-mxq, so that
nothing is downloaded and the numbers belong to one known file.
"""

import functools
import importlib.metadata
import importlib.resources
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import lpips
import safetensors.torch
import torch
from torch import Tensor

from pytest_mxq.metrics.images import ImageError, check_pair
from pytest_mxq.metrics.lpips_weights import WEIGHTS_PATH, WEIGHTS_SHA256, LpipsWeightsError, read_weights

__all__ = ["WEIGHTS_PATH", "WEIGHTS_SHA256", "Lpips", "LpipsIdentity", "LpipsWeightsError", "read_lpips_weights"]

MIN_SIDE = 31
"""Smallest side in pixels that still leaves AlexNet's last pooling a window."""

# torchvision numbers AlexNet's layers in one row, lpips cuts the row into five slices.
_SLICES = {"0": "slice1", "3": "slice2", "6": "slice3", "8": "slice4", "10": "slice5"}

# One image of 1024x1024 at a time (43 MB of features), or 64 of 128x128.
_CHUNK_PIXELS = 1024 * 1024

# A pixel costs 41 bytes of features: the 24 images of 1024x1024 behind a published claim take 1 GB.
_KEPT_PIXELS = 24 * 1024 * 1024

Features: TypeAlias = list[Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LpipsIdentity:
    """The net, version and weights that a distance depends on; stored with every baseline."""

    net: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    images: Tensor
    features: list[Features]


def read_lpips_weights(path: Path) -> dict[str, Tensor]:
    """Read the packaged AlexNet tensors, named ``features.<layer>.<weight|bias>``.

    Raises:
        LpipsWeightsError: The file is missing, or its SHA-256 is not ``WEIGHTS_SHA256``.
    """
    return safetensors.torch.load(read_weights(path))  # type: ignore[no-any-return]  # untyped package


def _architecture() -> Any:
    """Build LPIPS without values, on the meta device.

    Built on the CPU it would fill all 61 M parameters of AlexNet with random numbers only to drop them: 0.3 s, 230 MB,
    and the global random state would have moved between two tests.
    """
    with warnings.catch_warnings():
        # lpips 0.1.4 still passes `pretrained=` to torchvision, which deprecates it in two messages.
        warnings.filterwarnings("ignore", message="The parameter 'pretrained' is deprecated", category=UserWarning)
        warnings.filterwarnings("ignore", message="Arguments other than a weight enum", category=UserWarning)
        with torch.device("meta"):
            return lpips.LPIPS(net="alex", pnet_rand=True, pretrained=False, verbose=False)


def _network() -> Any:
    network = _architecture()
    weights = {name.split(".", 1)[1]: tensor for name, tensor in read_lpips_weights(WEIGHTS_PATH).items()}
    network.net.load_state_dict(
        {f"{_SLICES[name.split('.')[0]]}.{name}": weights[name] for name in weights}, assign=True
    )
    with importlib.resources.as_file(importlib.resources.files("lpips") / "weights/v0.1/alex.pth") as path:
        heads = torch.load(path, map_location="cpu", weights_only=True)
    network.lins.load_state_dict({name.removeprefix("lin"): heads[name] for name in heads}, assign=True)
    return network.to(memory_format=torch.channels_last)


class Lpips:
    """LPIPS distances on the CPU in float32.

    One reference batch is cached with its features, so that the second format compared with it pays for its own
    images alone. Create one object per session.

    Raises:
        LpipsWeightsError: The packaged AlexNet weights are missing or altered.
    """

    def __init__(self) -> None:
        self._network = _network()
        self._kept: _Kept | None = None

    def describe(self) -> LpipsIdentity:
        """Return the net, the version of the ``lpips`` package and the SHA-256 of the weights in use."""
        return LpipsIdentity(net="alex", version=importlib.metadata.version("lpips"), weights_sha256=WEIGHTS_SHA256)

    def distances(self, reference: Tensor, other: Tensor) -> list[float]:
        """Measure the LPIPS distance of each pair, 0.0 for equal images.

        Args:
            reference: Images, uint8 (N, 3, H, W), sides of at least 31 pixels.
            other: Images of the same shape, uint8.

        Returns:
            One value per image.

        Raises:
            ImageError: The shapes or types do not agree, or a side is too short.
        """
        check_pair(reference, other)
        height, width = reference.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise ImageError(
                f"images are {width}x{height}; LPIPS needs {MIN_SIDE} pixels a side. Generate larger ones."
            )
        chunk = max(1, _CHUNK_PIXELS // (height * width))
        with torch.no_grad():
            pairs = zip(self._reference_features(reference, chunk), torch.split(other, chunk), strict=True)
            return [value for one, images in pairs for value in self._compare(one, self._features(images))]

    def spatial(self, reference: Tensor, other: Tensor) -> Tensor:
        """Measure where one pair of images differs, as ``spatial=True`` of the ``lpips`` package does.

        Each layer's distances are enlarged to the image's size (bilinear) and added up: a value says how much the
        surroundings of that pixel differ. The mean is close to the LPIPS distance, and not equal to it.

        Args:
            reference: One image, uint8 (1, 3, H, W), sides of at least 31 pixels.
            other: An image of the same shape, uint8.

        Returns:
            Float32 (H, W), 0 where nothing differs.
        """
        check_pair(reference, other)
        size = list(reference.shape[-2:])
        with torch.no_grad():
            pairs = zip(self._network.lins, self._features(reference), self._features(other), strict=True)
            layers = [head((one - another).square_()) for head, one, another in pairs]
            enlarged = [torch.nn.functional.interpolate(layer, size, mode="bilinear") for layer in layers]
            return torch.stack(enlarged).sum(0)[0, 0]

    def _reference_features(self, reference: Tensor, chunk: int) -> Iterable[Features]:
        if self._kept is not None and torch.equal(self._kept.images, reference):
            return self._kept.features
        self._kept = None  # freed before the next set is computed, never two at a time
        features = (self._features(images) for images in torch.split(reference, chunk))
        if reference[:, 0].numel() > _KEPT_PIXELS:
            return features
        # A clone: the caller may generate the next images into the same memory.
        self._kept = _Kept(images=reference.clone(), features=list(features))
        return self._kept.features

    def _features(self, images: Tensor) -> Features:
        """Return the five feature maps of each image, normalized over the channels.

        Computes the formulas of ``ScalingLayer`` and ``normalize_tensor``, in place, and the first on whole planes.
        """
        scaling = self._network.scaling_layer
        values = images.float().div_(127.5).sub_(1).sub_(scaling.shift).div_(scaling.scale)
        layers = self._network.net(values.to(memory_format=torch.channels_last))
        return [layer.div_(torch.linalg.vector_norm(layer, dim=1, keepdim=True).add_(1e-10)) for layer in layers]

    def _compare(self, reference: Features, other: Features) -> list[float]:
        """Sum the squared differences over layers, weighted by each layer's head and averaged over space (eq. 1)."""
        total = torch.zeros(len(reference[0]))
        for head, one, another in zip(self._network.lins, reference, other, strict=True):
            total += head((one - another).square_()).mean((1, 2, 3))
        return [float(value) for value in total]


@functools.cache
def shared_lpips() -> Lpips:
    """Return the one `Lpips` of this process: its network and the features of the last reference are kept."""
    return Lpips()
