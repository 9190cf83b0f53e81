"""Evidence from execution: which weights the denoisers multiply with while a call is observed.

A module tree tells what was built. What runs may be something else: a forward that another module replaced, weights
that a test put back, a second denoiser. So every product is looked at where torch computes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_map_only

from pytest_mxq.errors import MxqError
from pytest_mxq.pipelines.execution import Execution
from pytest_mxq.pipelines.module_calls import is_compiled
from pytest_mxq.pipelines.quantize import matrix_weights
from pytest_mxq.pipelines.recorder import ExecutionRecorder
from pytest_mxq.pipelines.wrapping import wrapped


@contextmanager
def observe_execution(pipe: Any, denoisers: Sequence[str]) -> Iterator[ExecutionRecorder]:
    """Observe what a pipeline's denoisers multiply with, in eager execution.

    Args:
        pipe: the pipeline.
        denoisers: names of its denoisers, such as "transformer" and Wan 2.2's "transformer_2". A component that the
            pipeline was built without is left out.

    Yields:
        What has the record when the block has ended.

    Raises:
        MxqError: the pipeline has none of them, or one holds compiled modules: `observe_one_call` is for these.
    """
    modules = {name: getattr(pipe, name, None) for name in denoisers}
    present = {name: module for name, module in modules.items() if isinstance(module, torch.nn.Module)}
    if not present:
        raise MxqError(f"{type(pipe).__name__} has no denoiser named {' or '.join(denoisers)}")
    for name, module in present.items():
        if is_compiled(module):
            raise MxqError(f"{name} is compiled and cannot be observed in a call; observe one eager call of it")
    recorder = ExecutionRecorder(present)
    with _recording(recorder), _watching_outside(pipe, present, recorder):
        yield recorder
    recorder.finish(
        [f"{name}: component replaced" for name in present if getattr(pipe, name, None) is not present[name]]
    )


@contextmanager
def _recording(recorder: ExecutionRecorder) -> Iterator[None]:
    recorder.start()
    try:
        yield
    finally:
        recorder.stop()


@contextmanager
def _watching_outside(
    pipe: Any, denoisers: Mapping[str, torch.nn.Module], recorder: ExecutionRecorder
) -> Iterator[None]:
    """Let a recorder count what modules with matrices multiply that belong to no component of the pipeline.

    Such as a BF16 denoiser that a callback calls between the steps. What is called outside of the pipeline's calls
    changes nothing of what these generate, which is compared with what the test returns.
    """
    known: set[torch.nn.Module] = set()
    calls_known = callable(pipe)

    def enter(module: torch.nn.Module, _args: Any) -> None:
        if recorder.is_counting:
            return
        recorder.enter_module()
        if module in known or (calls_known and not recorder.is_calling):
            return
        parts = {**getattr(pipe, "components", {}), **denoisers}.values()
        modules = (part for part in parts if isinstance(part, torch.nn.Module))
        known.update(inner for part in modules for inner in part.modules())  # adapters may have come
        if module not in known and matrix_weights(module):
            recorder.enter_outside(module)

    def calling(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def observed(self: Any, *args: Any, **kwargs: Any) -> Any:
            with recorder.calling() if self is pipe else nullcontext():
                return call(self, *args, **kwargs)

        return observed

    hook = register_module_forward_pre_hook(enter)
    try:
        with wrapped(type(pipe), "__call__", calling) if calls_known else nullcontext():
            yield
    finally:
        hook.remove()


def observe_one_call(
    denoiser: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], *, name: str = "denoiser"
) -> Execution:
    """Run a denoiser once in eager execution, compiled or not, and return what it multiplied with.

    Args:
        denoiser: the module.
        args: its positional arguments, as `record_first_call` took them from a pipeline's call.
        kwargs: its named arguments.
        name: what the record calls it.
    """
    recorder = ExecutionRecorder({name: denoiser})
    with _recording(recorder), torch.no_grad(), _eagerly(denoiser):
        denoiser(*args, **kwargs)
    recorder.finish()
    return recorder.execution


@dataclass(slots=True)
class FirstCall:
    """Arguments of the first call of a denoiser.

    Attributes:
        args: the positional ones, tensors copied; None before the call.
        kwargs: the named ones.
    """

    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


@contextmanager
def record_first_call(denoiser: torch.nn.Module) -> Iterator[FirstCall]:
    """Copy the arguments of the first call of a denoiser, for `observe_one_call`."""
    first = FirstCall()

    def take(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if first.args is None:
            first.args, first.kwargs = tree_map_only(torch.Tensor, torch.clone, (args, kwargs))

    hook = denoiser.register_forward_pre_hook(take, with_kwargs=True)
    try:
        yield first
    finally:
        hook.remove()


def _eagerly(denoiser: torch.nn.Module) -> AbstractContextManager[None]:
    """Run compiled modules as if they were not; importing Dynamo for a module that is not compiled takes a second."""
    return torch.compiler.set_stance("force_eager") if is_compiled(denoiser) else nullcontext()
