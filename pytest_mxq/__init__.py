"""pytest-mxq: a pytest plugin that gates the quantization of diffusion models on accuracy and speed.

What a project of its own needs is here: what the hooks return, and what tests annotate with. Everything else is
private, but for `pytest_mxq.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_mxq.fixtures import MxqPipeline
    from pytest_mxq.formats import BatchCaution, Format
    from pytest_mxq.gates.base import AccuracyGate, Gate, Scale
    from pytest_mxq.gates.bounds import Bound, MarkerArguments
    from pytest_mxq.gates.external import score_by_command
    from pytest_mxq.gates.memory import MemoryBound, MemoryFacts, MemoryGate
    from pytest_mxq.gates.outcome import Outcome
    from pytest_mxq.gates.speedup import SpeedBound, SpeedFacts, SpeedGate, SpeedSamples
    from pytest_mxq.models import MemoryNeed, Recipe, SelectionRule, SkipPattern

    __version__: str

__all__ = [
    "AccuracyGate",
    "BatchCaution",
    "Bound",
    "Format",
    "Gate",
    "MarkerArguments",
    "MemoryBound",
    "MemoryFacts",
    "MemoryGate",
    "MemoryNeed",
    "MxqPipeline",
    "Outcome",
    "Recipe",
    "Scale",
    "SelectionRule",
    "SkipPattern",
    "SpeedBound",
    "SpeedFacts",
    "SpeedGate",
    "SpeedSamples",
    "__version__",
    "score_by_command",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: pytest imports this package in every run of every project."""
    if name == "__version__":
        from importlib.metadata import version

        return version("pytest-mxq")
    if name not in __all__:
        raise AttributeError(f"module 'pytest_mxq' has no attribute {name!r}; public names: {', '.join(__all__)}")
    from pytest_mxq.fixtures import MxqPipeline
    from pytest_mxq.formats import BatchCaution, Format
    from pytest_mxq.gates.base import AccuracyGate, Gate, Scale
    from pytest_mxq.gates.bounds import Bound, MarkerArguments
    from pytest_mxq.gates.external import score_by_command
    from pytest_mxq.gates.memory import MemoryBound, MemoryFacts, MemoryGate
    from pytest_mxq.gates.outcome import Outcome
    from pytest_mxq.gates.speedup import SpeedBound, SpeedFacts, SpeedGate, SpeedSamples
    from pytest_mxq.models import MemoryNeed, Recipe, SelectionRule, SkipPattern

    public = (
        AccuracyGate,
        BatchCaution,
        Bound,
        Format,
        Gate,
        MarkerArguments,
        MemoryBound,
        MemoryFacts,
        MemoryGate,
        MemoryNeed,
        MxqPipeline,
        Outcome,
        Recipe,
        Scale,
        SelectionRule,
        SkipPattern,
        SpeedBound,
        SpeedFacts,
        SpeedSamples,
    )
    return {entry.__name__: entry for entry in (*public, SpeedGate, score_by_command)}[name]
