"""The whole path with the packaged model on the CPU: refresh, gates, and every guard of an accuracy gate firing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from own_formats import own_format

from pytest_mxq.baselines.fingerprint import take_fingerprint
from pytest_mxq.baselines.store import BaselineStore
from pytest_mxq.cases import Case, Plan
from pytest_mxq.device import Device
from pytest_mxq.engines import TorchEngines
from pytest_mxq.formats import Format, built_in_formats
from pytest_mxq.gates.bounds import GATES, Bound
from pytest_mxq.gates.verdict import Cell, Outcome, Verdict
from pytest_mxq.models import SelectionRule
from pytest_mxq.models.demo import DEMO
from pytest_mxq.refresh import Refresher
from pytest_mxq.settings import CaseSettings, Reference
from pytest_mxq.workflow import Workflow

CPU = Device(kind="cpu", name="cpu", capability=None, slug="cpu-test", total_memory_gib=None, facts={})
FORMATS = {number_format.name: number_format for number_format in built_in_formats()}
QUICK = replace(DEMO, call=MappingProxyType({**DEMO.call, "num_inference_steps": 3}))


def draw(pipeline: Any, prompt: Any) -> Any:
    return pipeline(prompt)


class Bench:
    """One store and one workflow over the module's engines."""

    def __init__(self, engines: TorchEngines, root: Path) -> None:
        self.engines = engines
        self.root = root
        self.store = BaselineStore(root / "baselines", media=None, device=CPU.slug)
        self.fingerprint = take_fingerprint(CPU)
        self.compared: list[Path] = []

    def case(self, recipe: Any = QUICK, prompts: int = 3, batch_size: int = 1, **settings: Any) -> Case:
        chosen = CaseSettings(model=recipe.name, batch_size=batch_size, **settings)
        return Case(recipe=recipe, name="case", settings=chosen, prompts=DEMO.prompts[:prompts])

    def refresh(self, case: Case | None = None, workload: Callable[..., Any] = draw) -> Verdict:
        refresher = Refresher(
            engines=self.engines,
            store=self.store,
            device=CPU.slug,
            fingerprint=self.fingerprint,
            formats=list(FORMATS.values()),
        )
        cell = Cell(nodeid="t::x[bf16-refresh]", model="demo", case="case", format="bf16", gate="refresh")
        return refresher.refresh(Plan(cell=cell, case=case or self.case()), workload)

    def judge(
        self,
        name: str = "mxfp8",
        gate: str = "lpips",
        bound: float = 0.05,
        *,
        case: Case | None = None,
        reference: Reference = Reference.AUTO,
        workload: Callable[..., Any] = draw,
        formats: dict[str, Format] | None = None,
    ) -> Verdict:
        case = case or self.case()
        cell = Cell(nodeid=f"t::x[{name}-{gate}]", model=case.recipe.name, case="case", format=name, gate=gate)
        plan = Plan(
            cell=cell,
            case=case,
            kind=GATES[gate],
            number_format={**FORMATS, **(formats or {})}[name],
            bound=Bound(mean=bound, worst=None),
            emulated=True,
            sentinel_limit=min(0.02, bound / 4),
        )
        workflow = Workflow(
            engines=self.engines,
            store=self.store,
            fingerprint=self.fingerprint,
            reference=reference,
            strict=False,
            write_comparison=self._write,
            performance=_no_performance,
        )
        return workflow.judge(plan, workload, next_command="pytest t")

    def _write(self, _plan: Plan, index: int, reference: Any, quantized: Any, _caption: str) -> Path:
        assert reference.size == quantized.size == (128, 128)
        self.compared.append(self.root / f"{index}.png")
        return self.compared[-1]

    @property
    def manifest(self) -> Path:
        return self.store.manifest_path("demo", "case")


@pytest.fixture(scope="module")
def engines() -> Iterator[TorchEngines]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two threads on a busy two-core machine are slower than one, and draw the same pictures
    yield TorchEngines("cpu", lambda _label, _done, _total: None)
    torch.set_num_threads(threads)


@pytest.fixture
def bench(engines: TorchEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(engines, "draw_other_execution", _no_compiler)  # a cold compilation takes half a minute
    return Bench(engines, tmp_path)


def _no_performance() -> Any:
    raise AssertionError("a gate of pictures needs no stopwatch")


def _no_compiler(*_args: Any, **_kwargs: Any) -> Any:
    raise RuntimeError("no compiler")


@pytest.fixture
def refreshed(bench: Bench) -> Bench:
    assert bench.refresh().outcome is Outcome.REFRESHED
    return bench


def test_refresh_then_gate_against_the_stored_pictures(refreshed: Bench) -> None:
    document = json.loads(refreshed.manifest.read_text())
    assert document["noise_floor"] == {
        "repeat": 0.0,
        "eager_vs_compiled": None,
        "note": "not compiled: RuntimeError: no compiler",
    }
    assert document["selections"]["nvfp4"]["layers"]["transformer_blocks.*.attn.to_q"] == 2
    verdict = refreshed.judge("nvfp4")
    assert verdict.outcome is Outcome.PASS, verdict.sentence
    assert verdict.reference is not None
    assert (verdict.reference.mode, verdict.reference.sentinel) == ("stored", 0.0)
    assert verdict.scores is not None
    assert 0 < verdict.scores.mean < 0.05
    assert verdict.evidence is not None
    assert verdict.evidence.weight_share > 0.5
    assert len(refreshed.compared) == 1


def test_the_order_of_the_formats_is_the_order_of_their_damage(refreshed: Bench) -> None:
    means = [refreshed.judge(name, bound=0.8).observed for name in ("mxfp8", "nvfp4", "mxfp4")]
    assert means == sorted(means, key=lambda value: value or 0)
    assert all(means)


def test_a_tight_bound_is_a_regression_with_comparisons_of_the_worst_pictures(refreshed: Bench) -> None:
    verdict = refreshed.judge("nvfp4", bound=1e-5, case=refreshed.case())
    assert verdict.outcome is Outcome.REGRESSION
    assert len(verdict.pictures) == 3
    assert verdict.worst_prompt in DEMO.prompts[:3]


@pytest.mark.parametrize(("gate", "bound"), [("ssim", 0.9), ("psnr", 25.0)])
def test_the_other_metrics_judge_the_same_pictures(refreshed: Bench, gate: str, bound: float) -> None:
    assert refreshed.judge("mxfp8", gate, bound).outcome is Outcome.PASS
    assert refreshed.judge("mxfp8", gate, {"ssim": 0.99999, "psnr": 119.0}[gate]).outcome is Outcome.REGRESSION


def test_live_and_stored_references_give_the_same_number_on_the_same_machine(refreshed: Bench) -> None:
    stored = refreshed.judge("mxfp8")
    live = refreshed.judge("mxfp8", reference=Reference.LIVE)
    assert live.reference is not None
    assert live.reference.mode == "live"
    assert live.observed == stored.observed


def test_fewer_steps_are_stale_never_a_regression(refreshed: Bench) -> None:
    verdict = refreshed.judge(workload=lambda pipeline, prompt: pipeline(prompt, num_inference_steps=2))
    assert verdict.outcome is Outcome.STALE
    assert "num_inference_steps 3 -> 2" in verdict.sentence


def test_another_seed_is_stale(refreshed: Bench) -> None:
    verdict = refreshed.judge(case=refreshed.case(seed=1))
    assert verdict.outcome is Outcome.STALE
    assert "seed 0 -> 1" in verdict.sentence


def test_a_rule_that_matches_nothing_is_not_quantized(bench: Bench) -> None:
    recipe = replace(QUICK, rule=SelectionRule(min_features=4096))
    verdict = bench.judge(case=bench.case(recipe))
    assert verdict.outcome is Outcome.NOT_QUANTIZED
    assert "none of" in verdict.sentence


def test_a_quantization_without_effect_is_not_quantized(bench: Bench) -> None:
    verdict = bench.judge("same", formats={"same": own_format("same", lambda weight: weight)})
    assert verdict.outcome is Outcome.NOT_QUANTIZED
    assert "equal to BF16's to the bit" in verdict.sentence


def test_a_broken_format_is_a_large_regression(bench: Bench) -> None:
    verdict = bench.judge("broken", bound=0.1, formats={"broken": own_format("broken", torch.zeros_like)})
    assert verdict.outcome in {Outcome.REGRESSION, Outcome.DEGENERATE}


def test_nan_from_an_arm_is_degenerate(bench: Bench) -> None:
    verdict = bench.judge("nan", formats={"nan": own_format("nan", lambda weight: weight * torch.nan)})
    assert verdict.outcome is Outcome.DEGENERATE
    assert "not-finite" in verdict.sentence


def test_a_batch_is_drawn_with_each_pictures_own_noise(bench: Bench) -> None:
    one = bench.engines.draw(bench.case(), draw, label="x")
    batch = bench.engines.draw(bench.case(batch_size=3), draw, label="x")
    difference = (one.pictures.int() - batch.pictures.int()).abs().float().mean()
    assert difference < 1.0  # the same noise; not always the same rounding


def test_arms_are_built_once_for_all_gates_of_a_format(engines: TorchEngines, tmp_path: Path) -> None:
    bench = Bench(engines, tmp_path)
    engines.arms.release()
    engines.arms.builds.clear()
    for gate, bound in (("lpips", 0.8), ("ssim", 0.1), ("psnr", 1.0)):
        bench.judge("mxfp8", gate, bound)
    assert dict(engines.arms.builds) == {("demo", "bf16"): 1, ("demo", "mxfp8"): 1}
