"""Components are counted by what they are: modules, and what encodes or decodes, under any name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_mxq.pipelines.work import Work, work_differences
from pytest_mxq.pipelines.work_counter import WorkCounter


class Coder(nn.Module):
    """A decoder whose methods are called, not itself."""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z * 2


class Pipeline:
    """A pipeline that calls its denoiser, one component by its method and one itself."""

    def __init__(self, decoder: str, module: str) -> None:
        self.components: dict[str, Any] = {"unet": nn.Linear(4, 4), decoder: Coder(), module: nn.Identity()}
        self.components |= {"tokenizer": object(), "text_encoder": nn.Identity(), "scheduler": None}
        self.unet, self.decoder, self.module = (self.components[name] for name in ("unet", decoder, module))

    def encode_prompt(self) -> torch.Tensor:
        result: torch.Tensor = self.module(self.components["text_encoder"](torch.zeros(1, 4)))
        return result

    def __call__(self, decodes: int = 1, calls: int = 1) -> torch.Tensor:
        x: torch.Tensor = self.unet(self.encode_prompt())
        for _ in range(calls):
            x = self.module(x)
        for _ in range(decodes):
            x = self.decoder.decode(x)
        return x


def work_of(pipe: Pipeline, **call: int) -> Work:
    with WorkCounter(pipe, ("unet",)) as counter:
        pipe(**call)
    return counter.work


@pytest.mark.parametrize("decoder", ["vae", "vqvae", "movq", "decoder", "audio_vae"])
def test_calls_of_a_decoder_are_counted_with_their_shapes_under_any_name(decoder: str) -> None:
    pipe = Pipeline(decoder, "vocoder")
    work = work_of(pipe)
    assert work.decodes == ((decoder, ((1, 4),)),)
    assert work_differences(work, work_of(pipe, decodes=2)) == (f"decodes: {decoder} 1 -> 2",)


@pytest.mark.parametrize("module", ["image_encoder", "vocoder", "connectors"])
def test_calls_of_a_module_are_counted_under_any_name_but_for_those_of_embedding_the_prompt(module: str) -> None:
    pipe = Pipeline("vae", module)
    work = work_of(pipe)
    assert (work.component_calls, work.text_encoder_calls) == (((module, 1),), (("text_encoder", 1),))
    assert work_differences(work, work_of(pipe, calls=0)) == (f"component calls: {module} 1 -> 0",)


def test_what_is_stored_of_two_works_differs_where_a_decoder_ran_twice_and_not_by_text_encoders() -> None:
    pipe = Pipeline("movq", "vocoder")
    work = work_of(pipe)
    assert work.record != work_of(pipe, decodes=2).record
    assert work.record == replace(work, text_encoder_calls=()).record


def test_more_calls_of_modules_beside_the_pipeline_are_other_work_and_fewer_are_not() -> None:
    work = work_of(Pipeline("vae", "vocoder"))
    more = replace(work, other_module_calls=5)
    assert work_differences(work, more) == ("other module calls: 0 -> 5",)
    assert work_differences(more, work) == ()


def test_of_many_layers_the_first_are_named() -> None:
    work = work_of(Pipeline("vae", "vocoder"))
    before = replace(work, layer_calls=tuple((f"blocks.{index}", 2) for index in range(9)))
    after = replace(work, layer_calls=tuple((f"blocks.{index}", 1) for index in range(9)))
    assert work_differences(before, after) == (
        *(f"layer calls: blocks.{index} 2 -> 1" for index in range(3)),
        "layer calls: 6 more",
    )
