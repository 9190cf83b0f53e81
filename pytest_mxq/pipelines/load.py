"""Load the BF16 pipeline of a recipe: from a local folder or from the Hub (offline from its cache)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers import __version__ as diffusers_version
from diffusers.utils import BaseOutput
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from pytest_mxq.environment.third_party_warnings import silence_third_party_warnings
from pytest_mxq.errors import MxqError
from pytest_mxq.models import Recipe
from pytest_mxq.pipelines.hub import download_command, fetch_snapshot
from pytest_mxq.pipelines.quantize import matrix_weights
from pytest_mxq.pipelines.variants import file_names, sole_variant
from pytest_mxq.pipelines.weights_names import folder_weights, hub_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPipeline:
    """A pipeline in BF16 on the device, and a name for its weights that belongs to a case's identity."""

    pipe: Any
    weights: str


def load_pipeline(recipe: Recipe, *, revision: str | None, device: str) -> LoadedPipeline:
    """Load a recipe's pipeline in BF16.

    Args:
        recipe: the model.
        revision: revision on the Hub, over the recipe's own.
        device: "cuda" or "cpu".

    Raises:
        MxqError: the weights are not available; says what to do.
    """
    revision = revision or recipe.revision
    folder, weights = _find_weights(recipe, revision)
    _check_class(folder, recipe)
    variant = sole_variant(file_names(folder))
    pipe = _read(folder, recipe, revision, variant)
    pipe.set_progress_bar_config(disable=True)
    _check_denoiser(pipe, recipe)
    pipe.to(device)
    if device == "cpu" and recipe.cpu_float32_vae and getattr(pipe, "vae", None) is not None:
        _run_in_float32(pipe.vae, torch.bfloat16)
    return LoadedPipeline(pipe=pipe, weights=weights if variant is None else f"{weights} variant {variant}")


def _check_class(folder: Path, recipe: Recipe) -> None:
    """Compare the class that a folder's pipeline was saved from with the recipe's, before weights are read."""
    try:
        found = json.loads((folder / "model_index.json").read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # reading the pipeline says what is wrong with the file
    known = getattr(diffusers, found, None) if isinstance(found, str) else None
    names = {base.__name__ for base in known.__mro__} if isinstance(known, type) else {found}
    if recipe.pipeline_class is not None and recipe.pipeline_class not in names:
        raise MxqError(
            f"model {recipe.name!r} is a {recipe.pipeline_class}, and {folder} holds a {found}: its call, rule and "
            "bounds are another model's; gate it under a name of its own (pytest_mxq_models), or name the right folder"
        )


def _check_denoiser(pipe: Any, recipe: Recipe) -> None:
    """Raise MxqError where the pipeline lacks the recipe's denoiser; names what it has, and the line to write."""
    if isinstance(getattr(pipe, recipe.denoiser, None), torch.nn.Module):
        return
    sizes = {name: matrix_weights(part) for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    ordered = sorted(filter(sizes.get, sizes), key=lambda name: sizes[name], reverse=True)
    listed = ", ".join(f"{name} ({type(getattr(pipe, name)).__name__}, {sizes[name] / 1e6:.3g} M)" for name in ordered)
    wanted = next((name for name in ordered if not name.startswith(("text_encoder", "image_encoder", "vae"))), "unet")
    raise MxqError(
        f"model {recipe.name!r}: its {type(pipe).__name__} has no denoiser {recipe.denoiser!r}; its components with "
        f"Linear layers, by their weights: {listed or 'none'}. Name the right one in a recipe (pytest_mxq_models): "
        f'Recipe(name="...", source="{recipe.source}", rule=GENERIC_RULE, denoiser="{wanted}")'
    )


def _read(folder: Path, recipe: Recipe, revision: str | None, variant: str | None) -> Any:
    try:
        with _quiet():
            return DiffusionPipeline.from_pretrained(
                str(folder), dtype=torch.bfloat16, local_files_only=True, use_safetensors=True, variant=variant
            )
    except (OSError, ValueError, SafetensorError) as error:
        first_line = next(iter(str(error).strip().splitlines()), "")
        way = (
            "save it again with save_pretrained(safe_serialization=True)"
            if Path(recipe.source).is_dir()
            else f"fetch it again: {download_command(recipe.source, revision)} --force-download"
        )
        raise MxqError(
            f"model {recipe.name!r}: {folder} cannot be loaded: {type(error).__name__}: {first_line} (a file is "
            f"missing or damaged, or diffusers {diffusers_version} does not know the pipeline); {way}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Load without progress bars: captured, they would stand under a failed gate."""
    logs = (diffusers_logging, transformers_logging)
    shown = [log.is_progress_bar_enabled() for log in logs]
    for log in logs:
        log.disable_progress_bar()
    try:
        with silence_third_party_warnings():
            yield
    finally:
        for log, was_shown in zip(logs, shown, strict=True):
            if was_shown:
                log.enable_progress_bar()


def _find_weights(recipe: Recipe, revision: str | None) -> tuple[Path, str]:
    folder = Path(recipe.source)
    if folder.is_dir():
        return folder, folder_weights(folder)
    snapshot = fetch_snapshot(recipe.source, revision)
    return snapshot, hub_weights(recipe.source, snapshot.name)


def _run_in_float32(vae: Any, dtype: torch.dtype) -> None:
    """Let the VAE of a pipeline in another dtype run in float32.

    The pipelines hand it latents and images in their own dtype, and compute on with the latents that it encodes, which
    are therefore returned in that dtype; images stay float32. Its dtype is looked up at each call, since some pipelines
    (Stable Diffusion XL) cast it to and fro.
    """
    vae.float()
    decode, encode = vae.decode, getattr(vae, "encode", None)

    def decode_in_its_dtype(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return decode(latents.to(vae.dtype), *args, **kwargs)

    vae.decode = decode_in_its_dtype
    if encode is None:
        return

    def encode_in_its_dtype(images: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return _cast(encode(images.to(vae.dtype), *args, **kwargs), dtype)

    vae.encode = encode_in_its_dtype


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast every floating-point tensor in what a VAE encoded: a tensor, an output class or tuple, a distribution."""
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(_cast(item, dtype) for item in value)
    if isinstance(value, BaseOutput):
        return type(value)(**{name: _cast(item, dtype) for name, item in value.items()})
    if hasattr(value, "sample") and hasattr(value, "mode"):  # a distribution of diffusers: mean, std and the like
        changed = copy.copy(value)
        changed.__dict__.update({name: _cast(item, dtype) for name, item in vars(value).items()})
        return changed
    return value
