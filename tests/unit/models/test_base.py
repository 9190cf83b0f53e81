"""Recipes and their registry: names, folders behind links, Hub ids, sources, rules."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_mxq.errors import MxqError, UnknownNameError
from pytest_mxq.models import ModelRegistry, SelectionRule, built_in_models
from pytest_mxq.models.demo import DEMO


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose models/ours is a link to a folder of another name."""
    target = tmp_path / "store" / "snapshot-1f3a"
    target.mkdir(parents=True)
    (target / "model_index.json").touch()
    (tmp_path / "project" / "models").mkdir(parents=True)
    (tmp_path / "project" / "models" / "ours").symlink_to(target, target_is_directory=True)
    return tmp_path / "project"


@pytest.mark.parametrize("written", ["models/ours", "./models/ours/", "models/../models/ours", "{project}/models/ours"])
@pytest.mark.parametrize("working_directory", [".", "models", "models/ours", "/"])
def test_a_folder_behind_a_link_has_the_name_that_was_written_from_every_working_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch, written: str, working_directory: str
) -> None:
    monkeypatch.chdir(project / working_directory)
    recipe = ModelRegistry().find(written.format(project=project), beside=project)
    assert recipe.name == "ours"
    assert Path(recipe.source).samefile(project / "models" / "ours")


def test_the_folder_itself_written_as_a_dot_has_its_own_name(project: Path) -> None:
    assert ModelRegistry().find(".", beside=project / "models" / "ours").name == "ours"


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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "../x"),
        ("name", 3),
        ("source", None),
        ("rule", None),
        ("alternatives", None),
        ("alternatives", {"wide": 3}),
        ("call", None),
        ("prompts", None),
        ("prompts", "a cat"),
        ("prompts", ()),
        ("prompts", ("a cat", 3)),
        ("min_share", 0),
        ("min_share", 1.5),
        ("memory", 3),
    ],
)
def test_a_recipe_with_a_field_of_another_kind_cannot_be_made(field: str, value: object) -> None:
    changes: dict[str, Any] = {field: value}
    with pytest.raises(MxqError, match=re.escape(repr(value))) as caught:
        dataclasses.replace(DEMO, **changes)
    assert field in str(caught.value)
