"""The section "bits" of gpu_speed.py: whether ways of compiling one block give the same bits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from gpu_speed_bench import Bench, chosen_layers, with_denoiser
from torch import nn
from torch._inductor import config as inductor_config
from torch._inductor.utils import fresh_cache
from torch.utils._pytree import tree_leaves

from pytest_mxq.pipelines.compile import (
    CompileMode,
    compile_blocks,
    repeated_blocks,
)
from pytest_mxq.pipelines.quantize import (
    quantize_layers,
    share_copy,
)
from pytest_mxq.pipelines.random_weights import load_random


def largest(one: torch.Tensor, two: torch.Tensor) -> float:
    return (one.float() - two.float()).abs().max().item()


def bits(bench: Bench) -> None:
    """Compile one block of each class in several ways and compare what they make of the same input."""
    pipe = load_random(bench.recipe, device=bench.device).pipe
    denoiser = share_copy(pipe.transformer)
    quantize_layers(denoiser, chosen_layers(bench, pipe), bench.format, emulated=False)
    arm = with_denoiser(pipe, denoiser)
    for block in {type(block): block for block in reversed(repeated_blocks(denoiser))}.values():
        with recorded_call(block) as seen:
            bench.generate(arm, steps=1)
        call = seen[0]
        for settings in ({}, {"deterministic": True}):
            torch.compiler.reset()
            with inductor_config.patch(settings), fresh_cache():
                default = warmed_up(compiled(block, CompileMode.DEFAULT, call))
                ways = {"again": default, "eager": flat_call(share_copy(block), call)}
                if bench.device == "cuda":
                    ways["captured in a CUDA Graph"] = captured(default)
                    graphed = compiled(block, CompileMode.REDUCE_OVERHEAD, call)
                    for calling in ("without a graph yet", "recording it", "replaying it"):
                        ways[f"reduce-overhead, {calling}"] = graphed
                compare_bits(bench, f"{type(block).__name__} {settings}", default, ways)
                torch.compiler.reset()
                with fresh_cache():
                    again = {"compiled again, empty cache": warmed_up(compiled(block, CompileMode.DEFAULT, call))}
                    compare_bits(bench, f"{type(block).__name__} {settings}", default, again)


@contextmanager
def recorded_call(block: nn.Module) -> Iterator[list[tuple[Any, Any]]]:
    """Record what the block is called with meanwhile."""
    seen: list[tuple[Any, Any]] = []
    hook = block.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    yield seen
    hook.remove()


def compiled(block: nn.Module, mode: CompileMode, call: tuple[Any, Any]) -> Callable[[], torch.Tensor]:
    """Return a compiled copy of the block with that call."""
    holder = nn.ModuleList([share_copy(block)])
    holder._repeated_blocks = [type(block).__name__]  # type: ignore[assignment]  # noqa: SLF001  # as diffusers names them
    compile_blocks(holder, mode=mode)
    return flat_call(holder[0], call)


def flat_call(block: nn.Module, call: tuple[Any, Any]) -> Callable[[], torch.Tensor]:
    args, kwargs = call
    return lambda: torch.cat([output.flatten() for output in tree_leaves(block(*args, **kwargs))])


def warmed_up(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    for _ in range(3):
        run()
    return run


def captured(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Capture the same code and replay it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()

    def replay() -> torch.Tensor:
        graph.replay()
        return output.clone()

    return replay


def compare_bits(
    bench: Bench, what: str, default: Callable[[], torch.Tensor], ways: dict[str, Callable[[], torch.Tensor]]
) -> None:
    reference = default()
    for way, run in ways.items():
        other = run()
        bench.record(
            "bits",
            of=what,
            way=way,
            differing=(reference != other).sum().item(),
            elements=reference.numel(),
            largest=largest(reference, other),
            spread=reference.float().std().item(),
        )
