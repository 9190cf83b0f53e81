"""The published models at tiny sizes, with random weights: what a trial of a benchmark runs on a CPU."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from pytest_mxq.models import Recipe, flux, ltx2, qwen_image

WIDTH = 320
"""Width of the tiny denoisers; read for 1024, every layer's decision is that of the full size."""
SMALL = {"height": 64, "width": 64}


def _tiny(recipe: Recipe, random: Callable[[], Any], **call: Any) -> Recipe:
    rules = {name: replace(rule, min_features=WIDTH) for name, rule in recipe.alternatives.items()}
    return replace(
        recipe,
        random=random,
        rule=replace(recipe.rule, min_features=WIDTH),
        alternatives=rules,
        call={**recipe.call, **SMALL, **call},
        memory=None,
    )


TINY_RECIPES = {
    recipe.name: recipe
    for recipe in (
        _tiny(flux.FLUX_1_DEV, partial(flux.build_flux, flux.TINY_SIZE), max_sequence_length=16),
        _tiny(qwen_image.QWEN_IMAGE, partial(qwen_image.build_qwen_image, qwen_image.TINY_SIZE)),
        _tiny(ltx2.LTX_2, partial(ltx2.build_ltx2, ltx2.TINY_SIZE), num_frames=9, max_sequence_length=64),
    )
}
"""The tiny recipes, by the models' own names."""
