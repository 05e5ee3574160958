"""Settings: what is refused, what is remembered."""

from __future__ import annotations

from typing import Any

import pytest

from advprune_core.base.settings import ConfigError, check_names, near_miss
from tests.base.tools import Hammer, Inner, Outer, Saw

REFUSED = [
    ({"widht": 1}, "unknown setting 'widht' (did you mean 'width'?); allowed: inner, tool, width"),
    ({"depth": 1}, "unknown setting 'depth' (did you mean 'inner.depth'?); allowed: inner, tool, width"),
    ({"inner": {"dephts": 1}}, "unknown setting 'inner.dephts' (did you mean 'depth'?); allowed: depth, tool"),
    ({"inner": {"depth": 0}}, "inner.depth = 0: Input should be greater than or equal to 1"),
    ({"tool": "hamer"}, "tool = 'hamer': unknown tool 'hamer' (did you mean 'hammer'?); allowed: hammer, saw"),
    ({"tool": {"hammer": {"wieght": 2}}}, "tool hammer: unknown setting 'wieght' (did you mean 'weight'?)"),
    ({"inner": {"tool": {"saw": {"tooth": 2}}}}, "unknown setting 'tooth' (did you mean 'teeth'?)"),
    ({"tool": {"hammer": {"weight": -1}}}, "weight = -1: Input should be greater than 0"),
    ({"tool": {"hammer": {}, "saw": {}}}, "a tool is a name or {name: {setting: value}}"),
    ({"tool": {"hammer": 3}}, "a tool is a name or {name: {setting: value}}"),
    ({"tool": 3}, "a tool is a name or {name: {setting: value}}, not 3"),
    ({"tool": Saw}, "Saw is a class, where a tool is an object of one: Saw(...), or its name"),
    ({"tool": len}, "not <built-in function len>; one of your own is an object of a subclass of Component"),
    ({"tool": None}, "a tool is a name or {name: {setting: value}}, not None"),
    ({"width": "8/0"}, "'8/0' is not a number or a ratio such as '8/255'"),
    ({"width": "a/b"}, "'a/b' is not a number or a ratio"),
    ({"width": "wide"}, "width = 'wide'"),
    ({"width": float("nan")}, "width"),
    ({"width": float("inf")}, "width"),
    ({"tool": {"hammer": {1: 2}}}, "hammer"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_refusals_name_the_setting_and_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Outer.create(**values)
    assert message in str(caught.value)


def test_several_errors_are_all_told() -> None:
    with pytest.raises(ConfigError) as caught:
        Outer.create(widht=1, inner={"depth": "deep"})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8/255", 8 / 255),
        ("8 / 255", 8 / 255),
        ("1/16", 0.0625),
        ("0.25", 0.25),
        (2, 2.0),
        (0.1, 0.1),
        ("0.5/2", 0.25),
        ("1/2/3", None),
    ],
)
def test_lengths_may_be_ratios(text: Any, number: float | None) -> None:
    if number is None:
        with pytest.raises(ConfigError, match="ratio"):
            Outer.create(width=text)
    else:
        assert Outer.create(width=text).width == number


def test_replace_validates_again() -> None:
    outer = Outer().replace(width="1/4")
    assert (outer.width, Outer().width) == (0.25, 0.5)
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        outer.replace(widht=1)
    with pytest.raises(ConfigError, match="depth = 0"):
        Inner().replace(depth=0)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("hamer", " (did you mean 'hammer'?)"), ("SAW", ""), ("zzz", ""), ("saww", " (did you mean 'saw'?)")],
)
def test_near_misses(name: str, hint: str) -> None:
    assert near_miss(name, ["saw", "hammer"]) == f"{hint}; allowed: hammer, saw"
    assert near_miss("nail", ["b, c", "a"]) == "; allowed: a; b, c"
    with pytest.raises(ConfigError, match=f"unknown tool '{name}'"):
        check_names(["saw", name], ["saw", "hammer"], what="tool")
    check_names(["saw"], ["saw", "hammer"], what="tool")


def test_canonical_leaves_defaults_out() -> None:
    assert Outer().canonical() == {}
    assert Outer(width=0.5, inner=Inner(depth=3)).canonical() == {}
    assert Outer(width=0.25).canonical() == {"width": 0.25}
    assert Outer(inner=Inner(depth=4)).canonical() == {"inner": {"depth": 4}}
    ours = {**Hammer(weight=2.0).canonical()}
    assert (ours["name"], ours["settings"]) == ("hammer", {"weight": 2.0})
    assert Outer(tool=Saw()).canonical()["tool"]["name"] == "saw"


def test_a_raised_version_is_seen_though_the_component_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hammer, "version", 2)
    assert Outer().canonical()["tool"]["version"] == 2
    assert Inner().canonical() == {}


def test_a_raised_version_is_seen_in_a_group_that_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Outer().canonical()
    monkeypatch.setattr(Saw, "version", 2)
    assert Inner().canonical()["tool"]["version"] == 2
    assert Outer().canonical() != before
