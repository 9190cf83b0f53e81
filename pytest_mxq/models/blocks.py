"""The repeated blocks of a denoiser: what is compiled, and what must be proven to run compiled."""

from __future__ import annotations

from typing import Any


def repeated_block_classes(denoiser: Any) -> tuple[str, ...]:
    """Return the names of the classes of a denoiser's blocks: diffusers' ``_repeated_blocks``; empty: it names none."""
    return tuple(getattr(denoiser, "_repeated_blocks", None) or ())


def named_repeated_blocks(denoiser: Any) -> dict[str, Any]:
    """Return the modules of those classes by their names in the denoiser, in their order.

    The list that ``compile_repeated_blocks`` of diffusers goes by.
    """
    classes = repeated_block_classes(denoiser)
    return {name: module for name, module in denoiser.named_modules() if type(module).__name__ in classes}
