"""LPIPS (Zhang et al. 2018), net alex or vgg, at full resolution, in batches.

The ``lpips`` package gives the architecture and the calibrated heads; the AlexNet weights come with pytest-mxq, VGG16's
with the extra "vgg", so that nothing is downloaded and the numbers belong to known weights.
"""

import functools
import importlib.metadata
import importlib.resources
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import lpips
import safetensors.torch
import torch
from torch import Tensor

from pytest_mxq.metrics.images import ImageError, check_pair
from pytest_mxq.metrics.lpips_weights import WEIGHTS_PATH, WEIGHTS_SHA256, LpipsWeightsError, read_weights
from pytest_mxq.metrics.vgg16_weights import VGG16_SHA256, read_vgg16_weights

__all__ = ["WEIGHTS_PATH", "WEIGHTS_SHA256", "Lpips", "LpipsIdentity", "LpipsWeightsError", "read_lpips_weights"]

# Features of one batch: an image of 1024x1024 at a time by AlexNet, or 64 of 128x128.
_CHUNK_BYTES = 41 * 1024 * 1024

# Features of the last reference: by AlexNet the 24 images of 1024x1024 behind a published claim, 1 GB.
_KEPT_BYTES = 24 * _CHUNK_BYTES

Features: TypeAlias = list[Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class LpipsIdentity:
    """The net, version and weights that a distance depends on; stored with every baseline."""

    net: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LpipsNet:
    """A network whose features LPIPS compares.

    Attributes:
        name: Its name in the ``lpips`` package.
        min_side: Smallest side in pixels that still leaves its last pooling a window.
        pixel_bytes: Bytes of features for each pixel of an image.
        weights_sha256: Digest of its weights.
        read: Returns its weights, named ``features.<layer>.<weight|bias>`` as torchvision does.
    """

    name: str
    min_side: int
    pixel_bytes: int
    weights_sha256: str
    read: Callable[[], dict[str, Tensor]]


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


ALEX = LpipsNet(
    name="alex",
    min_side=31,
    pixel_bytes=41,
    weights_sha256=WEIGHTS_SHA256,
    read=lambda: read_lpips_weights(WEIGHTS_PATH),
)

VGG = LpipsNet(name="vgg", min_side=16, pixel_bytes=488, weights_sha256=VGG16_SHA256, read=read_vgg16_weights)


def _architecture(net: str) -> Any:
    """Build LPIPS without values, on the meta device.

    Built on the CPU it would fill all 61 M parameters of AlexNet with random numbers only to drop them: 0.3 s, 230 MB,
    and the global random state would have moved between two tests.
    """
    with warnings.catch_warnings():
        # lpips 0.1.4 still passes `pretrained=` to torchvision, which deprecates it in two messages.
        warnings.filterwarnings("ignore", message="The parameter 'pretrained' is deprecated", category=UserWarning)
        warnings.filterwarnings("ignore", message="Arguments other than a weight enum", category=UserWarning)
        with torch.device("meta"):
            return lpips.LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False)


def _network(net: LpipsNet) -> Any:
    network, weights = _architecture(net.name), net.read()
    # torchvision numbers the layers in one row ("features.3.bias"), lpips cuts the row into slices ("slice2.3.bias").
    places = {name: f"features.{name.partition('.')[2]}" for name in network.net.state_dict()}
    network.net.load_state_dict({name: weights[place] for name, place in places.items()}, assign=True)
    with importlib.resources.as_file(importlib.resources.files("lpips") / f"weights/v0.1/{net.name}.pth") as path:
        heads = torch.load(path, map_location="cpu", weights_only=True)
    network.lins.load_state_dict({name.removeprefix("lin"): heads[name] for name in heads}, assign=True)
    return network.to(memory_format=torch.channels_last)


class Lpips:
    """LPIPS distances on the CPU in float32.

    One reference batch is cached with its features, so that the second format compared with it pays for its own
    images alone. Create one object per session.

    Raises:
        LpipsWeightsError: The packaged AlexNet weights are missing or altered.
        VggWeightsError: The VGG16 weights are not installed, or are others than the published ones.
    """

    def __init__(self, net: LpipsNet = ALEX) -> None:
        self._net = net
        self._network = _network(net)
        self._kept: _Kept | None = None

    def describe(self) -> LpipsIdentity:
        """Return the net, the version of the ``lpips`` package and the SHA-256 of the weights in use."""
        version = importlib.metadata.version("lpips")
        return LpipsIdentity(net=self._net.name, version=version, weights_sha256=self._net.weights_sha256)

    def distances(self, reference: Tensor, other: Tensor) -> list[float]:
        """Measure the LPIPS distance of each pair, 0.0 for equal images.

        Args:
            reference: Images, uint8 (N, 3, H, W), sides of at least the net's ``min_side``.
            other: Images of the same shape, uint8.

        Returns:
            One value per image.

        Raises:
            ImageError: The shapes or types do not agree, or a side is too short.
        """
        check_pair(reference, other)
        height, width = reference.shape[-2:]
        if min(height, width) < self._net.min_side:
            raise ImageError(
                f"images are {width}x{height}; LPIPS needs {self._net.min_side} pixels a side. Generate larger ones."
            )
        chunk = max(1, _CHUNK_BYTES // (self._net.pixel_bytes * height * width))
        with torch.no_grad():
            pairs = zip(self._reference_features(reference, chunk), torch.split(other, chunk), strict=True)
            return [value for one, images in pairs for value in self._compare(one, self._features(images))]

    def spatial(self, reference: Tensor, other: Tensor) -> Tensor:
        """Measure where one pair of images differs, as ``spatial=True`` of the ``lpips`` package does.

        Each layer's distances are enlarged to the image's size (bilinear) and added up: a value says how much the
        surroundings of that pixel differ. The mean is close to the LPIPS distance, and not equal to it.

        Args:
            reference: One image, uint8 (1, 3, H, W), sides of at least the net's ``min_side``.
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
        if reference[:, 0].numel() * self._net.pixel_bytes > _KEPT_BYTES:
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
def shared_lpips(net: LpipsNet) -> Lpips:
    """Return the one `Lpips` of this process and net: its network and the last reference's features are kept."""
    return Lpips(net)
