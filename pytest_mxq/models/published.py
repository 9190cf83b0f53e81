"""What a published measurement of a model is; the numbers stand in the models' own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

# What the published numbers were made with, by name of the package.
PUBLISHED_STACK: Mapping[str, str] = MappingProxyType(
    {"torch": "2.12.0.dev20260315+cu130", "torchao": "0.17.0.dev20260316+cu130", "mslk-cuda": "2026.3.15+cu130"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRun:
    """One published measurement.

    Attributes:
        format: name of the number format, or "bf16".
        batch_size: images of the one prompt in a call.
        seconds: mean latency of a call, compiled.
        peak_gb: peak of allocated memory, in 10**9 bytes.
        speedup: against BF16 at the same batch size, rounded by the publisher.
    """

    format: str
    batch_size: int
    seconds: float
    peak_gb: float
    speedup: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLpips:
    """A published mean LPIPS (alex, DrawBench's 200 prompts, seed 0) against BF16.

    Attributes:
        format: name of the number format.
        selective: with the rule above.
        all_layers: with every Linear quantized; None: not published.
    """

    format: str
    selective: float
    all_layers: float | None = None
