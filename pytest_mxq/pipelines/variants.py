"""Find the variant under which alone a model's weights were saved, such as ``diffusion_pytorch_model.fp16``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

# component/stem[.variant][-00001-of-00002].safetensors, as save_pretrained(variant=...) writes it
_WEIGHTS = re.compile(r"(?P<component>[^/]+)/\w+(?:\.(?P<variant>\w+))?(?:-\d{5}-of-\d{5})?\.safetensors")


def sole_variant(names: Iterable[str]) -> str | None:
    """Return the one variant that every component without plain weights has; None if no component needs one.

    Args:
        names: the model's files, relative to its folder, with "/" between folder and name.

    >>> sole_variant(["unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors"])
    'fp16'
    >>> sole_variant(["vae/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors"])
    """
    found: defaultdict[str, set[str | None]] = defaultdict(set)
    for match in filter(None, map(_WEIGHTS.fullmatch, names)):
        found[match["component"]].add(match["variant"])
    needed = [variants for variants in found.values() if None not in variants]
    common = set.intersection(*needed) if needed else set()
    return common.pop() if len(common) == 1 else None


def file_names(folder: Path) -> list[str]:
    """Return the files of a model's folder, relative to it."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def lacks_weights(folder: Path) -> bool:
    """Return whether a component of a fetched model has a configuration and no weights."""
    configured = (config.parent for config in folder.glob("*/config.json"))
    return any(not any(component.glob("*.safetensors")) for component in configured)
