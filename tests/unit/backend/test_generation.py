"""What the backend asks of a GPU before a model is loaded, and what it gives to gates."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
import torch

from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.backend.output_set import GeneratedOutputs
from pytest_mxq.backend.scoring import TorchScorer
from pytest_mxq.environment.device import Device
from pytest_mxq.errors import MxqError
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines.outputs import Audio, VideoInfo
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.settings import CaseSettings

if TYPE_CHECKING:
    from pytest_mxq.baselines.manifest import Identity
    from pytest_mxq.gates.base import AccuracyGate

CASE = Case(recipe=DEMO, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])


def test_what_this_process_holds_is_free_for_its_next_model(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TorchBackend("cpu", lambda _label, _done, _total: None)
    assert backend.free_gib(CASE) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 48 * 2**30)
    monkeypatch.setattr(backend, "device", "cuda")
    assert backend.free_gib(CASE) == 78.0
    backend.arms.base(CASE.source)  # on the CPU, where these arms are
    assert backend.free_gib(CASE) is None
    other = replace(CASE, settings=replace(CASE.settings, revision="another"))
    assert backend.free_gib(other) == 78.0


@pytest.mark.parametrize(
    ("order", "mig", "refused"),
    [
        ("pci assumed: the GPUs differ", "off", True),
        ("pci assumed: the GPUs differ", "on", False),
        ("pci", "off", False),
    ],
)
def test_another_gpu_than_the_one_that_is_watched_is_refused(
    monkeypatch: pytest.MonkeyPatch, order: str, mig: str, refused: bool
) -> None:
    device = Device(
        kind="cuda",
        name="NVIDIA L4",
        capability=(8, 9),
        slug="nvidia-l4-sm89",
        total_memory_gib=24.0,
        facts={"order": order, "mig": mig},
    )
    backend = TorchBackend("cpu", lambda _label, _done, _total: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "NVIDIA L4")
    backend.check_device(device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "NVIDIA B200")
    if not refused:
        backend.check_device(device)
        return
    with pytest.raises(MxqError, match=r"torch's first GPU is 'NVIDIA B200'.*CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        backend.check_device(device)


class _WritingGate:
    """Writes over the outputs that it is given."""

    def score(self, reference: GeneratedOutputs, other: GeneratedOutputs) -> list[float]:
        other.images.copy_(reference.images)
        assert other.audio is not None
        other.audio.waves.zero_()
        return [0.0]

    def preview(self, outputs: GeneratedOutputs, _index: int, _frame: int | None) -> None:
        outputs.images.zero_()


def test_what_a_gate_writes_into_outputs_does_not_reach_the_next_gate() -> None:
    scorer = TorchScorer()
    waves = torch.ones(1, 1, 4)
    sets = [
        GeneratedOutputs(
            images=torch.full((2, 3, 4, 4), value, dtype=torch.uint8),
            video=VideoInfo(frames=2, rate=24.0, audio=Audio(waves=waves, rate=16000)),
            positions=(0,),
            faults=(),
            identity=cast("Identity", None),
        )
        for value in (1, 2)
    ]
    gate = cast("AccuracyGate", _WritingGate())
    scorer.score(gate, *sets)
    scorer.preview(gate, sets[1], 0, None)
    assert [int(part.images.min()) for part in sets] == [1, 2]
    assert waves.all()
