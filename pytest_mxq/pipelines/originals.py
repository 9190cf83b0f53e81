"""What a pipeline itself generated, kept where a test's body returned something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from pytest_mxq.metrics.images import to_uint8
from pytest_mxq.pipelines.outputs import Returned


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """What one call of a pipeline generated, in memory of its own: a body may write into the pipeline's.

    Attributes:
        images: uint8 (N, 3, H, W) on the CPU; of videos their frames, one after the other.
        waves: audio, float32 (videos, channels, samples) on the CPU; None without any.
    """

    images: torch.Tensor
    waves: torch.Tensor | None

    @classmethod
    def of(cls, output: object) -> Self | None:
        """Copy the images or frames, and the audio, of a pipeline's output; None: it holds no such tensors."""
        images, waves = _tensors(output)
        if images is not None and images.dim() == 5:
            images = images.flatten(0, 1)
        if images is None or images.dim() != 4 or images.shape[1] != 3 or 0 in images.shape:
            return None
        pixels = to_uint8(images) if images.is_floating_point() else images.detach().cpu().to(torch.uint8, copy=True)
        return cls(images=pixels, waves=None if waves is None else waves.detach().to("cpu", torch.float32, copy=True))

    def is_returned(self, returned: Returned) -> bool:
        """Return whether a body returned these numbers, as 8-bit pixels; audio that it left out changes nothing."""
        audio = returned.video.audio if returned.video is not None else None
        same_audio = audio is None or (self.waves is not None and torch.equal(audio.waves, self.waves))
        return same_audio and torch.equal(to_uint8(returned.images), self.images)


def changed_original(originals: Sequence[Original], returned: Returned) -> Original | None:
    """Return what the last call generated; None if a body returned some call's output, or no output is known."""
    if not originals or any(original.is_returned(returned) for original in originals):
        return None
    return originals[-1]


def _tensors(output: object) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the images or frames of a pipeline's output, and its audio."""
    if isinstance(output, tuple):
        held: list[Any] = [*output, None, None][:2]
    else:
        held = [getattr(output, "frames", getattr(output, "images", output)), getattr(output, "audio", None)]
    images, waves = (value if isinstance(value, torch.Tensor) else None for value in held)
    return images, waves
