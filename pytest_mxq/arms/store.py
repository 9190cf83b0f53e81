"""Building arms once and reusing them: one base model at a time, one quantized arm beside it."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from pytest_mxq.arms.compile import compile_blocks
from pytest_mxq.arms.load import load_pipeline
from pytest_mxq.arms.quantize import Chosen, choose_layers, collect_evidence, quantize_layers, share_copy
from pytest_mxq.formats import Format
from pytest_mxq.gates.verdict import Evidence
from pytest_mxq.models import Recipe
from pytest_mxq.settings import Execution


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One pipeline in one format.

    Attributes:
        pipe: the pipeline.
        weights: name of its weights, for a case's identity.
        evidence: proof of quantization; None for BF16.
        chosen: what the rule chose; None for BF16.
    """

    pipe: Any
    weights: str
    evidence: Evidence | None = None
    chosen: Chosen | None = None


class ArmStore:
    """The arms of a session.

    What is resident: the base pipeline in BF16 and, beside it, the quantized parameters of one arm, which shares
    every other tensor with the base (a compiled BF16 arm shares all). Asking for another model frees them first.

    Attributes:
        builds: how often each arm was built, by (model, format).
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._base_key: tuple[Recipe, str | None] | None = None
        self._base: Arm | None = None
        self._arms: dict[str, tuple[tuple[object, ...], Arm]] = {}  # "bf16" compiled, and one "quantized"
        self.builds: Counter[tuple[str, str]] = Counter()

    def base(self, recipe: Recipe, revision: str | None) -> Arm:
        """The BF16 arm of a recipe, loaded at the first request.

        Raises:
            MxqError: its weights cannot be had.
        """
        key = (recipe, revision)
        if self._base is None or self._base_key != key:
            self.release()
            loaded = load_pipeline(recipe, revision=revision, device=self._device)
            self._base = Arm(pipe=loaded.pipe, weights=loaded.weights)
            self._base_key = key
            self.builds[recipe.name, "bf16"] += 1
        return self._base

    def arm(
        self,
        recipe: Recipe,
        revision: str | None,
        number_format: Format | None,
        *,
        emulated: bool,
        execution: Execution = Execution.EAGER,
    ) -> Arm:
        """The arm of a recipe in a format (None: BF16), quantized and compiled at the first request."""
        base = self.base(recipe, revision)
        if number_format is None and execution is Execution.EAGER:
            return base
        slot = "quantized" if number_format else "bf16"
        key = (recipe, revision, number_format, emulated, execution)
        if slot not in self._arms or self._arms[slot][0] != key:
            self._arms.pop(slot, None)
            _collect()
            arm = self._build(recipe, base, number_format, emulated=emulated, execution=execution)
            self._arms[slot] = key, arm
            self.builds[recipe.name, number_format.name if number_format else "bf16-compiled"] += 1
        return self._arms[slot][1]

    def choose(self, recipe: Recipe, revision: str | None, number_format: Format) -> Chosen:
        """The layers that would be quantized."""
        return choose_layers(getattr(self.base(recipe, revision).pipe, recipe.denoiser), recipe.rule, number_format)

    def release(self) -> None:
        """Free every arm."""
        self._arms.clear()
        self._base = self._base_key = None
        _collect()

    def _build(
        self, recipe: Recipe, base: Arm, number_format: Format | None, *, emulated: bool, execution: Execution
    ) -> Arm:
        original = getattr(base.pipe, recipe.denoiser)
        denoiser = share_copy(original)
        chosen = evidence = None
        if number_format is not None:
            chosen = choose_layers(original, recipe.rule, number_format)
            quantize_layers(denoiser, chosen, number_format, emulated=emulated)
            evidence = collect_evidence(denoiser, chosen)
        if execution is Execution.AS_SPEED:
            compile_blocks(denoiser)
        pipe = type(base.pipe)(**{**base.pipe.components, recipe.denoiser: denoiser})
        pipe.set_progress_bar_config(disable=True)
        return Arm(pipe=pipe, weights=base.weights, evidence=evidence, chosen=chosen)


def _collect() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
