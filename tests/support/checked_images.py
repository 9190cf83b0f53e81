"""Images in integers, the same on every machine, and weights of VGG16's shape: what published code was run on once."""

import torch
from torch import Tensor

CHANNELS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def reference_and_others(height: int = 176, width: int = 192) -> tuple[Tensor, Tensor]:
    """Return three times one image, and it posterized, two pixels to the right, and with noise; uint8 (3, 3, H, W)."""
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    circles = ((x - 60) ** 2 + (y - 50) ** 2) // 64
    image = torch.stack([torch.abs((x * 2 + y) % 510 - 255), (x * y // 32) % 256, circles.clamp(max=255)])
    noise = (x * 7919 + y * 104729) % 31 - 15
    others = torch.stack([image // 32 * 32 + 16, image.roll(2, dims=-1), (image + noise).clamp(0, 255)])
    return image.expand(3, -1, -1, -1).to(torch.uint8), others.to(torch.uint8)


def random_vgg16() -> dict[str, Tensor]:
    """Return weights that keep the size of what goes through them, named as torchvision names them."""
    generator, weights = torch.Generator().manual_seed(0), {}
    for layer, entering, leaving in zip(LAYERS, (3, *CHANNELS), CHANNELS, strict=False):
        uniform = torch.rand((leaving, entering, 3, 3), generator=generator) - 0.5
        weights[f"features.{layer}.weight"] = uniform * (24 / (9 * entering)) ** 0.5
        weights[f"features.{layer}.bias"] = torch.rand((leaving,), generator=generator) * 0.1
    return weights


def random_dists() -> dict[str, Tensor]:
    """Return weights of DISTS' shape."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand((1, 1475, 1, 1), generator=generator) for name in ("alpha", "beta")}
