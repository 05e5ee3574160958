"""Settings, components and registries: what is refused, what is remembered."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from advprune_core.base.settings import (
    Component,
    ConfigError,
    Pixels,
    Registry,
    Settings,
    check_names,
    component_field,
    import_object,
    near_miss,
    source_hash,
)
from advprune_core.pruners import PRUNERS
from advprune_core.trainers.schedules import SCHEDULES

TOOLS: Registry[Tool] = Registry("tool", "advprune_core.base.settings")


class Tool(Component):
    pass


class Blade(Tool):
    sharp: ClassVar[bool] = False


@TOOLS.register
class Hammer(Tool):
    """Drives nails.

    Not screws.
    """

    name = "hammer"
    weight: Annotated[float, Field(gt=0)] = 1.0
    handle: str = "ash"


@TOOLS.register
class Saw(Tool):
    """Cuts boards."""

    name = "saw"
    teeth: int = 20


class Inner(Settings):
    depth: Annotated[int, Field(ge=1)] = 3
    tool: Annotated[Tool, *component_field(TOOLS)] = Saw()


class Outer(Settings):
    width: Pixels = 0.5
    inner: Inner = Inner()
    tool: Annotated[Tool, *component_field(TOOLS)] = Hammer()


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
    with pytest.raises(ConfigError, match=f"unknown tool '{name}'"):
        check_names(["saw", name], ["saw", "hammer"], what="tool")
    check_names(["saw"], ["saw", "hammer"], what="tool")


SPECS = [
    ("hammer", Hammer()),
    ({"hammer": {}}, Hammer()),
    ({"hammer": None}, Hammer()),
    ({"hammer": {"weight": 2}}, Hammer(weight=2.0)),
    (Saw(teeth=3), Saw(teeth=3)),
]


@pytest.mark.parametrize(("spec", "tool"), SPECS)
def test_specifications(spec: Any, tool: Tool) -> None:
    parsed = TOOLS.parse(spec)
    assert parsed == tool
    assert type(parsed) is type(tool)
    assert TOOLS.parse(tool.spec()) == tool
    assert Outer.create(**Outer(tool=tool).model_dump(mode="json")) == Outer(tool=tool)


def test_specs_are_the_shortest() -> None:
    assert Hammer().spec() == "hammer"
    assert Hammer(weight=2).spec() == {"hammer": {"weight": 2.0}}
    assert Hammer.summary() == "Drives nails."


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


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"name": 3}, "name = 3 must be of type str, not int"),
        ({"name": "axe", "version": "2"}, "version = '2' must be of type int, not str"),
        ({"name": "axe", "version": True}, "version = True must be of type int, not bool"),
        ({"name": "axe", "sharp": 1}, "sharp = 1 must be of type bool, not int"),
        ({"name": "axe", "__annotations__": {"name": ClassVar[str]}}, None),
        ({"name": "axe", "sharp": property(lambda self: True)}, None),
    ],
)
def test_class_variables_have_the_type_of_the_base(variables: dict[str, Any], message: str | None) -> None:
    def define() -> type[Component]:
        return type("Axe", (Blade,), {"__module__": __name__, **variables})

    if message is None:
        assert define().name == "axe"  # with and without an annotation
        return
    with pytest.raises(ConfigError, match=message):
        define()


@pytest.mark.parametrize("name", ["", "my:axe"])
def test_what_is_registered_has_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="needs a name"):
        TOOLS.register(type("Axe", (Tool,), {"__module__": __name__, "name": name}))


OWN = '''
from typing import ClassVar
from advprune_core.pruners import Pruner, Selection

class Own(Pruner):
    """Keeps the first images."""

    name: ClassVar[str] = "own"
    start: int = 0

    def select(self, context):
        return Selection(range({}, context.k))
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write and import a module with a pruner; an edit makes another module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def write(name: str, body: str) -> Any:
        (tmp_path / f"{name}.py").write_text(OWN.format(body))
        importlib.invalidate_caches()
        made.append(name)
        return importlib.import_module(name).Own

    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_own_components_are_known_by_their_source(own: Any) -> None:
    first, same, edited = own("own_a", "0"), own("own_b", "0"), own("own_c", "1 - 1")
    assert first().canonical() == same().canonical()
    assert first().canonical()["source"] == source_hash(first)
    assert first().canonical() != edited().canonical()
    assert "source" not in PRUNERS.parse("random").canonical()


def test_own_components_by_module_and_class(own: Any) -> None:
    cls = own("own_d", "0")
    assert PRUNERS.parse("own_d:Own") == cls()
    assert PRUNERS.parse({"own_d:Own": {"start": 2}}) == cls(start=2)
    with pytest.raises(ConfigError, match="did you mean 'start'"):
        PRUNERS.parse({"own_d:Own": {"strat": 2}})


def test_own_components_come_back_from_their_spec(own: Any) -> None:
    cls = own("own_e", "0")
    assert PRUNERS.parse(cls(start=2).spec()) == cls(start=2)


def test_source_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"source of .* cannot be read"):
        source_hash(len)


@pytest.mark.parametrize("path", ["no_such_module:Thing", "math:no_such_name", "math:"])
def test_imports_that_fail_are_named(path: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot import '{path}'"):
        import_object(path)
    with pytest.raises(ConfigError, match=f"cannot import '{path}'"):
        SCHEDULES.parse(path)


@pytest.mark.parametrize("path", ["os:system", "subprocess:run", "antigravity:webbrowser", "shutil:rmtree"])
def test_nothing_of_python_itself_is_imported(path: str) -> None:
    module = path.partition(":")[0]
    known = module in sys.modules
    for registry in (PRUNERS, SCHEDULES):
        with pytest.raises(ConfigError, match=f"{module} is a part of Python; name code of your own"):
            registry.parse({path: {"anything": 1}})
    assert (module in sys.modules) == known


@pytest.mark.parametrize(
    ("code", "message"),
    [("raise SystemExit(3)", "SystemExit: 3"), ("1 / 0", "ZeroDivisionError"), ("def f(:", "SyntaxError")],
)
def test_own_code_that_fails_when_it_is_imported(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=f"cannot import 'own_broken:Thing': {message}"):
        PRUNERS.parse("own_broken:Thing")


@pytest.mark.parametrize("path", ["numpy:ndarray", "advprune_core.trainers.schedules:Cosine"])
def test_what_is_imported_must_be_of_the_family(path: str) -> None:
    with pytest.raises(ConfigError, match="pruner"):
        PRUNERS.parse(path)


def test_registries_find_every_module_of_their_package() -> None:
    assert {"full", "random", "redraw"} <= set(PRUNERS.classes())
    assert list(PRUNERS.classes()) == sorted(PRUNERS.classes())
    PRUNERS.classes().clear()
    assert "full" in PRUNERS.classes()
