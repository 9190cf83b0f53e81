"""A workload's changes to the pipeline: each is found, put back, and no image is another one afterwards."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from demo_arms import call_demo, demo_arm
from torch import nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pytest_mxq.pipelines.cache import ArmStore
from pytest_mxq.pipelines.isolation import Restored, restore, snapshot
from pytest_mxq.pipelines.quantize import share_copy

Body = Callable[[Any], object]


def plain(pipe: Any) -> torch.Tensor:
    return call_demo(pipe, steps=1)


def changed_by(pipe: Any, body: Body) -> Restored:
    state = snapshot(pipe)
    body(pipe)
    return restore(pipe, state)


def exchange_scheduler(pipe: Any) -> None:
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, shift=5.0, use_dynamic_shifting=False)


def change_scheduler_config(pipe: Any) -> None:
    pipe.scheduler.register_to_config(use_dynamic_shifting=False, shift=5.0)


def replace_set_timesteps(pipe: Any) -> None:
    real = pipe.scheduler.set_timesteps
    pipe.scheduler.set_timesteps = lambda *args, mu, **kwargs: real(*args, mu=mu + 1, **kwargs)


def enable_cache(pipe: Any) -> None:
    from diffusers import FirstBlockCacheConfig

    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=10.0))


class OtherProcessor:
    def __call__(self, attn: Any, hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> Any:
        return hidden_states


class Doubled(nn.Module):
    """As a LoRA does, computes the weight from the original one."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 2


def first_linear(pipe: Any) -> Any:
    return pipe.transformer.x_embedder


def parametrize_weight(pipe: Any) -> None:
    parametrize.register_parametrization(first_linear(pipe), "weight", Doubled())


class Adapter(nn.Module):
    """Takes the place of a Linear and holds it, as an adapter does."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.base_layer(x) * 1.5
        return result


def load_adapter(pipe: Any) -> None:
    pipe.transformer.x_embedder = Adapter(first_linear(pipe))


def swap_weight(pipe: Any) -> None:
    first_linear(pipe).weight = nn.Parameter(torch.zeros_like(first_linear(pipe).weight))


def exchange_denoiser(pipe: Any) -> None:
    pipe.transformer = share_copy(pipe.transformer)
    swap_weight(pipe)


def replace_forward(pipe: Any) -> None:
    first_linear(pipe).forward = lambda x: torch.zeros(*x.shape[:-1], 192, dtype=x.dtype)


def hook(pipe: Any) -> None:
    first_linear(pipe).register_forward_hook(lambda _module, _args, output: output * 2)


def checkpoint_gradients(pipe: Any) -> None:
    pipe.transformer.enable_gradient_checkpointing()


def serve_prompts(pipe: Any) -> None:
    pipe.encode_prompt = lambda **_kwargs: None


BODIES: dict[str, tuple[Body, str]] = {
    "scheduler": (exchange_scheduler, "scheduler"),
    "scheduler config": (change_scheduler_config, "shift"),
    "scheduler shift": (lambda pipe: pipe.scheduler.set_shift(5.0), "scheduler: shift"),
    "set_timesteps": (replace_set_timesteps, "scheduler: set_timesteps"),
    "fused projections": (lambda pipe: pipe.transformer.fuse_qkv_projections(), "to_qkv set to Linear"),
    "cache": (enable_cache, "transformer: cache"),
    "processor": (lambda pipe: pipe.transformer.set_attn_processor(OtherProcessor()), "processor"),
    "attention backend": (lambda pipe: pipe.transformer.set_attention_backend("_native_math"), "attention backend"),
    "tiling": (lambda pipe: pipe.vae.enable_tiling(), "vae: use_tiling False -> True"),
    "wider dtype": (lambda pipe: pipe.vae.to(torch.float64), "float32 -> float64"),
    "adapter": (load_adapter, "transformer: x_embedder Linear -> Adapter"),
    "swapped weight": (swap_weight, "transformer.x_embedder: weight replaced"),
    "denoiser": (exchange_denoiser, "transformer"),
    "forward": (replace_forward, "transformer.x_embedder: forward set to"),
    "forward hook": (hook, "transformer.x_embedder: forward hooks changed"),
    "checkpointing": (checkpoint_gradients, "transformer: gradient_checkpointing False -> True"),
    "training": (lambda pipe: pipe.transformer.train(), "transformer: training False -> True"),
    "encode_prompt": (serve_prompts, "encode_prompt set to"),
    "private method": (lambda pipe: setattr(pipe, "_pack_latents", pipe._pack_latents), "_pack_latents set to"),
    "removed component": (lambda pipe: setattr(pipe, "vae", None), "vae AutoencoderKL -> None"),
}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return demo_arm(None, ArmStore("cpu")).pipe


@pytest.fixture(scope="module")
def image(pipe: Any) -> torch.Tensor:
    return plain(pipe)


@pytest.mark.parametrize("name", BODIES)
def test_what_a_body_changes_is_named_and_put_back(pipe: Any, image: torch.Tensor, name: str) -> None:
    body, phrase = BODIES[name]
    restored = changed_by(pipe, body)
    assert any(phrase in change for change in restored.changed), restored
    assert not restored.rebuild
    assert torch.equal(plain(pipe), image)


def multiply(pipe: Any) -> None:
    with torch.no_grad():
        first_linear(pipe).weight.mul_(2)


def multiply_data(pipe: Any) -> None:
    first_linear(pipe).weight.data.mul_(2)


def multiply_quantized(pipe: Any) -> None:
    pipe.transformer.single_transformer_blocks[0].proj_mlp.weight.values.mul_(2)


def to_float16(pipe: Any) -> None:
    pipe.transformer.to(torch.float16)


@pytest.mark.parametrize(
    ("body", "phrase"),
    [
        (multiply, "transformer.x_embedder.weight: changed in place"),
        (multiply_data, "transformer.x_embedder.weight: written over"),
        (multiply_quantized, "transformer.single_transformer_blocks.0.proj_mlp.weight: changed in place"),
        (parametrize_weight, "transformer.x_embedder.weight: changed in place"),  # torch sets it to itself
        (to_float16, "transformer.x_embedder.weight: bfloat16 -> float16"),
    ],
)
def test_numbers_that_are_lost_ask_for_the_arm_to_be_built_again(body: Body, phrase: str) -> None:
    quantized = demo_arm("mxfp8", ArmStore("cpu")).pipe
    restored = changed_by(quantized, body)
    assert restored.rebuild
    assert phrase in restored.not_restored


def test_a_plain_call_changes_nothing_worth_a_report(image: torch.Tensor) -> None:
    fresh = demo_arm(None, ArmStore("cpu")).pipe
    for _ in range(2):
        assert changed_by(fresh, plain) == Restored()
    assert torch.equal(plain(fresh), image)


def test_a_change_in_many_modules_is_one_phrase(pipe: Any) -> None:
    (phrase,) = changed_by(pipe, lambda it: it.vae.train()).changed
    assert phrase.startswith("vae: training False -> True (and in ")


def test_hooks_that_were_there_before_stay(pipe: Any) -> None:
    ran: list[int] = []
    handle = first_linear(pipe).register_forward_hook(lambda *_: ran.append(1))
    changed_by(pipe, hook)
    plain(pipe)
    assert ran
    handle.remove()
    ran.clear()
    plain(pipe)
    assert not ran


def test_a_body_that_raises_can_be_put_back(pipe: Any, image: torch.Tensor) -> None:
    state = snapshot(pipe)
    enable_cache(pipe)
    with pytest.raises(TypeError):
        pipe(unknown=1)
    assert restore(pipe, state).changed
    assert torch.equal(plain(pipe), image)


def test_a_parametrization_is_taken_off_and_the_images_are_the_same(pipe: Any, image: torch.Tensor) -> None:
    changed = changed_by(pipe, parametrize_weight).changed
    assert "transformer.x_embedder: class Linear -> ParametrizedLinear" in changed
    assert torch.equal(plain(pipe), image)


def test_an_exchanged_tensor_of_the_same_shape_is_told_by_its_numbers(image: torch.Tensor) -> None:
    fresh = demo_arm(None, ArmStore("cpu")).pipe
    weight = first_linear(fresh).weight
    state = snapshot(fresh)
    weight.data = weight.data.clone()
    assert restore(fresh, state) == Restored()
    weight.data = -weight.data
    assert restore(fresh, state).not_restored == ("transformer.x_embedder.weight: written over",)


@pytest.mark.parametrize("seed", range(3))
def test_after_any_order_of_bodies_the_plain_workload_gives_the_same_bits(
    pipe: Any, image: torch.Tensor, seed: int
) -> None:
    names = random.Random(seed).sample(list(BODIES), len(BODIES))
    for first, second in itertools.pairwise(names):
        outer = snapshot(pipe)
        BODIES[first][0](pipe)
        if first not in {"denoiser", "adapter", "removed component"}:  # bodies look into these
            assert changed_by(pipe, BODIES[second][0]).changed
        assert not restore(pipe, outer).rebuild
        if names.index(first) % 4 == 0:
            assert torch.equal(plain(pipe), image), names
    assert torch.equal(plain(pipe), image), names


class Copied(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that operations write to storage of their own."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in given:
                self.bytes += leaf.numel() * leaf.element_size()
        return result


def test_snapshot_and_restore_copy_less_than_a_hundredth_of_the_weights(pipe: Any) -> None:
    weights = sum(weight.numel() * weight.element_size() for weight in pipe.transformer.parameters())
    with Copied() as copied:
        changed_by(pipe, lambda _pipe: None)
    assert 0 < copied.bytes < weights / 100


@pytest.mark.parametrize("module", ["transformers.utils.output_capturing", "tests"])
def test_hooks_that_transformers_puts_on_its_models_are_taken_off_and_not_told(module: str) -> None:
    def hook(*_: Any) -> None: ...

    hook.__module__ = module
    small = SimpleNamespace(text_encoder=nn.Linear(2, 2))
    restored = changed_by(small, lambda pipe: pipe.text_encoder.register_forward_hook(hook))
    assert not small.text_encoder._forward_hooks
    assert bool(restored.changed) == (module == "tests")


def rename(pipe: Any) -> None:
    pipe.name = "y"
    pipe.unet.bias = None


def test_a_pipeline_of_small_modules_without_diffusers_works_too() -> None:
    small = SimpleNamespace(unet=nn.Linear(2, 2), name="x")
    assert set(changed_by(small, rename).changed) == {"name x -> y", "unet: bias Parameter -> None"}
    assert small.name == "x"
    assert isinstance(small.unet.bias, nn.Parameter)
