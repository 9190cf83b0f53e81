"""Compile an arm: the repeated blocks of its denoiser, as the published recipes do."""

from __future__ import annotations

import functools
import importlib
import operator
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch._inductor import config as inductor_config
from torch.utils._pytree import tree_map_only

from pytest_mxq.errors import MxqError
from pytest_mxq.models.blocks import named_repeated_blocks, repeated_block_classes

RECOMPILE_LIMIT = 64

# What changes the code that Inductor makes, and that a library's "recommended settings" are known to touch.
_SETTINGS = (
    "combo_kernels",
    "coordinate_descent_check_all_directions",
    "coordinate_descent_tuning",
    "emulate_precision_casts",
    "epilogue_fusion",
    "force_fuse_int_mm_with_mul",
    "freezing",
    "max_autotune",
    "max_autotune_gemm",
    "shape_padding",
    "triton.cudagraphs",
    "triton.unique_kernel_names",
)


class CompileMode(StrEnum):
    """How repeated blocks are compiled; the values are torch.compile's."""

    DEFAULT = "default"
    REDUCE_OVERHEAD = "reduce-overhead"  # CUDA Graphs: pays where launches dominate, at batch size 1


def compile_blocks(
    denoiser: torch.nn.Module,
    *,
    mode: CompileMode = CompileMode.DEFAULT,
    backend: str | Callable[..., Any] = "inductor",
) -> None:
    """Compile every repeated block with full graphs and static shapes.

    Static, since otherwise a second batch size in the same process turns the graphs symbolic and the result would
    depend on which test ran before.

    Args:
        denoiser: the model, whose ``_repeated_blocks`` names the classes of its blocks.
        mode: how.
        backend: what compiles a graph.

    Raises:
        MxqError: the model names no repeated blocks, or has none of that name.
    """
    for block in repeated_blocks(denoiser):
        block.compile(fullgraph=True, dynamic=False, backend=backend, mode=mode.value)
        if mode is CompileMode.REDUCE_OVERHEAD:
            # Outside of the compiled region, hence not by a hook: Module.compile() compiles those too. A deep copy
            # drops this attribute as it does without the cloning.
            compiled: Any = block._compiled_call_impl  # noqa: SLF001
            block._compiled_call_impl = _cloning(compiled)  # noqa: SLF001


def repeated_blocks(denoiser: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    """Return the blocks of the classes that the model's ``_repeated_blocks`` names, in their order.

    Raises:
        MxqError: there are none.
    """
    blocks = tuple(named_repeated_blocks(denoiser).values())
    if not blocks:
        raise MxqError(
            f"{type(denoiser).__name__} cannot be compiled block by block: its _repeated_blocks is "
            f"{repeated_block_classes(denoiser)!r} and no module has such a class; name the classes of its blocks "
            "there, or run the gate in eager execution"
        )
    return blocks


def _cloning(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Copy what a CUDA Graph returned out of the graph's memory, which the next replay writes over.

    The originals die with the copy, so every block's graph starts over and torch needs no step mark
    (``torch.compiler.cudagraph_mark_step_begin``) to know that it may.
    """

    @functools.wraps(compiled)
    def run(*args: Any, **kwargs: Any) -> Any:
        return tree_map_only(torch.Tensor, torch.clone, compiled(*args, **kwargs))

    return run


@contextmanager
def compiling_faithfully() -> Iterator[None]:
    """Compile and generate images: the roundings of eager execution, and never a fall back to eager unseen."""
    with inductor_config.patch(emulate_precision_casts=True), _never_falling_back():
        yield


@contextmanager
def compiling_fast() -> Iterator[None]:
    """Compile and run for time: Inductor's own roundings, and never a fall back to eager unseen."""
    with inductor_config.patch(emulate_precision_casts=False), _never_falling_back():
        yield


@contextmanager
def _never_falling_back() -> Iterator[None]:
    _import_inductor()
    with (
        warnings.catch_warnings(),
        torch._dynamo.config.patch(  # noqa: SLF001
            recompile_limit=RECOMPILE_LIMIT, fail_on_recompile_limit_hit=True
        ),
    ):
        # torch captures an empty graph on purpose, to make a memory pool, and warns of it.
        warnings.filterwarnings("ignore", message="The CUDA Graph is empty")
        # Qwen-Image's rotary embeddings are complex: Inductor calls eager kernels for them, and warns.
        warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex")
        yield


def _import_inductor() -> None:
    """Import what torch would import at the first compilation.

    Meanwhile torch 2.11 warns of a deprecated decorator of its own; under
    ``filterwarnings = error`` the compilation would end in ``BackendCompilerFailed``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module("torch._inductor.compile_fx")


@contextmanager
def compile_cache(directory: Path) -> Iterator[None]:
    """Store compiled code in a directory, so that the next process starts with it.

    Enter it before the first compilation of a process: Inductor's workers and Triton take the directory then.
    """
    before = {name: os.environ.get(name) for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(directory.absolute())
    os.environ.pop("TRITON_CACHE_DIR", None)  # Inductor sets it to a folder of its own directory
    try:
        with inductor_config.patch(fx_graph_cache=True):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def inductor_settings() -> dict[str, str]:
    """Return Inductor's configuration as far as it changes compiled code, as a fingerprint records it."""
    return {name: str(_setting(name)) for name in _SETTINGS}


@contextmanager
def inductor_settings_kept() -> Iterator[None]:
    """Let a library set Inductor's configuration, and put it back at the end.

    torchao's configurations set what it recommends by default (``set_inductor_config``), for all of the process: BF16's
    arm and the next test would be compiled by it too, depending on which was built first.
    """
    with inductor_config.patch({name: _setting(name) for name in (*_SETTINGS, "fx_graph_cache")}):
        yield


@contextmanager
def same_inductor_settings() -> Iterator[None]:
    """Hold Inductor's configuration while both arms of a comparison are built and compiled.

    Afterwards it is again what it was.

    Raises:
        MxqError: something changed it meanwhile; names each setting.
    """
    before = inductor_settings()
    with inductor_settings_kept():
        yield
        after = inductor_settings()
    changed = [f"{name} {before[name]} -> {after[name]}" for name in _SETTINGS if before[name] != after[name]]
    if changed:
        raise MxqError(
            f"Inductor's configuration changed between the two arms of a comparison: {', '.join(changed)}; both must "
            "compile under one: set it before the run, in the root conftest.py"
        )


def _setting(name: str) -> Any:
    return operator.attrgetter(name)(inductor_config)
