"""Calls of modules: layers of denoisers by name, and modules that belong to no component."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from small_denoiser import LAYERS, Denoiser, sample
from torch import nn
from torch.nn.modules import module as torch_module

from pytest_mxq.pipelines.module_calls import ModuleCalls


def pipeline(**more: nn.Module) -> Any:
    parts: dict[str, Any] = {"transformer": Denoiser(), "scheduler": object(), "image_encoder": None, **more}
    return SimpleNamespace(components=parts, **parts)


def count(pipe: Any, run: Callable[[Any], object], denoisers: tuple[str, ...] = ("transformer",)) -> ModuleCalls:
    calls = ModuleCalls(pipe, denoisers)
    calls.start()
    try:
        run(pipe)
    finally:
        calls.stop()
    return calls


def call(pipe: Any) -> None:
    pipe.transformer(sample())


def test_each_layer_of_the_denoiser_is_counted_by_its_name() -> None:
    def skip(pipe: Any) -> None:
        call(pipe)
        pipe.transformer.blocks[0].forward = lambda x: x
        call(pipe)

    assert count(pipeline(), skip).layer_calls == tuple(zip(LAYERS, (1, 1, 2, 2), strict=True))


def test_layers_of_two_denoisers_are_told_apart() -> None:
    pipe = pipeline(transformer_2=Denoiser())
    calls = count(pipe, lambda it: it.transformer_2(sample()), ("transformer", "transformer_2"))
    assert calls.layer_calls == tuple((f"transformer_2.{name}", 1) for name in LAYERS)


def test_modules_of_other_components_and_of_adapters_that_are_loaded_meanwhile_are_no_others() -> None:
    pipe = pipeline(vae=nn.Linear(4, 4), guider=nn.Identity())

    def run(pipe: Any) -> None:
        pipe.transformer.adapter = nn.Linear(4, 4)
        pipe.transformer.adapter(torch.zeros(4))
        pipe.vae(torch.zeros(4))
        pipe.guider(torch.zeros(4))

    assert count(pipe, run).other_calls == 0


def test_a_denoiser_that_is_no_component_is_counted_wherever_it_is_called() -> None:
    other = Denoiser()

    def run(pipe: Any) -> None:
        pipe.transformer.register_forward_hook(lambda _module, args, _result: other(*args))
        call(pipe)

    calls = count(pipeline(), run)
    assert calls.other_calls == 1 + 2 + len(LAYERS)
    assert calls.layer_calls == tuple((name, 1) for name in LAYERS)


def test_compiled_modules_are_counted_outside_of_their_code() -> None:
    pipe = pipeline()
    compiled: Any = pipe.transformer.blocks[0]
    compiled._compiled_call_impl = torch.neg  # as Module.compile() leaves it
    before = compiled._compiled_call_impl
    calls = ModuleCalls(pipe, ("transformer",))
    calls.start()
    assert not torch_module._global_forward_pre_hooks
    call(pipe)
    calls.stop()
    assert (calls.layer_calls, calls.other_calls) == ((("blocks.0", 1),), 0)
    assert compiled._compiled_call_impl is before


def test_no_hook_is_left_behind() -> None:
    count(pipeline(), call)
    assert not torch_module._global_forward_pre_hooks
