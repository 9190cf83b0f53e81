"""Names of a model's weights, which belong to a case's identity, and what is known of them before a model is loaded."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_mxq.models import ModelSource

_SAMPLES = 64
_SAMPLE_BYTES = 65536


def known_weights(source: ModelSource) -> str | None:
    """Return the name that a model's weights are going to have; None where only loading them tells.

    Known of a local folder, and of a commit on the Hub. What a branch or tag means there may have moved since it was
    fetched, and is known offline alone, from the cache. A name may lack the variant that `load_pipeline` adds
    (`same_weights`).
    """
    folder = Path(source.recipe.source)
    if source.random:
        return None
    if folder.is_dir():
        return folder_weights(folder)
    revision = source.revision or source.recipe.revision
    is_commit = revision is not None and re.fullmatch("[0-9a-f]{40}", revision)
    commit = revision if is_commit else _commit_offline(source.recipe.source, revision)
    return hub_weights(source.recipe.source, commit) if commit else None


def _commit_offline(source: str, revision: str | None) -> str | None:
    """Return the commit of a branch or tag that is loaded from the Hub's cache; None where the Hub is asked."""
    from huggingface_hub import constants, try_to_load_from_cache

    if not constants.HF_HUB_OFFLINE:
        return None
    found = try_to_load_from_cache(source, "model_index.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def same_weights(known: str, stored: str) -> bool:
    """Tell whether a name that `known_weights` returned is the stored one, whose variant it may lack.

    >>> same_weights("folder:0123", "folder:0123 variant fp16")
    True
    """
    return stored.partition(" variant ")[0] == known


def folder_weights(folder: Path) -> str:
    """Return the name of the weights in a local folder."""
    return f"folder:{folder_digest(folder)}"


def hub_weights(source: str, commit: str) -> str:
    """Return the name of the weights of a commit on the Hub."""
    return f"hub:{source}@{commit}"


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
