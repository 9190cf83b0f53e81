"""Loading what is not laid out as a recipe expects: weights of a variant alone, another class, another denoiser."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from pytest_mxq.errors import MxqError
from pytest_mxq.formats import built_in_formats
from pytest_mxq.models import GENERIC_RULE, ModelSource, Recipe, SelectionRule, built_in_models
from pytest_mxq.models.demo import DEMO
from pytest_mxq.models.tiny import clip_tokenizer, seeded
from pytest_mxq.pipelines import hub
from pytest_mxq.pipelines.cache import ArmStore
from pytest_mxq.pipelines.load import load_pipeline
from pytest_mxq.pipelines.variants import sole_variant

SOURCE = "owner/model"


def test_weights_that_exist_as_one_variant_alone_are_read_and_the_weights_name_says_so(tmp_path: Path) -> None:
    plain = load_pipeline(DEMO, revision=None, device="cpu").pipe
    saved = DiffusionPipeline.from_pretrained(DEMO.source, dtype=torch.bfloat16)
    saved.save_pretrained(tmp_path / "model", variant="fp16")
    loaded = load_pipeline(replace(DEMO, source=str(tmp_path / "model")), revision=None, device="cpu")
    assert loaded.weights.endswith(" variant fp16")
    for name in ("transformer", "text_encoder", "vae"):
        expected = getattr(plain, name).state_dict()
        assert all(torch.equal(expected[key], value) for key, value in getattr(loaded.pipe, name).state_dict().items())


@pytest.mark.parametrize(
    ("names", "variant"),
    [
        (["unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors"], "fp16"),
        (["unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "unet/config.json"], "fp16"),
        (["unet/model-00001-of-00002.safetensors", "unet/model.fp16-00001-of-00002.safetensors"], None),
        (["unet/model.fp16.safetensors", "unet/model.non_ema.safetensors"], None),
        (["unet/model.fp16.safetensors", "vae/model.ema.safetensors"], None),
        (["model.fp16.safetensors", "model_index.json", "unet/model.safetensors"], None),
    ],
)
def test_a_variant_is_taken_where_a_component_has_no_plain_weights_and_only_one_will_do(
    names: list[str], variant: str | None
) -> None:
    assert sole_variant(names) == variant


def test_a_variant_of_the_hub_is_fetched_where_plain_weights_are_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str | None] = []

    def download(_source: str, *, variant: str | None = None, **_: Any) -> str:
        asked.append(variant)
        if variant is None:
            (tmp_path / "unet").mkdir()
            (tmp_path / "unet" / "config.json").touch()
        return str(tmp_path)

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    monkeypatch.setattr(hub, "list_repo_files", lambda *_, **__: ["unet/model.fp16.safetensors", "unet/config.json"])
    assert hub.fetch_snapshot(SOURCE, None) == tmp_path
    assert asked == [None, "fp16"]


def test_a_folder_of_another_pipeline_class_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    shutil.copy(Path(DEMO.source) / "model_index.json", tmp_path)
    recipe = replace(DEMO, name="edit", source=str(tmp_path), pipeline_class="FluxImg2ImgPipeline")
    with pytest.raises(MxqError, match=r"'edit' is a FluxImg2ImgPipeline, and .* holds a FluxPipeline"):
        load_pipeline(recipe, revision=None, device="cpu")


@pytest.mark.parametrize("name", ["FluxPipeline", "DiffusionPipeline", None])
def test_a_folder_of_the_recipe_s_class_or_of_a_subclass_is_loaded(name: str | None) -> None:
    assert load_pipeline(replace(DEMO, pipeline_class=name), revision=None, device="cpu").weights


def test_every_built_in_recipe_names_a_pipeline_class_of_diffusers() -> None:
    for recipe in built_in_models():
        assert issubclass(getattr(diffusers, recipe.pipeline_class or ""), DiffusionPipeline)


@pytest.fixture(scope="module")
def unet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion, whose denoiser is called unet."""
    tokenizer = clip_tokenizer()
    vae = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    with seeded():
        pipe = StableDiffusionPipeline(
            vae=AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, **vae),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                )
            ),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(64, 128),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                layers_per_block=1,
                norm_num_groups=4,
                cross_attention_dim=32,
                attention_head_dim=8,
            ),
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    folder = tmp_path_factory.mktemp("models") / "unet"
    pipe.save_pretrained(folder)
    return folder


def test_a_pipeline_without_the_denoiser_says_what_it_has_largest_first_and_the_line_to_write(
    unet_folder: Path,
) -> None:
    recipe = Recipe(name="sd", source=str(unet_folder), rule=GENERIC_RULE)
    with pytest.raises(MxqError, match="StableDiffusionPipeline has no denoiser 'transformer'") as caught:
        load_pipeline(recipe, revision=None, device="cpu")
    said = str(caught.value)
    assert said.index("unet (UNet2DConditionModel, ") < said.index("text_encoder (CLIPTextModel, ")
    assert said.endswith(f'Recipe(name="...", source="{unet_folder}", rule=GENERIC_RULE, denoiser="unet")')


def test_a_recipe_whose_denoiser_is_a_unet_generates_quantized_images(unet_folder: Path) -> None:
    recipe = Recipe(name="sd", source=str(unet_folder), rule=SelectionRule(min_features=128), denoiser="unet")
    store, source = ArmStore("cpu"), ModelSource(recipe=recipe)
    mxfp8 = next(kind for kind in built_in_formats() if kind.name == "mxfp8")
    arms = store.base(source), store.arm(source, mxfp8, emulated=True)
    assert arms[1].evidence is not None
    assert arms[1].evidence.quantized == arms[1].evidence.chosen > 0
    call = {"num_inference_steps": 2, "height": 16, "width": 16, "output_type": "pt"}
    bf16, quantized = (arm.pipe("red", **call, generator=torch.Generator().manual_seed(0)).images for arm in arms)
    assert not torch.equal(bf16, quantized)
