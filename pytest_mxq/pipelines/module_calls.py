"""Count forward calls of modules: of a denoiser's layers by name, and of modules that belong to no component.

Both arms of a comparison must call the same layers as often, whatever a cache leaves out; and a module that only the
quantized arm calls beside its pipeline, such as a BF16 denoiser that a hook kept, would be judged with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

Calls = tuple[tuple[str, int], ...]


class ModuleCalls:
    """Count the calls of modules between `start` and `stop`.

    Eager modules are counted by one hook of all modules: a dictionary entry a call, no synchronisation. Compiled code
    must not see a hook; of a pipeline with compiled modules the calls of these are counted outside of their code, and
    of modules elsewhere nothing.
    """

    def __init__(self, pipe: Any, denoisers: tuple[str, ...]) -> None:
        """Take a pipeline and the names of its denoisers."""
        self._pipe = pipe
        self._denoisers = denoisers
        self._calls: Counter[torch.nn.Module] = Counter()
        self._seen: dict[str, list[torch.nn.Module]] = {}  # by name, each component that was there
        self._layers: dict[torch.nn.Module, str] = {}
        self._others = 0
        self._stack = ExitStack()

    def start(self) -> None:
        """Begin to count."""
        self.learn()
        modules = self._known()
        if not any(map(_runs_compiled, modules)):
            self._stack.callback(register_module_forward_pre_hook(self._count).remove)
        for module in modules:
            if is_compiled_itself(module):
                self._stack.enter_context(_compiled_counted(module, self._count))

    def stop(self) -> None:
        """Stop counting, and find out what was called; what components hold now is theirs, such as adapters."""
        self._stack.close()
        self.learn()
        known = self._known()
        self._others = sum(count for module, count in self._calls.items() if module not in known)
        for name in self._denoisers:
            prefix = f"{name}." if len(self._denoisers) > 1 else ""
            for denoiser in self._seen.get(name, ()):
                self._layers.update((module, prefix + path) for path, module in denoiser.named_modules())

    def learn(self) -> None:
        """Look the components up again: a workload may exchange them."""
        parts = {**getattr(self._pipe, "components", {})}
        parts.update({name: getattr(self._pipe, name, None) for name in self._denoisers})
        for name, part in parts.items():
            seen = self._seen.setdefault(name, [])
            if isinstance(part, torch.nn.Module) and not any(part is known for known in seen):
                seen.append(part)

    def _known(self) -> set[torch.nn.Module]:
        """Return the modules of all components, without the names and generators that make ``modules()`` slow."""
        found = {part for parts in self._seen.values() for part in parts}
        waiting = list(found)
        while waiting:
            held = waiting.pop()._modules.values()  # noqa: SLF001 - what children() reads
            new = {module for module in held if module is not None and module not in found}
            found |= new
            waiting += new
        return found

    @property
    def layer_calls(self) -> Calls:
        """Calls of each layer of the denoisers that ran, sorted by name; of compiled ones those of compiled modules."""
        calls: Counter[str] = Counter()
        for module, count in self._calls.items():
            if module in self._layers and (_has_matrix(module) or is_compiled_itself(module)):
                calls[self._layers[module]] += count
        return tuple(sorted(calls.items()))

    @property
    def other_calls(self) -> int:
        """Calls of modules that belong to no component of the pipeline; 0 of a compiled one."""
        return self._others

    def _count(self, module: torch.nn.Module, _args: Any = None) -> None:
        self._calls[module] += 1


def is_compiled(module: torch.nn.Module) -> bool:
    """Return whether a module, or one inside it, was compiled by its ``compile``."""
    return any(map(is_compiled_itself, module.modules()))


def is_compiled_itself(module: torch.nn.Module) -> bool:
    """Return whether a module was compiled by its ``compile``."""
    return module._compiled_call_impl is not None  # noqa: SLF001 - no public spelling


def _runs_compiled(module: torch.nn.Module) -> bool:
    wraps_compiled = "_orig_mod" in module._modules  # noqa: SLF001 - what torch.compile(module) returns
    return wraps_compiled or is_compiled_itself(module)


def _has_matrix(module: torch.nn.Module) -> bool:
    return any(weight.dim() > 1 for weight in module.parameters(recurse=False))


@contextmanager
def _compiled_counted(module: torch.nn.Module, count: Callable[[torch.nn.Module], None]) -> Iterator[None]:
    """Count the calls of compiled code before it is entered, so that Dynamo sees nothing of it."""
    compiled: Any = module._compiled_call_impl  # noqa: SLF001 - a hook would be compiled into the code

    def counted(*args: Any, **kwargs: Any) -> Any:
        count(module)
        return compiled(*args, **kwargs)

    module._compiled_call_impl = counted  # noqa: SLF001
    try:
        yield
    finally:
        if module._compiled_call_impl is counted:  # noqa: SLF001
            module._compiled_call_impl = compiled  # noqa: SLF001
