"""The LPIPS map of two images: where they differ, as an image that can be laid over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pytest_mxq.metrics.images import to_image
from pytest_mxq.metrics.lpips import ALEX, shared_lpips

if TYPE_CHECKING:
    from PIL.Image import Image

# Black, violet, red, orange, pale yellow: lightness grows evenly, so that the map reads in grey too (after "inferno").
_COLOURS = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))


def map_image(reference: Image, other: Image) -> tuple[Image, float] | None:
    """Return the LPIPS map of two images, of their size, and the value of its brightest colour.

    None where LPIPS has no value: two sizes, or a side below 31 pixels.
    """
    if reference.size != other.size or min(reference.size) < ALEX.min_side:
        return None
    values = shared_lpips(ALEX).spatial(_pixels(reference), _pixels(other)).nan_to_num_(nan=0.0, posinf=0.0)
    peak = float(values.max())
    return to_image(coloured(values / peak if peak else values)), peak


def coloured(values: Tensor) -> Tensor:
    """Return values in [0, 1], (H, W), as uint8 pixels (3, H, W): black for 0, pale yellow for 1.

    >>> coloured(torch.tensor([[0.0, 1.0]]))[:, 0].tolist()
    [[0, 252], [0, 255], [4, 164]]
    """
    colours = torch.tensor(_COLOURS, dtype=torch.float32)
    place = values.clamp(0, 1) * (len(colours) - 1)
    below = place.floor().long().clamp_(max=len(colours) - 2)
    share = (place - below).unsqueeze(-1)
    mixed = colours[below] * (1 - share) + colours[below + 1] * share
    return mixed.round().to(torch.uint8).permute(2, 0, 1)


def _pixels(image: Image) -> Tensor:
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).unsqueeze(0)
