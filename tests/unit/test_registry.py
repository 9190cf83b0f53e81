"""What is registered by name: order, two of one name, unknown names, replacement."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pytest_mxq.errors import MxqError, UnknownNameError
from pytest_mxq.registry import Registry, check_name


@dataclass(frozen=True)
class Tool:
    name: str
    edge: int = 0


HAMMER, SAW = Tool("hammer"), Tool("saw")


def registry() -> Registry[Tool]:
    return Registry("tool", [HAMMER, SAW])


def test_entries_stay_in_the_order_of_registration() -> None:
    tools = registry()
    tools.register(Tool("axe"))
    assert tools.names() == ("hammer", "saw", "axe")
    assert list(tools) == [HAMMER, SAW, Tool("axe")]
    assert "saw" in tools
    assert "plane" not in tools
    assert None not in tools
    assert tools.get("saw") is SAW


def test_two_of_one_name_are_refused_whenever_they_come() -> None:
    said = r"tool 'saw' is registered twice; tools: hammer, saw; give one of the two another name"
    with pytest.raises(MxqError, match=said):
        registry().register(Tool("saw", edge=1))
    with pytest.raises(MxqError, match=said):
        Registry("tool", [HAMMER, SAW, Tool("saw", edge=1)])


def test_a_refused_entry_leaves_the_first_in_place() -> None:
    tools = registry()
    with pytest.raises(MxqError):
        tools.register(Tool("saw", edge=1))
    assert tools.get("saw") is SAW


def test_an_unknown_name_lists_the_choices_and_the_closest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"^unknown tool 'hamer' \(did you mean 'hammer'\?\); tools: hammer, saw$"
    ):
        registry().get("hamer")


def test_an_unknown_name_close_to_none_has_no_suggestion() -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown tool 'zzz'; tools: hammer, saw$"):
        registry().get("zzz")


def test_a_replacement_takes_the_place_of_the_one_of_its_name() -> None:
    tools, sharper = registry(), Tool("hammer", edge=9)
    tools.replace(sharper)
    assert list(tools) == [sharper, SAW]
    assert tools.get("hammer") is sharper


def test_nothing_is_replaced_that_is_not_there() -> None:
    tools = registry()
    with pytest.raises(UnknownNameError, match=r"unknown tool 'axe'; tools: hammer, saw"):
        tools.replace(Tool("axe"))
    assert list(tools) == [HAMMER, SAW]


def test_a_registry_may_be_empty() -> None:
    assert Registry[Tool]("tool").names() == ()
    with pytest.raises(UnknownNameError, match=r"^unknown tool 'saw'; tools: $"):
        Registry[Tool]("tool").get("saw")


def test_a_known_name_is_checked_without_a_word() -> None:
    check_name("tool", "saw", iter(("hammer", "saw")))
    with pytest.raises(UnknownNameError, match="did you mean 'saw'"):
        check_name("tool", "sav", iter(("hammer", "saw")))
