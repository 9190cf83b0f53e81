"""Image-to-image, inpainting and editing on a CPU, where the VAE of a BF16 pipeline encodes and decodes in float32."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_mxq.formats import built_in_formats
from pytest_mxq.models import ModelSource, Recipe
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines.cache import ArmStore
from pytest_mxq.pipelines.generate import BoundPipeline, Series, generate
from pytest_mxq.pipelines.load import load_pipeline

MXFP8 = next(kind for kind in built_in_formats() if kind.name == "mxfp8")
CALL = {**DEMO.call, "num_inference_steps": 4}


@pytest.fixture(scope="module")
def start() -> Any:
    """A demo image (1, 3, 128, 128) to start from."""
    pipe = load_pipeline(DEMO, revision=None, device="cpu").pipe
    generator = torch.Generator().manual_seed(0)
    return pipe(DEMO.prompts[0], **CALL, generator=generator, output_type="pt").images


def recipe_of(folder: Path, name: str) -> Recipe:
    """Return a recipe of the demo's components as another pipeline."""
    for part in Path(DEMO.source).iterdir():
        (folder / part.name).symlink_to(part)
    (folder / "model_index.json").unlink()
    index = json.loads((Path(DEMO.source) / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
    return replace(DEMO, name="edit", source=str(folder), pipeline_class=name, call=CALL)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("FluxImg2ImgPipeline", {"strength": 0.5}),
        ("FluxInpaintPipeline", {"strength": 0.5, "mask_image": torch.ones(1, 1, 128, 128)}),
        ("FluxKontextPipeline", {"max_area": 128 * 128, "_auto_resize": False}),
    ],
)
def test_an_editing_pipeline_generates_with_both_arms(
    tmp_path: Path, start: torch.Tensor, name: str, given: dict[str, Any]
) -> None:
    recipe = recipe_of(tmp_path, name)

    def workload(pipeline: BoundPipeline, prompt: Any) -> Any:
        return pipeline(prompt, image=start, **given)

    store, source = ArmStore("cpu"), ModelSource(recipe=recipe)
    series = Series(prompts=DEMO.prompts[:1], batch_size=1, seed=0)
    pipes = store.base(source).pipe, store.arm(source, MXFP8, emulated=True).pipe
    bf16, mxfp8 = (generate(workload, pipe, recipe.call, series).images for pipe in pipes)
    assert type(pipes[0]).__name__ == name
    assert bf16.shape == mxfp8.shape == start.shape
    assert bf16.std() > 0.04
    assert not torch.equal(bf16, mxfp8)


def test_encoding_gives_the_float32_latents_in_the_pipeline_s_dtype(start: torch.Tensor) -> None:
    vae = load_pipeline(DEMO, revision=None, device="cpu").pipe.vae
    images = (2 * start - 1).bfloat16()
    encoded = vae.encode(images).latent_dist
    exact = type(vae).encode(vae, images.float()).latent_dist
    assert {encoded.mean.dtype, encoded.std.dtype, encoded.mode().dtype} == {torch.bfloat16}
    assert torch.equal(encoded.mean, exact.mean.bfloat16())
    assert encoded.sample(torch.Generator().manual_seed(0)).dtype is torch.bfloat16
    assert vae.encode(images, return_dict=False)[0].mean.dtype is torch.bfloat16


def test_an_image_that_is_encoded_and_decoded_is_nearly_the_same(start: torch.Tensor) -> None:
    vae = load_pipeline(DEMO, revision=None, device="cpu").pipe.vae
    with torch.no_grad():
        again = vae.decode(vae.encode((2 * start - 1).bfloat16()).latent_dist.mode()).sample
    assert again.dtype is torch.float32
    assert (again / 2 + 0.5 - start).abs().mean() < 0.02


def test_a_vae_that_a_pipeline_casts_back_meanwhile_still_decodes(start: torch.Tensor) -> None:
    vae = load_pipeline(DEMO, revision=None, device="cpu").pipe.vae
    latents = vae.encode((2 * start - 1).bfloat16()).latent_dist.mode()
    vae.to(torch.bfloat16)  # as Stable Diffusion XL's image-to-image does after it has encoded
    assert vae.decode(latents).sample.dtype is torch.bfloat16
