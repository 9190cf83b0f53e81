"""Compiling an arm: the repeated blocks of its denoiser, as the published recipes do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._inductor import config as inductor_config

RECOMPILE_LIMIT = 64


def compile_blocks(denoiser: torch.nn.Module, *, backend: str = "inductor") -> None:
    """Compile every repeated block with full graphs and static shapes.

    Static, since otherwise a second batch size in the same process turns the graphs symbolic and the result would
    depend on which test ran before.
    """
    denoiser.compile_repeated_blocks(fullgraph=True, dynamic=False, backend=backend)  # type: ignore[operator]


@contextmanager
def compiling_faithfully() -> Iterator[None]:
    """Compile with the roundings of eager execution, and never fall back to eager unseen."""
    with (
        inductor_config.patch(emulate_precision_casts=True),
        torch._dynamo.config.patch(recompile_limit=RECOMPILE_LIMIT, fail_on_recompile_limit_hit=True),  # noqa: SLF001
    ):
        yield
