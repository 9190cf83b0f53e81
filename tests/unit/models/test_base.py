"""A model that is not registered: the name of its folder is the one that the test wrote."""

from pathlib import Path

import pytest

from pytest_mxq.models import ModelRegistry


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
