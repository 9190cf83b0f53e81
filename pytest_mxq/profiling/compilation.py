"""What torch.compile did: how much it compiled so far, and proof that a compiled arm really runs compiled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from pytest_mxq.errors import MxqError
from pytest_mxq.models.blocks import named_repeated_blocks

# What Dynamo calls each entry into compiled code in a profile (torch/_dynamo/convert_frame.py).
_REGION = "Torch-Compiled Region"


class SilentEagerError(MxqError):
    """An arm that is said to be compiled and, in whole or in part, ran eagerly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilations:
    """What torch.compile has done in this process so far.

    Attributes:
        graphs: graphs compiled; a recompilation is one more.
        failures: frames it gave up, among them those beyond the recompile limit: they run eagerly from then on.
        skipped_cuda_graphs: graphs that Inductor was asked to record as CUDA Graphs and did not.
    """

    graphs: int
    failures: int
    skipped_cuda_graphs: int


def count_compilations() -> Compilations:
    """Count what torch.compile has done in this process so far, by Dynamo's own counters."""
    frames = counters["frames"]
    return Compilations(
        graphs=counters["stats"]["unique_graphs"],
        failures=frames["total"] - frames["ok"],
        skipped_cuda_graphs=counters["inductor"]["cudagraph_skips"],
    )


def eager_blocks(denoiser: nn.Module) -> tuple[str, ...]:
    """Return the names of the repeated blocks of a denoiser that neither are compiled nor lie in a compiled module."""
    compiled = _compiled_modules(denoiser)
    return tuple(
        name for name in named_repeated_blocks(denoiser) if not any(_within(name, outer) for outer in compiled)
    )


def check_compiled(denoiser: nn.Module, run: Callable[[], object]) -> int:
    """Prove that every repeated block of a warm arm runs compiled.

    A block may be compiled and run eagerly all the same: TORCHDYNAMO_DISABLE, `torch.compiler.set_stance`, a recompile
    limit. Whether this arm compiled a graph proves nothing either way, since arms of one class share their graphs. So
    the denoiser's first forward pass in one call of the workload is profiled, on the CPU's side only, and the entries
    into compiled regions are counted. A region broken by an eager part is not seen here: `fullgraph=True` forbids it.

    Args:
        denoiser: the module whose `compile_repeated_blocks` was called.
        run: one whole call of the workload with it.

    Returns:
        Number of compiled regions entered in that forward pass. Two arms of one model must agree in it.

    Raises:
        SilentEagerError: a block is not compiled or ran eagerly, or the workload never called the denoiser.
    """
    name, blocks = type(denoiser).__name__, named_repeated_blocks(denoiser)
    eager = eager_blocks(denoiser)
    if eager or not blocks:
        found = f"{len(eager)} of {len(blocks)} repeated blocks are not compiled: {', '.join(eager[:3])}"
        raise SilentEagerError(f"{name}: {found if blocks else 'no repeated blocks'}; call compile_repeated_blocks.")
    forward = _FirstForward()
    with forward.watching(denoiser):
        run()
    expected = len(_outermost(_compiled_modules(denoiser)))
    if forward.regions is None:
        raise SilentEagerError(f"{name} is compiled, but the workload never called it; call the pipeline under test.")
    if forward.regions < expected:
        raise SilentEagerError(
            f"{name}: one forward pass entered {forward.regions} compiled regions for {expected} compiled modules; the "
            "others ran eagerly. Look for TORCHDYNAMO_DISABLE, torch.compiler.set_stance and the recompile limit."
        )
    return forward.regions


class _FirstForward:
    """Profile of the first forward pass of a module, and only that: a whole call can have a million events."""

    def __init__(self) -> None:
        # Accumulating, though there is one cycle: otherwise torch 2.11 warns that events of earlier ones are dropped.
        self._profile = profile(activities=[ProfilerActivity.CPU], acc_events=True)
        self._started = self._stopped = False
        self.regions: int | None = None

    @contextmanager
    def watching(self, module: nn.Module) -> Iterator[None]:
        """Count the compiled regions that `module` enters in its first forward pass."""
        hooks = [module.register_forward_pre_hook(self._start), module.register_forward_hook(self._stop)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            if self._started and not self._stopped:
                self._profile.stop()

    def _start(self, *_: Any) -> None:
        if not self._started:
            self._started = True
            self._profile.start()

    def _stop(self, *_: Any) -> None:
        if not self._stopped:
            self._stopped = True
            self._profile.stop()
            events = self._profile.events() or ()  # type: ignore[no-untyped-call]  # torch
            self.regions = sum(event.name.startswith(_REGION) for event in events)


def _compiled_modules(denoiser: nn.Module) -> tuple[str, ...]:
    # Module.compile() leaves no public trace: torch keeps what it calls in this attribute alone.
    return tuple(
        name
        for name, module in denoiser.named_modules()
        if isinstance(module, OptimizedModule) or module._compiled_call_impl is not None  # noqa: SLF001
    )


def _outermost(names: tuple[str, ...]) -> tuple[str, ...]:
    """Drop those that are compiled as a part of another one."""
    return tuple(name for name in names if not any(_within(name, outer) and name != outer for outer in names))


def _within(name: str, outer: str) -> bool:
    return outer in ("", name) or name.startswith(outer + ".")
