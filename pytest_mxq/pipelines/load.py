"""Load the BF16 pipeline of a recipe: from a local folder or from the Hub (offline from its cache)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers import __version__ as diffusers_version
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from pytest_mxq.environment.third_party_warnings import silence_third_party_warnings
from pytest_mxq.errors import MxqError
from pytest_mxq.models import Recipe
from pytest_mxq.pipelines.hub import download_command, fetch_snapshot

_SAMPLES = 64
_SAMPLE_BYTES = 65536


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
    pipe = _read(folder, recipe, revision)
    pipe.set_progress_bar_config(disable=True)
    if not isinstance(getattr(pipe, recipe.denoiser, None), torch.nn.Module):
        raise MxqError(f"model {recipe.name!r}: its {type(pipe).__name__} has no denoiser {recipe.denoiser!r}")
    pipe.to(device)
    if device == "cpu" and recipe.cpu_float32_vae and getattr(pipe, "vae", None) is not None:
        _decode_in_float32(pipe.vae)
    return LoadedPipeline(pipe=pipe, weights=weights)


def _read(folder: Path, recipe: Recipe, revision: str | None) -> Any:
    try:
        with _quiet():
            return DiffusionPipeline.from_pretrained(
                str(folder), dtype=torch.bfloat16, local_files_only=True, use_safetensors=True
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
        return folder, f"folder:{folder_digest(folder)}"
    snapshot = fetch_snapshot(recipe.source, revision)
    return snapshot, f"hub:{recipe.source}@{snapshot.name}"


def folder_digest(folder: Path) -> str:
    """Return twelve hex digits over every weight file's relative name, size and evenly spaced samples of its bytes.

    Samples, since reading a hundred gigabytes to name them takes minutes; any training step changes every sample.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            for offset in range(0, size, max(size // _SAMPLES, _SAMPLE_BYTES)):
                file.seek(offset)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:12]


def _decode_in_float32(vae: Any) -> None:
    """Let a BF16 pipeline's VAE decode in float32: the pipelines hand it BF16 latents and cast nothing themselves."""
    vae.float()
    decode = vae.decode

    def decode_float32(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return decode(latents.float(), *args, **kwargs)

    vae.decode = decode_float32
