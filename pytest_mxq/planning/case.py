"""The case of a test: one workload on one model with its settings, which a baseline belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_mxq.errors import CaseFaultError
from pytest_mxq.gates.memory import SHORT_STEPS
from pytest_mxq.models import ModelSource
from pytest_mxq.planning.settings import PromptSet

if TYPE_CHECKING:
    from pytest_mxq.models import Recipe, SelectionRule
    from pytest_mxq.planning.settings import CaseSettings


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test's workload on one model with its settings.

    Attributes:
        prompts: the prompts in the order in which they are generated; empty until a named set has been fetched.
        random_weights: whether it runs on random weights (speed and memory alone).
        is_timed: whether the test has a gate of speed or memory.
        plugin_ids: ids of the parameters that another plugin gave the test, such as its repetitions: they share a
            baseline, but nothing of what a run generates.
    """

    recipe: Recipe
    name: str
    settings: CaseSettings
    prompts: tuple[str, ...]
    random_weights: bool = False
    is_timed: bool = False
    plugin_ids: tuple[str, ...] = ()

    @property
    def source(self) -> ModelSource:
        """What its arms are built from."""
        return ModelSource(recipe=self.recipe, revision=self.settings.revision, random=self.random_weights)

    @property
    def rule(self) -> SelectionRule:
        """Which layers of its quantized arms are quantized."""
        return self.recipe.selection(self.settings.selection)

    @property
    def key(self) -> tuple[str, ...]:
        """What no two workloads of a session share: the model, the case's name, and other plugins' parameters."""
        return self.recipe.name, self.name, *self.plugin_ids

    @cached_property
    def drift_check_chunks(self) -> tuple[int, ...]:
        """Chunks that are regenerated in BF16 to check for reference drift: two images where there are two."""
        last = (len(self.prompts) - 1) // self.settings.batch_size
        return (0,) if self.settings.batch_size > 1 or last == 0 else (0, last)

    @property
    def usual_steps(self) -> int | None:
        """Steps of the model's own call, where their number can be set; otherwise None."""
        argument = self.recipe.steps
        usual = None if argument is None else self.recipe.call.get(argument)
        return usual if isinstance(usual, int) else None

    @property
    def short_steps(self) -> int | None:
        """Steps of a short call; None where the model's number of steps cannot be set, or is no larger."""
        return SHORT_STEPS if (self.usual_steps or 0) > SHORT_STEPS else None

    @property
    def min_share(self) -> float:
        """Smallest share of the Linear weights that must be quantized."""
        return self.recipe.min_share if self.settings.min_share is None else self.settings.min_share


def stated_prompts(settings: CaseSettings, recipe: Recipe) -> tuple[str, ...]:
    """Return the prompts of a case as far as they are known at collection: none of a named set, which is fetched later.

    Raises:
        CaseFaultError: more prompts than the model has.
    """
    if isinstance(settings.prompts, PromptSet):
        return ()
    if isinstance(settings.prompts, tuple):
        return settings.prompts
    count = len(recipe.prompts) if settings.prompts is None else settings.prompts
    if count > len(recipe.prompts):
        raise CaseFaultError(
            f"mxq(prompts={count}): model {recipe.name!r} has {len(recipe.prompts)} prompts; "
            f"at most that many, or a list of your own"
        )
    return recipe.prompts[:count]
