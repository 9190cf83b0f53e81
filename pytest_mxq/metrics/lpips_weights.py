"""The packaged AlexNet weights of LPIPS: their path, and the SHA-256 that they must have."""

import hashlib
from pathlib import Path

from pytest_mxq.errors import MxqError

WEIGHTS_PATH = Path(__file__).parent.parent / "assets" / "lpips" / "alexnet_features.safetensors"
"""The ten convolution tensors of torchvision's ImageNet AlexNet, float32."""

WEIGHTS_SHA256 = "9f97fd313f4da83dbe6bbfbe6effca1241de9edfcd7c53386261ed9697286dd9"
"""Digest of the file that reproduces the distances published with LPIPS."""


class LpipsWeightsError(MxqError):
    """The packaged AlexNet weights are missing or are not the file that reproduces LPIPS' published numbers."""


def read_weights(path: Path) -> bytes:
    """Read the packaged AlexNet weights, in safetensors format.

    Raises:
        LpipsWeightsError: The file is missing, cannot be read, or its SHA-256 is not ``WEIGHTS_SHA256``.
    """
    if not path.is_file():
        raise LpipsWeightsError(f"the LPIPS weights {path} are missing; reinstall pytest-mxq.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LpipsWeightsError(
            f"the LPIPS weights {path} cannot be read ({error.strerror}); reinstall pytest-mxq."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise LpipsWeightsError(
            f"the LPIPS weights {path} have SHA-256 {found}, expected {WEIGHTS_SHA256}: "
            "their distances would not be comparable with any other. Reinstall pytest-mxq."
        )
    return content
