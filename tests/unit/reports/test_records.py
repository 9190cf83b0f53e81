"""Verdicts and reports as JSON: both ways, with every part and every number; what is refused; the schema."""

from __future__ import annotations

import json
from dataclasses import replace
from inspect import cleandoc
from math import inf, isnan, nan
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from report_examples import SETTINGS, make_report

from pytest_mxq.baselines.unknown_fields import unknown_field
from pytest_mxq.environment.fingerprint import Fingerprint
from pytest_mxq.errors import ReportInvalidError
from pytest_mxq.gates.evidence import Evidence, RunEvidence
from pytest_mxq.gates.memory import MemoryFacts
from pytest_mxq.gates.outcome import Outcome
from pytest_mxq.gates.psnr import PSNR
from pytest_mxq.gates.scores import summarize
from pytest_mxq.gates.speed_statistics import SpeedMode, SpeedRule
from pytest_mxq.gates.speedup import SpeedBound, SpeedSamples, decide_speedup
from pytest_mxq.gates.verdict import Cell, Drift, JudgedOutput, ReferenceNote, Verdict
from pytest_mxq.reports.records import (
    SCHEMA_VERSION,
    Report,
    cell_of,
    cell_record,
    decode_report,
    encode_report,
    from_record,
    to_record,
)

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "docs" / "report.schema.json"
json_schema = run_path(str(ROOT / "tools" / "report_schema.py"))["json_schema"]
CELL = Cell(nodeid="t.py::x[nvfp4-psnr]", model="demo", case="case", format="nvfp4", gate="psnr")
BARE = Verdict(cell=CELL, outcome=Outcome.SKIPPED, sentence="no device")
SPEED = decide_speedup(
    SpeedSamples(
        mode=SpeedMode.LIVE,
        bf16=(2.0, 2.01, 1.99, 2.0, 2.01, 1.99),
        quantized=(1.0,) * 6,
        sessions=((2.0,) * 8, (2.04,) * 8, (1.96,) * 8),
        voided=("hot",),
        environment="",
        start_seed=2**31 - 1,
        execution="compiled blocks, default",
        first_call=(20.0, 11.0),
        throttle_share=0.0,
        power_cap_share=None,
    ),
    SpeedBound(speedup=1.4, rule=SpeedRule.PROVEN),
    alpha=0.05,
)[2]
EVIDENCE = Evidence(
    quantized=4,
    chosen=4,
    total=5,
    weight_share=0.8,
    weight_bytes=2**40,
    bf16_bytes=2**41,
    layers_sha256="a" * 64,
    layers={"blocks.*": 4},
    unfit=("blocks.9",),
    widest=64,
    min_features=64,
    weight_ratio=0.5,
    run=RunEvidence(ran=4, denoiser_calls=8, arithmetic_share=0.8, multiplied="native", faults=("blocks.1: BF16",)),
)
WHOLE = Verdict(
    cell=CELL,
    outcome=Outcome.NOT_QUANTIZED,
    sentence='"quoted"\n\\ 日本 \u2028 mean > bound',
    scale=PSNR.scale,
    observed=38.4242,
    bound=30.0,
    worst_bound=25.0,
    worst_prompt="a red circle",
    scores=summarize([38.0, 40.5, 36.25, 39.0], higher_is_better=True, frames=2),
    evidence=EVIDENCE,
    speed=SPEED,
    memory=MemoryFacts(peak_gib=12.0, reserved_gib=13.0, bf16_peak_gib=20.0, weight_ratio=0.5),
    reference=ReferenceNote(
        mode="stored",
        reason="same",
        manifest="baselines/case.json",
        drift=(Drift(gate="lpips", value=0.001, limit=0.02), Drift(gate="own", value=None, limit=1.0)),
        noise_gate="lpips",
        noise_repeat=0.0,
        noise_compiled=0.002,
        created="2026-01-01T00:00:00+00:00",
        fingerprint=Fingerprint(hard={"torch": "2.11"}, recorded={"host": "there"}),
    ),
    emulated=True,
    outputs=(
        JudgedOutput(prompt="a red circle", seed=0),
        JudgedOutput(
            prompt="日本",
            seed=1,
            frame=3,
            reference="demo/case/01-nvfp4-psnr-reference.png",
            quantized="demo/case/01-nvfp4-psnr-quantized.png",
            lpips_map="demo/case/01-nvfp4-psnr-lpips-map.png",
            lpips_peak=0.25,
            reference_video="demo/case/01-nvfp4-psnr-reference-video.webm",
            quantized_video="demo/case/01-nvfp4-psnr-quantized-video.webm",
        ),
    ),
    comparisons=("demo/case/nvfp4-psnr-00.png", "demo/case/nvfp4-psnr-01.png"),
    next_command="pytest 't.py::x[nvfp4-psnr]'",
    seconds=1.5,
    fingerprint={"torch": "2.11"},
    cautions=("quantized: guidance_scale 3.5 -> 4.0",),
)
OPTIONAL = [name for name in Verdict.__dataclass_fields__ if getattr(WHOLE, name) != getattr(BARE, name)]


def through_json(verdict: Verdict) -> Verdict:
    return from_record(json.loads(json.dumps(to_record(verdict), allow_nan=False)))


def test_the_whole_verdict_has_every_part() -> None:
    assert set(OPTIONAL) == set(Verdict.__dataclass_fields__) - {"cell"}
    assert None not in [getattr(WHOLE, name) for name in Verdict.__dataclass_fields__]
    assert WHOLE.speed is not None
    assert WHOLE.speed.samples.power_cap_share is None


@pytest.mark.parametrize("verdict", [BARE, WHOLE], ids=["bare", "whole"])
def test_a_verdict_comes_back_as_it_was(verdict: Verdict) -> None:
    assert through_json(verdict) == verdict
    assert from_record(to_record(verdict)) == verdict  # as it crosses xdist, without JSON
    assert repr(through_json(verdict)) == repr(verdict)  # the types too


@pytest.mark.parametrize("name", OPTIONAL)
def test_each_part_comes_back_alone(name: str) -> None:
    verdict = replace(BARE, **{name: getattr(WHOLE, name)})
    assert through_json(verdict) == verdict


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_comes_back(outcome: Outcome) -> None:
    assert through_json(replace(BARE, outcome=outcome)).outcome is outcome


@pytest.mark.parametrize("number", [inf, -inf, nan])
def test_a_number_that_json_has_not_comes_back(number: float) -> None:
    scores = replace(summarize([number, 1.0], higher_is_better=False), p90=number, mean_bound_95=number)
    memory = MemoryFacts(peak_gib=number, reserved_gib=1.0, bf16_peak_gib=number, weight_ratio=number)
    assert SPEED is not None
    samples = replace(SPEED.samples, bf16=(1.0, number), sessions=((number,), (2.0, number)), throttle_share=number)
    drift = Drift(gate="lpips", value=number, limit=number)
    verdict = replace(
        WHOLE,
        observed=number,
        bound=number,
        worst_bound=number,
        scores=scores,
        memory=memory,
        speed=replace(SPEED, lower=number, upper=number, samples=samples),
        reference=ReferenceNote(mode="stored", reason="", drift=(drift,), noise_repeat=number, noise_compiled=number),
        seconds=number,
    )
    text = json.dumps(to_record(verdict), allow_nan=False)
    assert f'"observed": "{number}"' in text
    again = from_record(json.loads(text))
    assert repr(again) == repr(verdict)  # a NaN equals nothing, itself neither
    assert isinstance(again.observed, float)
    assert isnan(again.observed) is isnan(number)


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "null", "true", "1", "1.5", ""])
def test_a_text_that_looks_like_a_number_stays_a_text(text: str) -> None:
    verdict = replace(
        WHOLE,
        cell=replace(CELL, case=text, model=text),
        sentence=text,
        worst_prompt=text,
        next_command=text,
        comparisons=(text,),
        fingerprint={text: text},
        reference=ReferenceNote(mode=text, reason=text, manifest=text),
    )
    assert repr(through_json(verdict)) == repr(verdict)


def test_the_machine_s_paths_are_taken_out_of_every_text() -> None:
    verdict = replace(
        WHOLE,
        sentence="/home/me/project/a",
        comparisons=("/home/me/project/b",),
        reference=ReferenceNote(mode="stored", reason="/home/me/project/c", manifest="/home/me/project/d"),
    )
    record = to_record(verdict, lambda text: text.replace("/home/me/project/", ""))
    assert "/home/me" not in json.dumps(record)
    again = from_record(record)
    assert again.reference is not None
    assert (again.sentence, again.comparisons) == ("a", ("b",))
    assert (again.reference.reason, again.reference.manifest) == ("c", "d")


def test_a_cell_comes_back_as_it_was() -> None:
    assert cell_of(json.loads(json.dumps(cell_record(CELL)))) == CELL
    with pytest.raises(ReportInvalidError, match=r"^a cell: .*`gate`"):
        cell_of({name: value for name, value in cell_record(CELL).items() if name != "gate"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"outcome": "passed"}, r"a verdict: .*\$\.outcome"),
        ({"observed": "much"}, r"a verdict: .*\$\.observed"),
        ({"cell": None}, r"a verdict: .*\$\.cell"),
        ({"observed": "0.5"}, r"a verdict: .*\$\.observed"),
        ({"emulated": "true"}, r"a verdict: .*\$\.emulated"),
        ({"sentence": nan}, r"a verdict: .*\$\.sentence"),
    ],
)
def test_a_record_of_something_else_is_refused_by_its_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ReportInvalidError, match=said):
        from_record({**to_record(WHOLE), **change})


def test_a_report_comes_back_as_it_was() -> None:
    settings = replace(SETTINGS, sources={"demo": "models/demo"})
    whole = make_report(WHOLE, BARE, settings=settings, problems=("a problem",), cautions=("a caution",))
    assert decode_report(encode_report(whole), where="report.json") == whole
    assert decode_report(encode_report(make_report()), where="report.json") == make_report()


def test_a_report_with_numbers_that_json_has_not_is_json_and_comes_back() -> None:
    odd = make_report(replace(WHOLE, observed=nan, bound=inf, worst_bound=-inf))

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    data = encode_report(odd)
    json.loads(data, parse_constant=refuse)
    assert data.endswith(b"}\n")
    assert repr(decode_report(data, where="report.json")) == repr(odd)


@pytest.mark.parametrize(
    ("version", "way"),
    [
        (1, "run the gates again"),
        (3, "written by a newer pytest-mxq: upgrade pytest-mxq"),
        (None, "run the gates again"),
    ],
)
def test_a_report_of_another_version_is_refused_with_what_to_do(version: int | None, way: str) -> None:
    document = {**json.loads(encode_report(make_report(WHOLE))), "schema_version": version}
    with pytest.raises(ReportInvalidError) as caught:
        decode_report(json.dumps(document).encode(), where="mxq-report/report.json")
    assert str(caught.value) == (
        f"mxq-report/report.json: the report has schema_version {version}, this pytest-mxq reads {SCHEMA_VERSION}; {way}"
    )


@pytest.mark.parametrize(
    ("place", "path", "allowed"),
    [
        ((), "surprise", "created, status, commit"),
        (("settings",), "settings.surprise", "formats, models, gates"),
        (("verdicts", 0), "verdicts[0].surprise", "cell, outcome, sentence"),
        (("verdicts", 0, "reference", "fingerprint"), "verdicts[0].reference.fingerprint.surprise", "hard, recorded"),
        (("verdicts", 0, "speed", "samples"), "verdicts[0].speed.samples.surprise", "mode, bf16, quantized"),
    ],
)
def test_a_field_that_a_report_has_not_is_refused_with_those_that_it_has(
    place: tuple[str | int, ...], path: str, allowed: str
) -> None:
    document = json.loads(encode_report(make_report(WHOLE)))
    target = document
    for step in place:
        target = target[step]
    target["surprise"] = 1
    with pytest.raises(ReportInvalidError) as caught:
        decode_report(json.dumps(document).encode(), where="mxq-report/report.json")
    assert str(caught.value).startswith(f"mxq-report/report.json: unknown field `{path}`; allowed: {allowed}")
    assert "upgrade pytest-mxq, or run the gates again" in str(caught.value)


def test_what_a_record_maps_by_name_has_no_unknown_fields() -> None:
    assert unknown_field(to_record(replace(WHOLE, fingerprint={"surprise": "1"})), Verdict) is None


@pytest.mark.parametrize("data", [b"", b"not json", b'{"schema_version": 2', b"\xff\xfe\x00"])
def test_what_is_not_json_is_refused_with_what_to_do(data: bytes) -> None:
    with pytest.raises(
        ReportInvalidError, match=r"^mxq-report/report.json: not a JSON document .*run the gates again$"
    ):
        decode_report(data, where="mxq-report/report.json")


@pytest.mark.parametrize("data", [b"[]", b"2", b"null", b"{}"])
def test_json_that_is_no_report_is_refused_with_what_to_do(data: bytes) -> None:
    with pytest.raises(
        ReportInvalidError, match=r"^here.json: the report has schema_version None.*run the gates again$"
    ):
        decode_report(data, where="here.json")


@pytest.mark.parametrize("name", [name for name in Report.__dataclass_fields__ if name != "schema_version"])
def test_a_missing_field_is_named_with_the_file_and_what_to_do(name: str) -> None:
    document = json.loads(encode_report(make_report(WHOLE)))
    del document[name]
    with pytest.raises(ReportInvalidError, match=rf"^here.json: .*`{name}`.*; run the gates again$"):
        decode_report(json.dumps(document).encode(), where="here.json")


def test_a_missing_field_of_a_verdict_is_named_with_its_place() -> None:
    document = json.loads(encode_report(make_report(WHOLE)))
    del document["verdicts"][0]["scores"]["p90"]
    with pytest.raises(ReportInvalidError, match=r"^here.json: .*`p90` - at `\$\.verdicts\[0\]\.scores`; run"):
        decode_report(json.dumps(document).encode(), where="here.json")


def test_the_published_schema_is_the_one_of_the_types() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"


def test_the_schema_s_texts_have_no_indentation_which_python_3_13_leaves_out_of_docstrings() -> None:
    kinds = json_schema()["$defs"].values()
    texts = [kind["description"] for kind in kinds if "description" in kind]
    assert texts == [cleandoc(text) for text in texts]
    assert any("\n" in text for text in texts)


def test_the_schema_knows_the_texts_that_stand_for_numbers() -> None:
    observed = json_schema()["$defs"]["Verdict"]["properties"]["observed"]
    choices = [choice for member in observed["anyOf"] for choice in member.get("anyOf", ())]
    assert {"enum": ["inf", "-inf", "nan"]} in choices
