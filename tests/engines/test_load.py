"""Loading: whence the weights come, what they are called, and what is said when they cannot be had."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pytest_mxq.arms.load import folder_digest, load_pipeline
from pytest_mxq.errors import MxqError
from pytest_mxq.models import GENERIC_RULE, Recipe
from pytest_mxq.models.demo import DEMO


def test_the_packaged_model_loads_in_bf16_with_a_float32_vae_on_the_cpu(capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load_pipeline(DEMO, revision=None, device="cpu")
    assert loaded.pipe.transformer.dtype is torch.bfloat16
    assert loaded.pipe.vae.dtype is torch.float32
    assert loaded.weights == f"folder:{folder_digest(Path(DEMO.source))}"
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_other_weights_have_another_name_and_moved_ones_the_same(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(DEMO.source, copy)
    assert folder_digest(copy) == folder_digest(Path(DEMO.source))
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = {name: tensor * 1.01 for name, tensor in load_file(file).items()}
    save_file(weights, file)
    assert folder_digest(copy) != folder_digest(Path(DEMO.source))


def test_a_model_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = Recipe(name="x", source="nobody/nothing-here", rule=GENERIC_RULE)
    with pytest.raises(MxqError, match="set HF_TOKEN") as caught:
        load_pipeline(recipe, revision="abc", device="cpu")
    assert "'nobody/nothing-here' (revision abc)" in str(caught.value)
    assert "hf_secret" not in str(caught.value)


def test_a_pipeline_without_the_denoiser_is_named() -> None:
    with pytest.raises(MxqError, match="FluxPipeline has no denoiser 'unet'"):
        load_pipeline(replace(DEMO, denoiser="unet"), revision=None, device="cpu")
