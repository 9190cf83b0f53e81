"""Recipes and their registry: names, folders, Hub ids, sources, rules."""

import dataclasses
from pathlib import Path

import pytest

from pytest_mxq.errors import MxqError, UnknownNameError
from pytest_mxq.models import ModelRegistry, SelectionRule, built_in_models
from pytest_mxq.models.demo import DEMO


def test_a_model_is_a_name_a_folder_or_a_hub_id(tmp_path: Path) -> None:
    registry = ModelRegistry()
    for recipe in built_in_models():
        registry.register(recipe)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model_index.json").write_text("{}")
    assert registry.find("demo", beside=tmp_path) is DEMO
    assert registry.find("mine", beside=tmp_path).source == str(tmp_path / "mine")
    assert registry.find("owner/name", beside=tmp_path).source == "owner/name"
    with pytest.raises(
        UnknownNameError, match=r"unknown model 'demp' \(did you mean 'demo'\?\); models: demo, .*; or a Hub id"
    ):
        registry.find("demp", beside=tmp_path)


def test_a_recipe_knows_its_rules_by_name() -> None:
    other = SelectionRule(min_features=7)
    recipe = dataclasses.replace(DEMO, alternatives={"intended": other})
    assert recipe.selection("published") is DEMO.rule
    assert recipe.selection("intended") is other
    with pytest.raises(MxqError, match=r"unknown selection 'mine'; selections: published, intended"):
        recipe.selection("mine")


def registry() -> ModelRegistry:
    models = ModelRegistry()
    for recipe in built_in_models():
        models.register(recipe)
    return models


@pytest.mark.parametrize("name", ["flux.1-dev", "qwen-image", "ltx-2"])
def test_the_hub_id_of_a_built_in_model_is_that_model(name: str, tmp_path: Path) -> None:
    recipe = registry().find(name, beside=tmp_path)
    assert "/" in recipe.source
    assert registry().find(recipe.source, beside=tmp_path) is recipe


def test_a_built_in_model_can_be_pointed_at_a_local_folder_and_keeps_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    models = registry()
    models.point("ltx-2", tmp_path)
    found = models.find("ltx-2", beside=tmp_path)
    original = registry().find("ltx-2", beside=tmp_path)
    assert found == dataclasses.replace(original, source=str(tmp_path), revision=None)


@pytest.mark.parametrize(
    ("name", "said"),
    [("flux", "unknown model 'flux'"), ("ltx-2", "nowhere holds no model_index.json; ltx-2= must name")],
)
def test_a_source_that_is_none_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(MxqError, match=said):
        registry().point(name, tmp_path / "nowhere")
