"""Formats and their registry, without torch."""

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest

from pytest_mxq.errors import MxqError, UnknownNameError
from pytest_mxq.formats import Format, built_in_formats
from pytest_mxq.registry import Registry


def make(name: str = "int8", *, in_multiple: int = 16, out_multiple: int = 8) -> Format:
    return Format(
        name=name,
        summary="a format of a test",
        capability=(8, 0),
        in_multiple=in_multiple,
        out_multiple=out_multiple,
        native=object,
        emulation=None,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 3),
        ("capability", None),
        ("capability", 10),
        ("capability", (10,)),
        ("packages", "mslk"),
        ("packages", ("!!",)),
        ("packages", (None,)),
    ],
)
def test_a_format_with_a_field_of_another_kind_cannot_be_made(field: str, value: object) -> None:
    changes: dict[str, Any] = {field: value}
    with pytest.raises(MxqError, match=re.escape(repr(value))) as caught:
        dataclasses.replace(make(), **changes)
    assert field in str(caught.value)


def built_in_registry() -> Registry[Format]:
    return Registry("format", built_in_formats())


def test_built_in_formats_and_the_capability_each_needs() -> None:
    assert {kind.name: kind.capability for kind in built_in_formats()} == {
        "mxfp8": (10, 0),
        "nvfp4": (10, 0),
        "mxfp4": (10, 0),
        "float8": (8, 9),
    }


@pytest.mark.parametrize("number_format", built_in_formats(), ids=lambda kind: kind.name)
def test_every_built_in_format_can_be_emulated_and_has_a_one_line_summary(number_format: Format) -> None:
    assert number_format.emulation is not None
    assert number_format.summary
    assert "\n" not in number_format.summary


@pytest.mark.parametrize("name", ["int8", "fp4.e2m1", "w4_a8", "8bit"])
def test_allowed_names(name: str) -> None:
    assert make(name).name == name


@pytest.mark.parametrize("name", ["", "nvfp4-emulated", "NVFP4", ".x", "_x", "a b", "mxfp8\n", "é", "a/b"])
def test_refused_names_are_shown_with_the_rule(name: str) -> None:
    with pytest.raises(MxqError, match="not allowed: lower-case letters") as caught:
        make(name)
    assert repr(name) in str(caught.value)


def test_the_baseline_s_name_is_refused() -> None:
    with pytest.raises(MxqError, match="'bf16' is not allowed"):
        make("bf16")


def test_a_multiple_below_one_is_refused() -> None:
    with pytest.raises(MxqError, match="'int8': in_multiple is 0; it must be 1 or more"):
        make(in_multiple=0)
    with pytest.raises(MxqError, match="'int8': out_multiple is -1; it must be 1 or more"):
        make(out_multiple=-1)


@pytest.mark.parametrize(
    ("in_features", "out_features", "fits"),
    [(32, 24, True), (16, 8, True), (24, 24, False), (32, 12, False), (17, 9, False)],
)
def test_fits_asks_each_side_for_its_own_multiple(in_features: int, out_features: int, *, fits: bool) -> None:
    assert make(in_multiple=16, out_multiple=8).fits(in_features, out_features) is fits


@pytest.mark.parametrize(
    ("name", "shape", "fits"),
    [
        ("mxfp8", (32, 7), True),
        ("mxfp8", (48, 64), False),
        ("mxfp4", (64, 7), True),
        ("nvfp4", (48, 16), True),
        ("nvfp4", (48, 24), False),
        ("nvfp4", (40, 16), False),
        ("float8", (16, 24), False),
    ],
)
def test_built_in_shapes(name: str, shape: tuple[int, int], *, fits: bool) -> None:
    assert built_in_registry().get(name).fits(*shape) is fits


def test_registry_keeps_the_order_of_registration() -> None:
    registry = built_in_registry()
    registry.register(make("int8"))
    assert registry.names() == ("mxfp8", "nvfp4", "mxfp4", "float8", "int8")
    assert [kind.name for kind in registry] == list(registry.names())
    assert registry.get("int8") == make("int8")


def test_a_name_registered_twice_is_an_error_that_names_it() -> None:
    with pytest.raises(MxqError, match=r"format 'mxfp8' is registered twice; formats: mxfp8, nvfp4, mxfp4, float8"):
        built_in_registry().register(make("mxfp8"))


def test_an_unknown_name_lists_the_choices_and_the_closest() -> None:
    message = r"unknown format 'nvpf4' \(did you mean 'nvfp4'\?\); formats: mxfp8, nvfp4, mxfp4, float8"
    with pytest.raises(UnknownNameError, match=message):
        built_in_registry().get("nvpf4")


def test_an_unknown_name_close_to_none_has_no_suggestion() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown format 'zzz'; formats: mxfp8"):
        built_in_registry().get("zzz")


def test_a_format_is_a_value() -> None:
    assert make() == make()
    assert len({make(), make(), make("int4")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().name = "other"  # type: ignore[misc]


def test_listing_the_formats_imports_neither_torch_nor_torchao() -> None:
    code = (
        "import sys; from pytest_mxq.formats import built_in_formats; built_in_formats()[0].fits(32, 32);"
        "sys.exit(bool({'torch', 'torchao'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
