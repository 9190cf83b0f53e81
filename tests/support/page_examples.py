"""Synthetic verdicts and reports for the tests and the benchmark of the report's page."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from report_examples import SETTINGS, make_report

from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.gates.bounds import Bound
from pytest_mxq.gates.evidence import Evidence, RunEvidence
from pytest_mxq.gates.lpips import LPIPS
from pytest_mxq.gates.memory import MEMORY, MemoryBound, MemoryFacts, decide_memory
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.psnr import PSNR
from pytest_mxq.gates.scores import decide, summarize
from pytest_mxq.gates.speed_statistics import SpeedMode, SpeedRule
from pytest_mxq.gates.speedup import SPEEDUP, SpeedBound, SpeedSamples, decide_speedup
from pytest_mxq.gates.verdict import Cell, Drift, JudgedOutput, ReferenceNote, Verdict
from pytest_mxq.reports.history import CellRun, Key, Point, run_of
from pytest_mxq.reports.records import DeviceFacts, FingerprintFacts, Report

HARD = {
    "device": "nvidia-b200-sm100",
    "gpu": "NVIDIA B200",
    "torch": "2.11.0",
    "torchao": "0.18.0",
    "driver_major": "580",
}
RECORDED = {"host": "runner-7", "python": "3.12.3", "driver": "580.95"}
BASELINE = Fingerprint(hard=HARD, recorded={**RECORDED, "host": "runner-3", "driver": "580.82"})
EVIDENCE = Evidence(
    quantized=494,
    chosen=494,
    total=504,
    weight_share=0.97,
    weight_bytes=6_200_000_000,
    bf16_bytes=22_000_000_000,
    layers_sha256="a" * 64,
    layers={"transformer_blocks.*.attn.to_q": 57, "single_transformer_blocks.*.proj_mlp": 38},
    run=RunEvidence(ran=494, denoiser_calls=28, arithmetic_share=0.981, multiplied="native"),
)
STORED = ReferenceNote(
    mode="stored",
    reason="same hardware and software; regenerated BF16 outputs are bit-identical",
    manifest="baselines/nvidia-b200-sm100/flux.1-dev/test_flux_dev.json",
    drift=(Drift(gate="lpips", value=None, limit=0.02),),
    noise_gate="lpips",
    noise_repeat=0.0,
    noise_compiled=0.012,
    created="2026-11-20T03:00:00+00:00",
    fingerprint=BASELINE,
)


def cell(gate: str = "lpips", *, model: str = "flux.1-dev", form: str = "nvfp4", case: str = "test_flux") -> Cell:
    nodeid = f"tests/gates/test_flux.py::{case}[{form}-{gate}]"
    return Cell(nodeid=nodeid, model=model, case=case, format=form, gate=gate)


def prompts(count: int) -> list[str]:
    things = (
        "a lighthouse on a cliff at dawn",
        "一只穿着宇航服的猫",
        "two dogs that play chess in the rain",
        "a bowl of oranges",
    )
    return [f"{things[index % len(things)]}, number {index}" for index in range(count)]


def draft(where: Cell) -> Verdict:
    return Verdict(
        cell=where,
        outcome=Outcome.PASS,
        sentence="",
        evidence=EVIDENCE,
        reference=STORED,
        fingerprint=HARD,
        next_command=f"pytest '{where.nodeid}' --mxq-formats={where.format}",
        seconds=41.5,
    )


def judged(values: Sequence[float], bound: Bound, *, where: Cell | None = None, texts: Sequence[str] = ()) -> Verdict:
    """A verdict of LPIPS, or of PSNR where the cell says so."""
    where = where or cell()
    gate = PSNR if where.gate == "psnr" else LPIPS
    scores = summarize(values, higher_is_better=gate.scale.higher_is_better)
    outcome, sentence = decide(gate.scale, scores, bound)
    said = [*texts, *prompts(len(values))[len(texts) :]]
    return replace(
        draft(where),
        outcome=outcome,
        sentence=sentence,
        scale=gate.scale,
        observed=scores.mean,
        bound=bound.mean,
        worst_bound=bound.worst,
        scores=scores,
        outputs=tuple(JudgedOutput(prompt=text, seed=index) for index, text in enumerate(said)),
    )


def timed(factor: float = 1.31, bound: float = 1.40, *, where: Cell | None = None) -> Verdict:
    """A verdict of speed: 24 rounds with a little scatter."""
    generator = random.Random(0)
    bf16 = tuple(2.1 * (1 + generator.gauss(0, 0.004)) for _ in range(24))
    quantized = tuple(2.1 / factor * (1 + generator.gauss(0, 0.004)) for _ in range(24))
    samples = SpeedSamples(
        mode=SpeedMode.LIVE,
        bf16=bf16,
        quantized=quantized,
        voided=("round 3: thermal slowdown",),
        execution="compiled blocks, CUDA Graphs",
        first_call=(41.0, 55.5),
        throttle_share=0.0,
        power_cap_share=0.5,
    )
    outcome, sentence, facts = decide_speedup(samples, SpeedBound(speedup=bound, rule=SpeedRule.PROVEN), alpha=0.05)
    assert facts is not None
    verdict = replace(draft(where or cell("speedup")), outcome=outcome, sentence=sentence, scale=SPEEDUP.scale)
    return replace(verdict, observed=facts.speedup, bound=bound, speed=facts)


def measured(peak: float = 14.2, bound: float = 0.60, *, where: Cell | None = None) -> Verdict:
    """A verdict of memory."""
    memory = MemoryFacts(peak_gib=peak, reserved_gib=peak + 1.4, bf16_peak_gib=31.0, weight_ratio=0.281)
    limits = MemoryBound(max_ratio=bound, max_gib=None, max_weight_ratio=None)
    memory = memory.against(limits)
    outcome, sentence = decide_memory(memory, limits)
    verdict = replace(draft(where or cell("memory")), outcome=outcome, sentence=sentence, scale=MEMORY.scale)
    return replace(verdict, observed=memory.ratio, bound=bound, memory=memory)


def unjudged(outcome: Outcome, sentence: str, *, where: Cell | None = None) -> Verdict:
    return Verdict(cell=where or cell(), outcome=outcome, sentence=sentence)


def report(*verdicts: Verdict, **changes: object) -> Report:
    """A finished report of a nightly run."""
    facts = FingerprintFacts(hard=HARD, recorded=RECORDED)
    settings = replace(SETTINGS, formats=("mxfp8", "nvfp4"), emulate=False, strict=True)
    return make_report(*verdicts, **{"settings": settings, "fingerprint": facts, **changes})


HOSTILE = (
    "</script><script>pwned=1</script>",
    "<img src=x onerror=pwned=1>",
    '"><svg onload=pwned=1>',
    "' onmouseover='pwned=1",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:pwned=1",
    "\u202eright to left\u202c عربى עברית",
    "👩‍🚀 e\u0301 \u2028\u2029",
    "\x1b[31mred\x1b[0m \x00 \x07 \x9b",
    "half a pair: \ud83d",
    "&lt;b&gt; &#0; <!-- --> <![CDATA[",
)


def ascii_id(text: str) -> str:
    """A short name of a hostile text for a test's id."""
    return ascii(text)[:24]


def hostile(text: str) -> Report:
    """A report that holds a text wherever one can stand."""
    where = Cell(nodeid=f"t.py::x[{text}]", model=text, case=text, format="nvfp4", gate=text)
    shown = JudgedOutput(prompt=text, seed=0, reference=text, quantized=text, lpips_map=text, lpips_peak=0.1)
    shown = replace(shown, reference_video=text, quantized_video=text)
    fingerprint = Fingerprint(hard={text: text, "torch": text}, recorded={"host": text})
    verdict = replace(
        judged([0.2, 0.5], Bound(mean=0.13, worst=0.45), texts=[text]),
        cell=where,
        sentence=text,
        cautions=(text,),
        comparisons=(text,),
        next_command=text,
        fingerprint={text: text, "torch": "2"},
        reference=replace(STORED, reason=text, manifest=text, created=text, fingerprint=fingerprint),
        evidence=replace(EVIDENCE, layers={text: 1}, unfit=(text,)),
    )
    verdict = replace(verdict, outputs=(shown, *verdict.outputs[1:]))
    skipped = unjudged(Outcome.SKIPPED, text, where=replace(where, format="mxfp8"))
    facts = FingerprintFacts(hard={"torch": text}, recorded={text: text})
    device = DeviceFacts(name=text, slug=text, kind="cpu")
    notes = {"problems": (text,), "cautions": (text,), "commit": text, "created": text}
    return report(verdict, skipped, fingerprint=facts, device=device, **notes)


def night(models: int = 3, formats: int = 3, count: int = 24, cases: int = 1) -> Report:
    """A nightly run: five gates of each model, case and format, one of them red in each model."""
    return report(*_night(models, formats, count, cases))


def _night(models: int, formats: int, count: int, cases: int) -> Iterator[Verdict]:
    generator = random.Random(1)
    for model in ("flux.1-dev", "qwen-image", "ltx-2")[:models]:
        for case in range(cases):
            for form in ("mxfp8", "nvfp4", "mxfp4")[:formats]:

                def where(gate: str, model: str = model, case: int = case, form: str = form) -> Cell:
                    return cell(gate, model=model, form=form, case=f"test_{case}")

                middle = 0.30 if form == "nvfp4" and case == 0 else 0.08
                values = [abs(generator.gauss(middle, 0.03)) for _ in range(count)]
                yield judged(values, Bound(mean=0.13, worst=0.45), where=where("lpips"))
                decibels = [generator.gauss(31, 2) for _ in range(count)]
                yield judged(decibels, Bound(mean=25.0, worst=18.0), where=where("psnr"))
                yield timed(
                    1.52 if form == "nvfp4" else 1.21, 1.40 if form == "nvfp4" else 1.15, where=where("speedup")
                )
                yield measured(where=where("memory"))
                yield unjudged(Outcome.SKIPPED, "mxq_audio: the model generates no audio", where=where("audio"))


def history_of(last: Report, runs: int) -> dict[Key, list[Point]]:
    """The history of a report: as many runs with a little scatter, the last as it is."""
    generator = random.Random(2)
    run = run_of(last)
    assert run is not None
    found: dict[Key, list[Point]] = {}
    for item in run.cells:
        key = (run.device, item.model, item.case, item.format, item.gate, item.emulated)
        found[key] = [_point(item, index, generator) for index in range(runs - 1)]
        found[key].append(Point(created=run.created, commit=run.commit, cell=item))
    return found


def _point(item: CellRun, index: int, generator: random.Random) -> Point:
    value = (item.observed or 1.0) * (1 + generator.gauss(0, 0.02))
    return Point(
        created=f"2026-{1 + index // 28:02d}-{1 + index % 28:02d}T03:00:00+00:00",
        commit=f"{generator.getrandbits(48):012x}",
        cell=replace(item, observed=value),
    )
