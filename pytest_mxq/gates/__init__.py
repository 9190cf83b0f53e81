"""Gates: one file each, from a marker's bound to a verdict.

Importing this package imports no gate: an idle run declares their markers, and pays for nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mxq.gates.base import Gate


def built_in_gates() -> tuple[Gate, ...]:
    """Return the gates that come with the package, in their order: one line each, under its marker's name."""
    # isort: off
    from pytest_mxq.gates.lpips import LPIPS as mxq_lpips
    from pytest_mxq.gates.ssim import SSIM as mxq_ssim
    from pytest_mxq.gates.psnr import PSNR as mxq_psnr
    from pytest_mxq.gates.msssim import MSSSIM as mxq_msssim
    from pytest_mxq.gates.lpips_vgg import LPIPS_VGG as mxq_lpips_vgg
    from pytest_mxq.gates.dists import DISTS as mxq_dists
    from pytest_mxq.gates.flicker import FLICKER as mxq_flicker
    from pytest_mxq.gates.audio import AUDIO as mxq_audio
    from pytest_mxq.gates.speedup import SPEEDUP as mxq_speedup
    from pytest_mxq.gates.memory import MEMORY as mxq_memory
    # isort: on

    return tuple(locals().values())


MARKERS = built_in_gates.__code__.co_varnames
"""Markers of the built-in gates, in their order: the names above, known before any gate is imported."""
