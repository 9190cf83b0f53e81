import dataclasses
from pathlib import Path

import pytest

from pytest_mxq.environment.device import Device
from pytest_mxq.errors import MxqError, UnknownNameError
from pytest_mxq.formats import built_in_formats
from pytest_mxq.gates.bounds import GATES
from pytest_mxq.gates.verdict import Cell
from pytest_mxq.models import ModelRegistry, SelectionRule, built_in_models
from pytest_mxq.models.demo import DEMO
from pytest_mxq.models.prompts import GATE_PROMPTS
from pytest_mxq.planning.case import Case, Plan, refusal, runs_natively
from pytest_mxq.planning.settings import CaseSettings, split_names

FORMATS = {number_format.name: number_format for number_format in built_in_formats()}


def device(capability: tuple[int, int] | None, name: str = "GPU") -> Device:
    kind = "cpu" if capability is None else "cuda"
    return Device(kind=kind, name=name, capability=capability, slug="x", total_memory_gib=None, facts={})


@pytest.mark.parametrize(
    ("name", "capability", "native"),
    [
        ("mxfp8", (10, 0), True),
        ("nvfp4", (10, 3), True),
        ("mxfp4", (9, 0), False),
        ("nvfp4", None, False),
        ("float8", (8, 9), True),
        ("float8", (8, 6), False),
        ("nvfp4", (12, 0), True),
    ],
)
def test_a_format_runs_natively_from_its_capability(
    name: str, capability: tuple[int, int] | None, native: bool
) -> None:
    assert runs_natively(FORMATS[name], device(capability)) is native


def test_a_refusal_names_format_required_capability_device_its_capability_and_the_way_out() -> None:
    text = refusal(FORMATS["nvfp4"], device((9, 0), "NVIDIA H100 80GB HBM3"), emulate=False)
    assert text == (
        "nvfp4 needs compute capability 10.0, found NVIDIA H100 80GB HBM3 with 9.0; "
        "--mxq-emulate runs its accuracy gates with emulated numerics"
    )
    assert refusal(FORMATS["nvfp4"], device((9, 0)), emulate=True) == ""


@pytest.mark.parametrize(
    ("prompts", "batch", "chunks"), [(8, 8, (0,)), (8, 1, (0, 7)), (1, 1, (0,)), (9, 4, (0,)), (2, 1, (0, 1))]
)
def test_the_drift_check_generates_two_images_where_there_are_two(
    prompts: int, batch: int, chunks: tuple[int, ...]
) -> None:
    settings = CaseSettings(model="demo", batch_size=batch)
    case = Case(recipe=DEMO, name="x", settings=settings, prompts=DEMO.prompts[:prompts])
    assert case.drift_check_chunks == chunks


def test_all_images_of_a_format_come_before_its_times() -> None:
    cells = [
        (case, kind, name) for name in ("mxfp8", "nvfp4") for kind in reversed(GATES.values()) for case in ("b", "a")
    ]
    plans = [
        Plan(cell=Cell(nodeid="t", model="demo", case=case, format=name, gate=kind.name), kind=kind)
        for case, kind, name in cells
    ]
    ordered = [plan.cell for plan in sorted(plans, key=lambda plan: plan.order)]
    assert [f"{cell.case} {cell.gate}" for cell in ordered if cell.format == "mxfp8"] == [
        *("a audio", "a flicker", "a lpips", "a psnr", "a ssim", "b audio", "b flicker", "b lpips", "b psnr", "b ssim"),
        *("a memory", "a speedup", "b memory", "b speedup"),
    ]
    assert [cell.format for cell in ordered] == ["mxfp8"] * 14 + ["nvfp4"] * 14


def test_the_demo_rule_keeps_embeddings_last_layers_and_small_layers() -> None:
    assert DEMO.rule.skips("x_embedder", 192, 192)
    assert DEMO.rule.skips("norm_out.linear", 192, 384)
    assert DEMO.rule.skips("proj_out", 192, 192)
    assert DEMO.rule.skips("transformer_blocks.0.ff", 128, 192)
    assert not DEMO.rule.skips("single_transformer_blocks.0.proj_out", 960, 192)


def test_prompt_sets_are_24_different_prompts() -> None:
    for prompts in (DEMO.prompts, GATE_PROMPTS):
        assert len(prompts) == len(set(prompts)) == 24


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


def test_names_are_split_at_commas_and_spaces_and_counted_once() -> None:
    assert split_names(" a,b  c,,a ") == ("a", "b", "c")
    assert split_names(None) == ()


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
