from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest

from pytest_mxq.models import ModelSource
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines.weights_names import folder_digest, known_weights, same_weights

COMMIT, OTHER = "a" * 40, "b" * 40
HUB = replace(DEMO, source="owner/model", revision=None)


def test_the_weights_of_a_folder_are_known() -> None:
    assert known_weights(ModelSource(recipe=DEMO)) == f"folder:{folder_digest(Path(DEMO.source))}"


def test_random_weights_are_known_when_they_are_made() -> None:
    assert known_weights(ModelSource(recipe=DEMO, random=True)) is None


@pytest.mark.parametrize(("recipe", "test"), [(COMMIT, None), (OTHER, COMMIT), ("main", COMMIT)])
def test_the_weights_of_a_commit_are_known(recipe: str, test: str | None) -> None:
    source = ModelSource(recipe=replace(HUB, revision=recipe), revision=test)
    assert known_weights(source) == f"hub:owner/model@{COMMIT}"


@pytest.mark.parametrize("revision", [None, "main", "v2"])
def test_those_of_a_branch_are_known_offline_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    cached = tmp_path / "models--owner--model"
    (cached / "snapshots" / COMMIT).mkdir(parents=True)
    (cached / "snapshots" / COMMIT / "model_index.json").write_text("{}")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    source = ModelSource(recipe=HUB, revision=revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert known_weights(source) is None
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert known_weights(source) == (None if revision == "v2" else f"hub:owner/model@{COMMIT}")


def test_a_stored_name_may_have_a_variant_that_the_known_one_lacks() -> None:
    assert same_weights("folder:0123", "folder:0123 variant fp16")
    assert not same_weights("folder:0123", "folder:01234")
