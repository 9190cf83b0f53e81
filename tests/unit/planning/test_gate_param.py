"""The parameter of one item and its id, whatever a user's own parameters are called."""

from __future__ import annotations

import random
from itertools import product

import pytest

from pytest_mxq.errors import MxqError
from pytest_mxq.formats import built_in_formats
from pytest_mxq.gates import built_in_gates
from pytest_mxq.planning.gate_param import EMPTY_PARAM, REFRESH, REFRESH_PARAM, GateParam, planned_gate

FORMATS = tuple(number_format.name for number_format in built_in_formats())
GATES = tuple(gate.name for gate in built_in_gates())
SIZES = (None, 1, 4, 64)
PARAMS = [
    *(GateParam(format=name, gate=gate, batch_size=size) for name, gate, size in product(FORMATS, GATES, SIZES)),
    *(GateParam(format="bf16", gate=REFRESH, batch_size=size) for size in SIZES),
    *(GateParam(format="fp4.e2m1", gate="my_gate2", batch_size=size) for size in SIZES),
    EMPTY_PARAM,
]
NASTY = (
    *("", "-", "--", "b4", "-b4", "-b4-", "b0", "b", "b64-"),
    *("-nvfp4-lpips", "nvfp4-lpips", "nvfp4-lpips-b4", "-bf16-refresh", "mxfp8", "lpips", "emulated"),
    *("@group", "@", "]", "[", "[]", "]@group", "[nvfp4-lpips]", "[nvfp4-lpips]@group", "::", "/", "test_it.py::test"),
    *(" ", "%", "%20", "%s", "\\", "\\n", "\n", "\t", "'", '"', ".", "_", "0", "A", "é", "日", "{}", "$", "^", "(?:"),
)


def hostile_ids(count: int) -> list[str]:
    """That many different ids, always the same ones."""
    rng, found = random.Random(2026), dict.fromkeys(NASTY)
    while len(found) < count:
        found["".join(rng.choices(NASTY, k=rng.randint(2, 8)))] = None
    return list(found)[:count]


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        (GateParam(format="nvfp4", gate="lpips"), "nvfp4-lpips"),
        (GateParam(format="nvfp4", gate="lpips", batch_size=4), "nvfp4-lpips-b4"),
        (GateParam(format="nvfp4", gate="lpips", seen=("lpips", "ssim")), "nvfp4-lpips"),
        (REFRESH_PARAM, "bf16-refresh"),
        (GateParam(format="bf16", gate=REFRESH, batch_size=2), "bf16-refresh-b2"),
    ],
)
def test_an_id_names_format_gate_and_batch_size(param: GateParam, expected: str) -> None:
    assert param.id == expected


@pytest.mark.parametrize("param", PARAMS, ids=lambda param: param.id)
def test_an_id_is_read_back(param: GateParam) -> None:
    assert GateParam.from_id(param.id) == param
    assert param.user_id(param.id) == ""


@pytest.mark.parametrize("user", [*NASTY, "wide-", "wide-nvfp4-lpips", "wide-nvfp4-lpips-b4", "b4-b4"])
def test_an_id_is_read_back_behind_whatever_a_user_calls_his_parameters(user: str) -> None:
    for param in PARAMS:
        assert GateParam.from_id(f"{user}-{param.id}") == param
        assert param.user_id(f"{user}-{param.id}") == user


def test_an_id_is_read_back_behind_two_thousand_hostile_ids() -> None:
    rng = random.Random(7)
    for user in hostile_ids(2000):
        param = rng.choice(PARAMS)
        text = f"{user}-{param.id}"
        assert GateParam.from_id(text) == param, text
        assert param.user_id(text) == user, text


def test_a_worker_s_nodeid_is_read_back_behind_two_thousand_hostile_ids() -> None:
    known = [param for param in PARAMS if (param.format in FORMATS and param.gate in GATES) or param.gate == REFRESH]
    rng = random.Random(8)
    for user in hostile_ids(2000):
        param = rng.choice(known)
        nodeid = f"tests/test_it.py::TestIt::test_it[{user}-{param.id}]"
        for shown in (nodeid, f"{nodeid}@group", f"{nodeid}@a b-nvfp4-lpips", f"{nodeid}@gpu[0]", f"{nodeid}@]"):
            assert planned_gate(shown, formats=FORMATS, gates=GATES) == (nodeid, param), shown


@pytest.mark.parametrize("text", ["", "nvfp4", "nvfp4-", "-lpips", "nvfp4-LPIPS", "NVFP4-lpips", "nvfp4-lpips-b4 "])
def test_what_is_no_id_is_refused_with_the_text_and_its_form(text: str) -> None:
    with pytest.raises(MxqError, match=r"does not end in '<format>-<gate>' or") as caught:
        GateParam.from_id(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("size", ["b0", "b04", "b-4", "B4", "b4x"])
def test_what_is_no_batch_size_is_read_as_none(size: str) -> None:
    try:
        found = GateParam.from_id(f"nvfp4-lpips-{size}")
    except MxqError:
        return
    assert found.batch_size is None


@pytest.mark.parametrize(
    "nodeid",
    [
        "tests/test_it.py::test_it",
        "tests/test_it.py::test_it@group",
        "tests/test_it.py::test_it[]",
        "tests/test_it.py::test_it[wide]",
        "tests/test_it.py::test_it[nvfp4-lpips",
        "tests/test_it.py::test_it[nvfp5-lpips]",
        "tests/test_it.py::test_it[nvfp4-lpisp]",
        "tests/test_it.py::test_it[nvfp4-lpips-b0]",
        "tests/test_it.py::test_it[nvfp4-refresh]",
        "tests/test_it.py::test_it[bf16-lpips]",
        "tests/test_it.py::test_it[any-nothing]",
    ],
)
def test_a_nodeid_of_no_gate_of_these_kinds_is_none(nodeid: str) -> None:
    assert planned_gate(nodeid, formats=FORMATS, gates=GATES) is None


@pytest.mark.parametrize(
    ("nodeid", "param"),
    [
        ("a.py::test[nvfp4-lpips]", GateParam(format="nvfp4", gate="lpips")),
        ("a.py::test[nvfp4-lpips]@group", GateParam(format="nvfp4", gate="lpips")),
        ("tests[x]/a.py::test[nvfp4-lpips]@a]b", GateParam(format="nvfp4", gate="lpips")),
        ("a.py::test[nvfp4-lpips-b4]@gpu-b8", GateParam(format="nvfp4", gate="lpips", batch_size=4)),
        ("a.py::test[nvfp4-lpips]@gpu[0]", GateParam(format="nvfp4", gate="lpips")),
        ("a.py::test[nvfp4-lpips]@g]", GateParam(format="nvfp4", gate="lpips")),
        ("a.py::test[nvfp4-lpips]@]", GateParam(format="nvfp4", gate="lpips")),
        ("a.py::test[x]@y-nvfp4-lpips]", GateParam(format="nvfp4", gate="lpips")),
        ("a.py::test[wide-bf16-refresh]", REFRESH_PARAM),
    ],
)
def test_a_nodeid_is_read_with_and_without_its_group(nodeid: str, param: GateParam) -> None:
    found = planned_gate(nodeid, formats=FORMATS, gates=GATES)
    assert found is not None
    assert found[1] == param
    assert nodeid.startswith(found[0])


@pytest.mark.parametrize(
    ("callspec_id", "user"),
    [
        ("wide-nvfp4-lpips-more", "wide-more"),
        ("nvfp4-lpips-more", "more"),
        ("wide-nvfp4-lpips-", "wide"),
        ("wide", "wide"),
        ("xnvfp4-lpips-b", "xnvfp4-lpips-b"),
    ],
)
def test_what_another_plugin_appends_is_the_user_s(callspec_id: str, user: str) -> None:
    assert GateParam(format="nvfp4", gate="lpips").user_id(callspec_id) == user
