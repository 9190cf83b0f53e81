"""The arms of a session: copies of a denoiser that never runs, each prepared by its recipe after it was quantized."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import PyramidAttentionBroadcastConfig

from pytest_mxq.formats import built_in_formats
from pytest_mxq.models import ModelSource
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines.cache import Arm, ArmStore
from pytest_mxq.pipelines.load import load_pipeline
from pytest_mxq.pipelines.quantize import choose_layers, quantize_layers, share_copy

MXFP8 = next(kind for kind in built_in_formats() if kind.name == "mxfp8")
PROMPT = DEMO.prompts[0]


def broadcast_attention(pipe: Any, timestep: int | None = None) -> None:
    """Let attention be computed in every second step only (Zhao et al., Pyramid Attention Broadcast)."""
    pipe.transformer.enable_cache(
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(100, 900),
            current_timestep_callback=lambda: timestep or pipe.current_timestep,
        )
    )


PREPARED = ModelSource(recipe=replace(DEMO, prepare=broadcast_attention))


def count_linear_calls(denoiser: torch.nn.Module) -> Counter[str]:
    """Count how often each Linear of a denoiser runs from now on."""
    calls: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., None]:
        return lambda *_: calls.update([name])

    for name, layer in denoiser.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(counting(name))
    return calls


def generate(pipe: Any) -> torch.Tensor:
    call = {**DEMO.call, "num_inference_steps": 4}
    images: torch.Tensor = pipe(PROMPT, **call, output_type="pt", generator=torch.Generator().manual_seed(0)).images
    return images


def arms_of(source: ModelSource) -> tuple[ArmStore, Arm, Arm]:
    store = ArmStore("cpu")
    return store, store.base(source), store.arm(source, MXFP8, emulated=True)


def test_with_a_prepared_pipeline_every_chosen_layer_of_the_quantized_arm_runs_in_it_and_none_elsewhere() -> None:
    store, bf16, quantized = arms_of(PREPARED)
    assert store._resident is not None
    assert quantized.chosen is not None
    own, base, loaded = (
        count_linear_calls(pipe.transformer) for pipe in (quantized.pipe, bf16.pipe, store._resident.loaded.pipe)
    )
    generate(quantized.pipe)
    assert set(quantized.chosen.names) <= set(own)
    assert not base
    assert not loaded


def test_the_bf16_arm_is_prepared_too_and_the_loaded_pipeline_stays_as_it_was() -> None:
    store, bf16, quantized = arms_of(PREPARED)
    assert store._resident is not None
    loaded = store._resident.loaded.pipe
    assert [pipe.transformer.is_cache_enabled for pipe in (loaded, bf16.pipe, quantized.pipe)] == [False, True, True]
    calls = count_linear_calls(bf16.pipe.transformer)
    generate(bf16.pipe)
    attention = next(name for name in calls if name.endswith("attn.to_q"))
    assert calls[attention] < calls["x_embedder"] == 4


def test_a_hook_on_a_denoiser_that_is_copied_afterwards_runs_the_original_s_layers() -> None:
    """Why the arms are prepared one by one: what the copy would generate is quantized in part only."""
    pipe = load_pipeline(DEMO, revision=None, device="cpu").pipe
    broadcast_attention(pipe, timestep=500)
    twin = share_copy(pipe.transformer)
    chosen = choose_layers(twin, DEMO.rule, MXFP8)
    quantize_layers(twin, chosen, MXFP8, emulated=True)
    copied, original = count_linear_calls(twin), count_linear_calls(pipe.transformer)
    generate(type(pipe)(**{**pipe.components, "transformer": twin}))
    assert set(chosen.names) - set(copied)
    assert original


def test_the_arms_share_the_loaded_weights_and_every_other_component() -> None:
    store, bf16, quantized = arms_of(ModelSource(recipe=DEMO))
    assert store._resident is not None
    loaded = store._resident.loaded.pipe
    addresses = {weight.data_ptr() for weight in loaded.transformer.parameters()}
    assert {weight.data_ptr() for weight in bf16.pipe.transformer.parameters()} == addresses
    for name in loaded.components.keys() - {"transformer"}:
        assert getattr(bf16.pipe, name) is getattr(quantized.pipe, name) is getattr(loaded, name)


def test_the_evidence_is_what_the_arm_holds_after_it_was_prepared() -> None:
    def put_back(pipe: Any) -> None:
        for block in pipe.transformer.transformer_blocks:
            block.attn.to_q.weight = torch.nn.Parameter(torch.zeros(192, 192, dtype=torch.bfloat16))

    arm = ArmStore("cpu").arm(ModelSource(recipe=replace(DEMO, prepare=put_back)), MXFP8, emulated=True)
    assert arm.evidence is not None
    blocks = len(arm.pipe.transformer.transformer_blocks)
    assert arm.evidence.quantized == arm.evidence.chosen - blocks


def test_a_model_whose_preparation_fails_is_not_held() -> None:
    def fail(_pipe: Any) -> None:
        raise ZeroDivisionError

    store, source = ArmStore("cpu"), ModelSource(recipe=replace(DEMO, prepare=fail))
    with pytest.raises(ZeroDivisionError):
        store.base(source)
    assert not store.holds(source)
