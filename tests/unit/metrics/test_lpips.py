"""LPIPS: the numbers of the lpips package called pair by pair, from the packaged weights alone."""

import importlib.metadata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import lpips as lpips_package
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pytest_mxq.metrics import lpips as lpips_metric
from pytest_mxq.metrics.images import ImageError
from pytest_mxq.metrics.lpips import WEIGHTS_PATH, WEIGHTS_SHA256, Lpips, LpipsWeightsError, read_lpips_weights

PairByPair: TypeAlias = Callable[[Tensor, Tensor], list[float]]


def images(count: int = 5, height: int = 64, width: int = 48, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 6, 6), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return smooth.mul(255).round().to(torch.uint8)


@pytest.fixture(scope="module")
def metric() -> Lpips:
    return Lpips()


@pytest.fixture(scope="module")
def pair_by_pair() -> PairByPair:
    """The lpips package as its own documentation uses it, one pair a call, built in the ordinary way."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", UserWarning)
        network = lpips_package.LPIPS(net="alex", pnet_rand=True, verbose=False)
    parameters = dict(network.net.named_parameters())
    with torch.no_grad():
        for name, tensor in load_file(WEIGHTS_PATH).items():
            layer = name.removeprefix("features.")
            next(parameters[key] for key in parameters if key.split(".", 1)[1] == layer).copy_(tensor)

    def distances(reference: Tensor, other: Tensor) -> list[float]:
        with torch.no_grad():
            return [
                float(network(one[None] / 127.5 - 1, another[None] / 127.5 - 1))
                for one, another in zip(reference, other, strict=True)
            ]

    return distances


def test_a_batch_gives_the_numbers_of_the_package_pair_by_pair(metric: Lpips, pair_by_pair: PairByPair) -> None:
    reference, other = images(), images(seed=1)
    expected = pair_by_pair(reference, other)
    assert metric.distances(reference, other) == pytest.approx(expected, abs=1e-5)
    assert min(expected) > 0.01
    assert max(expected) - min(expected) > 0.01


def test_chunks_give_the_same_numbers_in_the_same_order(
    metric: Lpips, pair_by_pair: PairByPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lpips_metric, "_CHUNK_BYTES", 41 * 2 * 64 * 48)
    reference, other = images(seed=2), images(seed=3)
    assert metric.distances(reference, other) == pytest.approx(pair_by_pair(reference, other), abs=1e-5)


def test_equal_images_are_at_distance_zero(metric: Lpips) -> None:
    assert metric.distances(images(), images().clone()) == [0.0] * 5


def test_the_distance_is_symmetric(metric: Lpips) -> None:
    one, another = images(), images(seed=1)
    assert metric.distances(one, another) == pytest.approx(metric.distances(another, one), abs=1e-6)


def count_forward_passes(metric: Lpips, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the number of images whenever the network runs."""
    passes: list[int] = []
    features = metric._features

    def counted(images: Tensor) -> list[Tensor]:
        passes.append(len(images))
        return features(images)

    monkeypatch.setattr(metric, "_features", counted)
    return passes


def test_a_second_format_does_not_pay_for_the_reference_again(metric: Lpips, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_forward_passes(metric, monkeypatch)
    reference = images(seed=10)
    first = metric.distances(reference, images(seed=11))
    assert sum(passes) == 10
    second = metric.distances(reference.clone(), images(seed=12))
    assert sum(passes) == 15
    assert first != second


def test_images_generated_into_the_same_memory_are_another_reference(metric: Lpips, pair_by_pair: PairByPair) -> None:
    reference, other = images(seed=20), images(seed=21)
    metric.distances(reference, other)
    reference.copy_(images(seed=22))
    assert metric.distances(reference, other) == pytest.approx(pair_by_pair(reference, other), abs=1e-5)


def test_only_the_last_reference_is_kept(metric: Lpips, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = count_forward_passes(metric, monkeypatch)
    for seed in (30, 31, 30):
        metric.distances(images(seed=seed), images(seed=1))
    assert sum(passes) == 30


def test_a_reference_too_large_to_keep_is_computed_again(
    metric: Lpips, pair_by_pair: PairByPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lpips_metric, "_KEPT_BYTES", 41 * 5 * 64 * 48 - 1)
    passes = count_forward_passes(metric, monkeypatch)
    reference, other = images(seed=40), images(seed=41)
    expected = pytest.approx(pair_by_pair(reference, other), abs=1e-5)
    assert [metric.distances(reference, other) for _ in range(2)] == [expected, expected]
    assert sum(passes) == 20


def test_building_the_metric_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    Lpips()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_identity_names_the_net_the_package_and_the_weights(metric: Lpips) -> None:
    identity = metric.describe()
    assert (identity.net, identity.version) == ("alex", importlib.metadata.version("lpips"))
    assert identity.weights_sha256 == WEIGHTS_SHA256


def test_altered_weights_are_refused_with_both_digests(tmp_path: Path) -> None:
    content = bytearray(WEIGHTS_PATH.read_bytes())
    content[-1] ^= 1
    altered = tmp_path / "alexnet_features.safetensors"
    altered.write_bytes(content)
    with pytest.raises(LpipsWeightsError, match=f"SHA-256 [0-9a-f]{{64}}, expected {WEIGHTS_SHA256}"):
        read_lpips_weights(altered)


def test_missing_weights_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LpipsWeightsError, match=r"gone\.safetensors are missing"):
        read_lpips_weights(tmp_path / "gone.safetensors")


def test_the_metric_reads_its_weights_through_the_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lpips_metric, "WEIGHTS_PATH", tmp_path / "gone.safetensors")
    with pytest.raises(LpipsWeightsError, match="missing"):
        Lpips()


def test_sizes_that_differ_are_named_and_never_resized(metric: Lpips) -> None:
    with pytest.raises(ImageError, match=r"\(5, 3, 64, 48\) and the others \(5, 3, 64, 64\)"):
        metric.distances(images(), images(width=64))


def test_images_too_small_for_alexnet_are_refused_before_torch_does(metric: Lpips) -> None:
    assert len(metric.distances(images(height=31, width=31), images(height=31, width=31, seed=1))) == 5
    with pytest.raises(ImageError, match="31 pixels a side"):
        metric.distances(images(height=30), images(height=30))
