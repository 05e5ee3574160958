"""Components and registries: how they are named, found and told apart."""

from __future__ import annotations

import hashlib
import importlib
import linecache
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from advprune_core.base.components import Component, import_object
from advprune_core.base.settings import ConfigError
from advprune_core.base.sources import source_hash
from advprune_core.pruners import PRUNERS
from advprune_core.trainers.schedules import SCHEDULES
from tests.base.tools import TOOLS, Blade, Hammer, Outer, Saw, Tool

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


def test_what_own_code_imports_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own modules at any distance, in each way to import them; not what is not imported, nor what was installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    files = {
        "net_of_own.py": "import numpy, wide_of_own.one\nfrom layers_of_own import norm\nfrom pack_of_own import sub\n",
        "wide_of_own/__init__.py": "TWO = 2\n",
        "wide_of_own/one.py": "\ufeffimport marked_of_own\n",
        "marked_of_own.py": "x = 1\n",
        "late_of_own/__init__.py": "",
        "late_of_own/inner.py": "x = 1\n",
        "layers_of_own.py": "from constants_of_own import EPS\ndef norm(x):\n    return x + EPS\n",
        "constants_of_own.py": "EPS = 1\n",
        "pack_of_own/__init__.py": "from .deep import value\n",
        "pack_of_own/sub.py": "from . import deep\nfrom .deep import value as again\n",
        "pack_of_own/deep.py": "value = 1\n",
        "beside_of_own.py": "x = 1\n",
    }
    for package in ("pack", "wide", "late"):
        (tmp_path / f"{package}_of_own").mkdir()
    body = "def network():\n    from late_of_own import inner\n"

    def digest() -> str:
        importlib.invalidate_caches()
        linecache.clearcache()
        try:
            return source_hash(importlib.import_module("net_of_own").network)
        finally:
            for name in [name for name in sys.modules if "_of_own" in name]:
                del sys.modules[name]

    for name, text in files.items():
        (tmp_path / name).write_text(text + body * (name == "net_of_own.py"))
    first = digest()
    assert digest() == first
    for name in files:
        path = tmp_path / name
        before = path.read_text()
        path.write_text(f"{before}# an edit\n")
        assert (digest() == first) == (name == "beside_of_own.py"), name
        path.write_text(before)
    assert digest() == first
    body = "def network(): ...\n"
    (tmp_path / "net_of_own.py").write_text(alone := f"import numpy, torch.nn as nn, os\n{body}")
    assert digest() == hashlib.sha256(alone.encode()).hexdigest()[:16], "nothing of its own: the file alone"


def test_what_is_imported_anew_is_looked_at_anew(own: Any, tmp_path: Path) -> None:
    (tmp_path / "aid_of_own.py").write_text("value = 1\n")
    cls = own("own_f", "0 * __import__('importlib').import_module('aid_of_own').value")
    (tmp_path / "own_f.py").write_text(f"import aid_of_own\n{(tmp_path / 'own_f.py').read_text()}")
    before = source_hash(cls)
    (tmp_path / "aid_of_own.py").write_text("value = 22\n")
    assert source_hash(cls) != before


SCRIPT = """
import json, sys
import deep_of_own.part
from numbers_of_own import EPS
import unused_of_own
from advprune_core.base.sources import source_hash

class Own:
    def select(self):
        import inside_of_own
        return deep_of_own.part.value + EPS

print(source_hash(Own))
"""


def test_a_class_of_a_script_rests_on_the_own_files_that_it_uses(tmp_path: Path) -> None:
    (tmp_path / "deep_of_own").mkdir()
    files = {
        "script.py": SCRIPT,
        "deep_of_own/__init__.py": "",
        "deep_of_own/part.py": "value = 1\n",
        "numbers_of_own.py": "EPS = 1\n",
        "inside_of_own.py": "x = 1\n",
        "unused_of_own.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def digest() -> str:
        return subprocess.run(
            [sys.executable, "script.py"], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    first = digest()
    for name in ("deep_of_own/part.py", "numbers_of_own.py", "inside_of_own.py", "unused_of_own.py"):
        (tmp_path / name).write_text(f"{files[name]}# an edit\n")
        assert (digest() == first) == (name == "unused_of_own.py"), name
        (tmp_path / name).write_text(files[name])


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
