"""Gates: one file each, from a marker's bound to a verdict.

Importing this package imports no gate: an idle run declares their markers, and pays for nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mxq.gates.base import Gate

MARKERS = (
    "mxq_lpips",
    "mxq_ssim",
    "mxq_psnr",
    "mxq_msssim",
    "mxq_lpips_vgg",
    "mxq_dists",
    "mxq_flicker",
    "mxq_audio",
    "mxq_speedup",
    "mxq_memory",
)
"""Markers of the built-in gates, in their order; a test holds them against `built_in_gates`."""


def built_in_gates() -> tuple[Gate, ...]:
    """Return the gates that come with the package."""
    from pytest_mxq.gates.audio import AUDIO
    from pytest_mxq.gates.dists import DISTS
    from pytest_mxq.gates.flicker import FLICKER
    from pytest_mxq.gates.lpips import LPIPS
    from pytest_mxq.gates.lpips_vgg import LPIPS_VGG
    from pytest_mxq.gates.memory import MEMORY
    from pytest_mxq.gates.msssim import MSSSIM
    from pytest_mxq.gates.psnr import PSNR
    from pytest_mxq.gates.speedup import SPEEDUP
    from pytest_mxq.gates.ssim import SSIM

    return (LPIPS, SSIM, PSNR, MSSSIM, LPIPS_VGG, DISTS, FLICKER, AUDIO, SPEEDUP, MEMORY)
