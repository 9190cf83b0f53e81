"""Loading: where the weights come from, what they are called, and what is said when they are not available."""

import errno
import logging
import re
import shlex
import shutil
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub.cli import download as hf_download
from huggingface_hub.cli.hf import app
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    IncompleteSnapshotError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects, httpx  # type: ignore[attr-defined]
from safetensors.torch import load_file, save_file

from pytest_mxq.errors import MxqError, WeightsUnavailableError
from pytest_mxq.models import GENERIC_RULE, ModelSource, Recipe
from pytest_mxq.models.demo import DEMO
from pytest_mxq.pipelines.cache import ArmStore
from pytest_mxq.pipelines.hub import download_command
from pytest_mxq.pipelines.load import LoadedPipeline, load_pipeline
from pytest_mxq.pipelines.weights_names import folder_digest


def test_the_packaged_model_loads_in_bf16_with_a_float32_vae_on_the_cpu(capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load_pipeline(DEMO, revision=None, device="cpu")
    assert loaded.pipe.transformer.dtype is torch.bfloat16
    assert loaded.pipe.vae.dtype is torch.float32
    assert loaded.weights == f"folder:{folder_digest(Path(DEMO.source))}"
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_other_weights_have_another_name_and_moved_ones_the_same(tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(DEMO.source, copy)
    assert folder_digest(copy) == folder_digest(Path(DEMO.source))
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = {name: tensor * 1.01 for name, tensor in load_file(file).items()}
    save_file(weights, file)
    assert folder_digest(copy) != folder_digest(Path(DEMO.source))


TOKEN = "hf_aSecretThatNobodyMaySee"
SOURCE = "owner/model"


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token in the environment and none of an earlier login, and an empty cache."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def token(no_token: None, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


def answer(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    """What the Hub client raises for an answer; its text shows the request's headers, as no real one does."""
    request = httpx.Request("GET", f"https://huggingface.co/api/models/{SOURCE}")
    text = f"{status} Client Error. authorization: Bearer {TOKEN}"
    return kind(text, response=httpx.Response(status, request=request))


def refused(error: Exception, monkeypatch: pytest.MonkeyPatch, revision: str | None = None) -> MxqError:
    """The error of loading where diffusers asks the Hub and gets this one."""

    def model_info(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.model_info", model_info)
    with pytest.raises(MxqError) as caught:
        load_pipeline(Recipe(name="x", source=SOURCE, rule=GENERIC_RULE), revision=revision, device="cpu")
    return caught.value


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            answer(GatedRepoError, 401),
            r"it is gated and no token is set; accept its licence at https://huggingface\.co/owner/model, then set "
            r"HF_TOKEN",
        ),
        (answer(RepositoryNotFoundError, 401), "there is no public model 'owner/model'; check the id, or set HF_TOKEN"),
        (
            answer(RevisionNotFoundError, 404),
            r"there is no revision 'v9'; .*https://huggingface\.co/owner/model/commits",
        ),
        (answer(RemoteEntryNotFoundError, 404), r"it lacks a file that a diffusers pipeline has \(model_index\.json\)"),
        (answer(HfHubHTTPError, 503), "the Hub answered 503; try again later"),
        (httpx.ConnectError("[Errno -2] Name or service not known"), r"cannot be reached and the cache .*hub does not"),
        (httpx.ConnectTimeout("timed out"), "the Hub cannot be reached"),
        (
            OfflineModeIsEnabled("offline"),
            r"HF_HUB_OFFLINE is set and the cache .*hub does not hold all of it; unset it",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"disk of the cache .*hub is full \(\d+\.\d GiB free\); free",
        ),
        (RuntimeError("something\nelse"), "RuntimeError: something$"),
    ],
)
def test_without_a_token_each_reason_is_told_apart_and_says_what_to_do(
    no_token: None, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    found = str(refused(error, monkeypatch, revision="v9"))
    assert found.startswith("the weights of 'owner/model' (revision v9) are not available: ")
    assert re.search(said, found), found


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answer(GatedRepoError, 403), "it is gated and the token's account may not read it; accept its licence at"),
        (answer(RepositoryNotFoundError, 404), "there is no model 'owner/model' that the token's account may see"),
        (
            answer(RepositoryNotFoundError, 401),
            r"does not know the token that HF_TOKEN or a login gives \(401\); make a",
        ),
        (
            answer(HfHubHTTPError, 401),
            r"does not know the token that HF_TOKEN or a login gives \(401\); make a new one",
        ),
        (answer(HfHubHTTPError, 403), r"the token may not read 'owner/model' \(403\); give it permission"),
        (RuntimeError(f"Bearer {TOKEN} failed"), r"RuntimeError: Bearer \*\*\* failed$"),
    ],
)
def test_a_token_that_does_not_serve_is_told_apart_and_never_shown(
    token: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    said: str,
) -> None:
    diffusers_log = logging.getLogger("diffusers")
    monkeypatch.setattr(diffusers_log, "propagate", True)
    found = refused(error, monkeypatch)
    assert re.search(said, str(found)), found
    captured = capfd.readouterr()
    shown = "".join(traceback.format_exception(found)) + captured.out + captured.err + caplog.text
    assert token not in shown
    assert diffusers_log.level != logging.CRITICAL


def test_an_error_of_a_single_file_counts_as_that_of_the_listing(
    no_token: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gated model's list of files is public; its first file is refused."""

    def download(*_: Any, **__: Any) -> Any:
        raise answer(GatedRepoError, 401)

    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.model_info", lambda *_, **__: SimpleNamespace(siblings=[]))
    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.hf_hub_download", download)
    with pytest.raises(WeightsUnavailableError, match="it is gated and no token is set"):
        load_pipeline(Recipe(name="x", source=SOURCE, rule=GENERIC_RULE), revision=None, device="cpu")


def test_a_part_in_the_cache_is_completed_with_a_network(no_token: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> Any:
        raise IncompleteSnapshotError("3 files are missing", "/somewhere")

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    with pytest.raises(
        WeightsUnavailableError, match=r"holds a part of it .* complete it: hf download owner/model --revision main"
    ):
        load_pipeline(Recipe(name="x", source=SOURCE, rule=GENERIC_RULE), revision=None, device="cpu")


def test_offline_with_an_empty_cache_says_so_without_asking_the_hub(
    token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    recipe = Recipe(name="x", source="nobody/nothing-here", rule=GENERIC_RULE)
    with pytest.raises(WeightsUnavailableError, match="HF_HUB_OFFLINE is set") as caught:
        load_pipeline(recipe, revision="abc", device="cpu")
    assert "'nobody/nothing-here' (revision abc)" in str(caught.value)
    assert "hf download nobody/nothing-here --revision abc" in str(caught.value)


def test_the_pinned_revision_is_what_is_fetched_and_names_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(source: str, *, revision: str | None, **_: Any) -> str:
        asked.append((source, revision))
        return DEMO.source

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    recipe = replace(DEMO, source=SOURCE, revision="pinned")
    assert load_pipeline(recipe, revision=None, device="cpu").weights == f"hub:{SOURCE}@{Path(DEMO.source).name}"
    load_pipeline(recipe, revision="of the test", device="cpu")
    assert asked == [(SOURCE, "pinned"), (SOURCE, "of the test")]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda folder: (folder / "text_encoder" / "model.safetensors").unlink(),
            "Error no file named model.safetensors",
        ),
        (lambda folder: _truncate(folder / "text_encoder" / "model.safetensors"), "SafetensorError"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "is not a valid JSON file"),
    ],
)
def test_a_damaged_folder_is_named_with_what_to_do(tmp_path: Path, damage: Callable[[Path], object], said: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEMO.source, folder)
    damage(folder)
    with pytest.raises(MxqError, match=said) as caught:
        load_pipeline(replace(DEMO, source=str(folder)), revision=None, device="cpu")
    assert f"model 'demo': {folder} cannot be loaded" in str(caught.value)
    assert "save it again with save_pretrained" in str(caught.value)


def test_a_damaged_file_of_the_cache_is_fetched_again_at_the_revision_that_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEMO.source, folder)
    (folder / "model_index.json").write_text("{")
    monkeypatch.setattr(DiffusionPipeline, "download", lambda *_, **__: str(folder))
    recipe = replace(DEMO, source=SOURCE, revision="pinned")
    for revision, read in ((None, "pinned"), ("of-the-test", "of-the-test")):
        with pytest.raises(MxqError, match="cannot be loaded") as caught:
            load_pipeline(recipe, revision=revision, device="cpu")
        assert str(caught.value).endswith(f"fetch it again: {download_command(SOURCE, read)} --force-download")


@pytest.mark.parametrize(("revision", "asked"), [("v9", "v9"), (None, "main")])
def test_the_command_fetches_what_is_read_and_no_checkpoint_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, revision: str | None, asked: str
) -> None:
    seen: list[dict[str, Any]] = []

    def download(**given: Any) -> str:
        seen.append(given)
        return str(tmp_path)

    monkeypatch.setattr(hf_download, "snapshot_download", download)
    words = shlex.split(download_command(SOURCE, revision))
    assert words[:2] == ["hf", "download"]
    app(words[1:], standalone_mode=False)
    (given,) = seen
    assert (given["repo_id"], given["revision"]) == (SOURCE, asked)
    files = ("model_index.json", "vae/config.json", "transformer/model.safetensors", "checkpoint.safetensors", "a.png")
    fetched = filter_repo_objects(files, allow_patterns=given["allow_patterns"], ignore_patterns=None)
    assert list(fetched) == list(files[:3])


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100_000])


def test_a_hub_that_is_out_of_reach_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(recipe: Recipe, *, revision: str | None, device: str) -> LoadedPipeline:
        asked.append(revision)
        raise WeightsUnavailableError("no network")

    monkeypatch.setattr("pytest_mxq.pipelines.cache.load_pipeline", unreachable)
    arms = ArmStore("cpu")
    for revision in ("a", "a", "b"):
        with pytest.raises(WeightsUnavailableError, match="no network"):
            arms.base(ModelSource(recipe=DEMO, revision=revision))
    assert asked == ["a", "b"]
