"""What the backend ask of a GPU before a model is loaded: how much of it is free, and whether it is the one meant."""

from dataclasses import replace

import pytest
import torch

from pytest_mxq.backend.generation import TorchBackend
from pytest_mxq.environment.device import Device
from pytest_mxq.errors import MxqError
from pytest_mxq.models.demo import DEMO
from pytest_mxq.planning.case import Case
from pytest_mxq.planning.settings import CaseSettings

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
