"""Each model's tiny pipeline, saved, loaded, and taken through the plugin as a user's project would: refresh, then gates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gate_bench import without_compiler

from pytest_mxq.formats import built_in_formats
from pytest_mxq.models import Recipe, built_in_models
from pytest_mxq.pipelines.load import load_pipeline
from pytest_mxq.pipelines.quantize import choose_layers
from pytest_mxq.pipelines.weights_names import folder_digest

NAMES = ("flux.1-dev", "qwen-image")  # models of images; a video is no image
RECIPES = {recipe.name: recipe for recipe in built_in_models()}
THRESHOLD = 320  # the tiny denoisers' width; at it each layer's decision is that of the full size at 1024
# A token is a letter here, so that a prompt has more of them.
SMALL = {"height": 64, "width": 64, "num_inference_steps": 3}
CALLS = {"flux.1-dev": {**SMALL, "max_sequence_length": 96}, "qwen-image": SMALL}

CONFTEST = """
from dataclasses import replace

import torch
from own_formats import own_format
from pytest_mxq.models import built_in_models

def pytest_mxq_models():
    (recipe,) = [recipe for recipe in built_in_models() if recipe.name == {name!r}]
    rule = replace(recipe.rule, min_features={threshold})
    tiny = replace(
        recipe, name="tiny", source={folder!r}, call={{**recipe.call, **{call!r}}}, rule=rule, alternatives={{}},
        memory=None,
    )
    nothing = replace(tiny, name="nothing-matches", rule=replace(rule, min_features=4096))
    return [tiny, nothing]

def pytest_mxq_formats():
    return [own_format("nan", lambda weight: weight * torch.nan), own_format("zeros", torch.zeros_like)]
"""

TESTS = """
import pytest

bounds = pytest.mark.mxq_lpips(max={{"mxfp8": 0.01, "nvfp4": 0.03, "nan": 0.03, "zeros": 0.03}})

@pytest.mark.mxq("tiny", prompts=3)
@bounds
def test_tiny(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)

@pytest.mark.mxq("tiny", prompts=2, batch_size=2)
@bounds
def test_changed(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt, num_inference_steps={steps})

@pytest.mark.mxq("nothing-matches", prompts=1)
@bounds
def test_nothing(mxq_pipeline, mxq_prompt):
    return mxq_pipeline(mxq_prompt)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What two runs of pytest said: the refresh's verdict of each test, and the gates' of each test and format."""

    refreshed: dict[str, dict[str, Any]]
    judged: dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every tiny pipeline, saved."""
    root = tmp_path_factory.mktemp("tiny")
    for name in NAMES:
        save(name, root / name)
    return {name: root / name for name in NAMES}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a busy two-core machine are slower than one
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sessions() -> dict[str, Session]:
    """What was run already: one run serves every test of a model."""
    return {}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(
    name: str,
    sessions: dict[str, Session],
    folders: dict[str, Path],
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
) -> Session:
    if name not in sessions:
        loaded(name, folders)  # imports what pytester would forget between its runs
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.delenv("CI", raising=False)
        without_compiler(monkeypatch)
        pytester.makeini("[pytest]\n")
        pytester.makeconftest(
            CONFTEST.format(name=name, threshold=THRESHOLD, folder=str(folders[name]), call=CALLS[name])
        )
        sessions[name] = run(pytester)
    return sessions[name]


def run(pytester: pytest.Pytester) -> Session:
    pytester.makepyfile(test_it=TESTS.format(steps=3))
    refreshed = verdicts(pytester, "--mxq-refresh")
    pytester.makepyfile(test_it=TESTS.format(steps=2))
    judged = verdicts(pytester, "--mxq-formats=mxfp8,nvfp4,nan,zeros", "--mxq-emulate")
    return Session(
        refreshed={record["cell"]["case"]: record for record in refreshed},
        judged={(record["cell"]["case"], record["cell"]["format"]): record for record in judged},
    )


def verdicts(pytester: pytest.Pytester, *options: str) -> list[dict[str, Any]]:
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:randomly", *options)
    assert done.ret in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}, done.stdout.str()
    document = json.loads((pytester.path / "mxq-report" / "report.json").read_text())
    records: list[dict[str, Any]] = document["verdicts"]
    return records


def save(name: str, folder: Path) -> None:
    builder: Callable[[Path], None] | None = RECIPES[name].save_tiny
    assert builder is not None
    builder(folder)


def recipe_of(name: str, folders: dict[str, Path]) -> Recipe:
    recipe = RECIPES[name]
    return replace(recipe, source=str(folders[name]), rule=replace(recipe.rule, min_features=THRESHOLD))


def loaded(name: str, folders: dict[str, Path]) -> Any:
    return load_pipeline(recipe_of(name, folders), revision=None, device="cpu").pipe


def test_a_refresh_stores_a_baseline_of_each_test(session: Session) -> None:
    assert {case: record["outcome"] for case, record in session.refreshed.items()} == dict.fromkeys(
        ("test_tiny", "test_changed", "test_nothing"), "refreshed"
    )


def test_both_published_formats_pass_against_the_stored_images(name: str, session: Session) -> None:
    eight, four = (session.judged["test_tiny", number_format] for number_format in ("mxfp8", "nvfp4"))
    assert (eight["outcome"], four["outcome"]) == ("pass", "pass"), (eight["sentence"], four["sentence"])
    assert eight["reference"]["mode"] == "stored"
    assert [(drift["gate"], drift["value"]) for drift in eight["reference"]["drift"]] == [("lpips", None)]  # same bits
    assert 0 < eight["observed"] < four["observed"]
    assert eight["emulated"]
    assert eight["evidence"]["quantized"] == four["evidence"]["quantized"]
    assert eight["evidence"]["weight_share"] > RECIPES[name].min_share


def test_layers_of_zeros_are_a_regression(session: Session) -> None:
    """The denoiser matters to the image, so that the gate can tell: not a matter of course in a model this small."""
    zeros, four = (session.judged["test_tiny", number_format] for number_format in ("zeros", "nvfp4"))
    assert zeros["outcome"] == "regression"
    assert zeros["observed"] > 2 * four["observed"]


def test_a_baseline_of_more_steps_is_stale(session: Session) -> None:
    for number_format in ("mxfp8", "nvfp4"):
        record = session.judged["test_changed", number_format]
        assert record["outcome"] == "stale"
        assert "num_inference_steps 3 -> 2" in record["sentence"]


def test_nan_from_the_denoiser_is_degenerate(session: Session) -> None:
    record = session.judged["test_tiny", "nan"]
    assert record["outcome"] == "degenerate"
    assert "not-finite" in record["sentence"]


def test_a_rule_that_matches_nothing_is_not_quantized(session: Session) -> None:
    for number_format in ("mxfp8", "nvfp4"):
        record = session.judged["test_nothing", number_format]
        assert record["outcome"] == "not-quantized"
        assert "none of" in record["sentence"]


def test_it_loads_in_bf16_with_a_vae_that_decodes_in_float32_on_the_cpu(name: str, folders: dict[str, Path]) -> None:
    pipe = loaded(name, folders)
    assert pipe.transformer.dtype is pipe.text_encoder.dtype is torch.bfloat16
    assert pipe.vae.dtype is torch.float32
    call = {**RECIPES[name].call, **CALLS[name]}
    generated = pipe("a cat", **call, output_type="pt", generator=torch.Generator().manual_seed(0)).images
    assert generated.dtype is torch.float32
    assert generated.std() > 0.04


def test_saving_again_gives_the_same_weights_and_spares_the_generator(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    save(name, tmp_path / "again")
    assert torch.equal(torch.rand(3), expected)
    assert folder_digest(tmp_path / "again") == folder_digest(folders[name])


def test_the_published_size_clause_would_match_none_of_its_layers(name: str, folders: dict[str, Path]) -> None:
    """Why a test must lower it: a run with it compares BF16 with BF16."""
    denoiser = loaded(name, folders).transformer
    for number_format in built_in_formats():
        assert choose_layers(denoiser, RECIPES[name].rule, number_format).names == ()
        fitting = choose_layers(denoiser, recipe_of(name, folders).rule, number_format)
        assert fitting.names
        assert not fitting.unfit
