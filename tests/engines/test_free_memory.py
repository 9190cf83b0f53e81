"""What a device has free for a model: what this process holds of it counts as free, a loaded model asks for nothing."""

from dataclasses import replace

import pytest
import torch

from pytest_mxq.cases import Case
from pytest_mxq.engines import TorchEngines
from pytest_mxq.models.demo import DEMO
from pytest_mxq.settings import CaseSettings

CASE = Case(recipe=DEMO, name="case", settings=CaseSettings(model="demo"), prompts=DEMO.prompts[:1])


def test_what_this_process_holds_is_free_for_its_next_model(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = TorchEngines("cpu", lambda _label, _done, _total: None)
    assert engines.free_gib(CASE) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 48 * 2**30)
    monkeypatch.setattr(engines, "device", "cuda")
    assert engines.free_gib(CASE) == 78.0
    engines.arms.base(CASE.source)  # on the CPU, where these arms are
    assert engines.free_gib(CASE) is None
    other = replace(CASE, settings=replace(CASE.settings, revision="another"))
    assert engines.free_gib(other) == 78.0
