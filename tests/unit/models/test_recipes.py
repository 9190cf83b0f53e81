"""What holds for every published recipe: its rule against the model's own shapes, its numbers against each other."""

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest
from recipe_facts import PUBLISHED, check_memory, check_speedup, forward_of, full_size, linears, skipped

from pytest_mxq.models import SelectionRule, built_in_models
from pytest_mxq.models.published import PublishedRun

MODELS = pytest.mark.parametrize("name", PUBLISHED)
SELECTIONS = pytest.mark.parametrize(
    ("name", "selection"),
    [(name, selection) for name, model in PUBLISHED.items() for selection in ("published", *model.recipe.alternatives)],
)
RUNS = pytest.mark.parametrize(
    ("name", "run"),
    [
        pytest.param(name, run, id=f"{name}-{run.format}-{run.batch_size}")
        for name, model in PUBLISHED.items()
        for run in model.runs
    ],
)


def decisions(pipe: Any, rule: SelectionRule) -> dict[str, bool]:
    """Return for each layer, under the name that all blocks share, whether the rule skips it."""
    layers = linears(pipe.transformer)
    stay = skipped(layers, rule)
    return {re.sub(r"\d+\.", "N.", name, count=1): name in stay for name in layers}


@SELECTIONS
def test_every_pattern_of_a_rule_matches_a_layer_and_gives_a_reason(name: str, selection: str) -> None:
    names = linears(full_size(name).transformer)
    for clause in PUBLISHED[name].recipe.selection(selection).skip:
        assert any(map(clause.matches, names)), clause
        assert clause.reason


@SELECTIONS
def test_at_the_tiny_size_each_layer_s_decision_is_that_of_the_full_size(name: str, selection: str) -> None:
    model = PUBLISHED[name]
    rule = model.recipe.selection(selection)
    tiny = decisions(model.built(model.tiny), dataclasses.replace(rule, min_features=320))
    assert tiny == decisions(full_size(name), rule)


@RUNS
def test_the_published_memory_is_what_the_published_rule_saves(name: str, run: PublishedRun) -> None:
    forward, model = forward_of(name), PUBLISHED[name]
    check_memory(run, model.runs, forward.weights(forward.quantized(model.recipe.rule)))


@RUNS
def test_the_published_speedups_follow_from_the_published_latencies(name: str, run: PublishedRun) -> None:
    check_speedup(run, PUBLISHED[name].runs, rounding=PUBLISHED[name].rounding)


@MODELS
def test_the_memory_that_a_recipe_states_is_the_published_peak_of_bf16(name: str) -> None:
    need = PUBLISHED[name].recipe.memory
    assert need is not None
    for run in PUBLISHED[name].runs:
        if run.format == "bf16":
            peak = need.weights + need.call + run.batch_size * need.image
            assert peak == pytest.approx(run.peak_gb * 1e9 / 2**30, rel=0.01), run


@MODELS
def test_a_recipe_comes_with_the_package_and_names_one_commit_of_its_weights(name: str) -> None:
    recipe = PUBLISHED[name].recipe
    assert recipe in built_in_models()
    assert re.fullmatch("[0-9a-f]{40}", recipe.revision or "")


def test_reading_the_recipes_imports_no_torch() -> None:
    code = "import sys; import pytest_mxq.models; assert not {'torch', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
