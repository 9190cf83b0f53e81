"""What a workload changes for all pipelines of the process is found and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_denoiser import Block, Denoiser
from torch import nn
from torch.nn import functional

from pytest_mxq.pipelines.shared_state import SharedState


class Scheduler:
    def step(self) -> int:
        return 1


class OwnScheduler(Scheduler):
    pass


PATCHES = [
    (Scheduler, "step", "class Scheduler: step replaced"),
    (OwnScheduler, "step", "class OwnScheduler: step set"),
    (Block, "forward", "class Block: forward replaced"),
    (functional, "linear", "functional.linear replaced"),
    (torch, "matmul", "torch.matmul replaced"),
    (torch.Tensor, "matmul", "Tensor.matmul replaced"),
]
SETTINGS: dict[str, Callable[[], None]] = {
    "default dtype": lambda: torch.set_default_dtype(torch.bfloat16),
    "grad mode": lambda: torch._C._set_grad_enabled(not torch.is_grad_enabled()),
    "deterministic": lambda: torch.use_deterministic_algorithms(mode=True),
}


def hold() -> SharedState:
    return SharedState.of([OwnScheduler(), *Denoiser().modules()])


@pytest.mark.parametrize(("owner", "name", "said"), PATCHES)
def test_a_patch_that_reaches_all_pipelines_is_said_and_put_back(owner: Any, name: str, said: str) -> None:
    state, before = hold(), getattr(owner, name)
    setattr(owner, name, lambda *_args: None)
    changed = list(state.put_back())
    assert len(changed) == 1
    assert said in changed[0]
    assert getattr(owner, name) is before


@pytest.mark.parametrize(("said", "change"), SETTINGS.items(), ids=SETTINGS)
def test_a_setting_of_torch_is_said_and_put_back(said: str, change: Callable[[], None]) -> None:
    state = hold()
    change()
    changed = list(state.put_back())
    assert len(changed) == 1
    assert said in changed[0]
    assert list(state.put_back()) == []


def test_methods_that_dynamo_replaces_are_left_alone() -> None:
    held = [kind for kind, _ in SharedState.of(Denoiser().modules()).classes]
    assert nn.Linear in held
    assert nn.Module not in held
