"""The packaged AlexNet trunk of LPIPS: where it lies, and the one file that it may be."""

import hashlib
from pathlib import Path

from pytest_mxq.errors import MxqError

TRUNK_PATH = Path(__file__).parent.parent / "assets" / "lpips" / "alexnet_features.safetensors"
"""The ten convolution tensors of torchvision's ImageNet AlexNet, float32."""

TRUNK_SHA256 = "9f97fd313f4da83dbe6bbfbe6effca1241de9edfcd7c53386261ed9697286dd9"
"""Digest of the file that reproduces the distances published with LPIPS."""


class TrunkError(MxqError):
    """The packaged AlexNet trunk is missing or is not the file that LPIPS' published numbers were checked with."""


def checked_trunk(path: Path) -> bytes:
    """The trunk's file, in safetensors format.

    Raises:
        TrunkError: the file is missing, cannot be read, or its SHA-256 is not ``TRUNK_SHA256``.
    """
    if not path.is_file():
        raise TrunkError(f"the LPIPS trunk {path} is missing; reinstall pytest-mxq.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrunkError(f"the LPIPS trunk {path} cannot be read ({error.strerror}); reinstall pytest-mxq.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != TRUNK_SHA256:
        raise TrunkError(
            f"the LPIPS trunk {path} has SHA-256 {found}, expected {TRUNK_SHA256}: "
            "its distances would not be comparable with any other. Reinstall pytest-mxq."
        )
    return content
