"""The package's own names: all there, with their types, and imported when they are asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import advprune_core

SOURCE = Path(advprune_core.__file__)
HEAVY = {"torch", "torchvision", "pandas", "matplotlib", "scipy", "sklearn", "papermill"}


def test_types_and_homes_agree() -> None:
    """What mypy reads, where the names are imported from, and what is public are one list."""
    (typed,) = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    read = {alias.name: str(node.module).removeprefix("advprune_core.") for node in imports for alias in node.names}
    assert read == advprune_core._HOME_OF
    assert sorted(read) == sorted(advprune_core.__all__)


@pytest.mark.parametrize("name", advprune_core.__all__)
def test_a_name_is_that_of_its_home(name: str) -> None:
    home = import_module(f"advprune_core.{advprune_core._HOME_OF[name]}")
    assert getattr(advprune_core, name) is getattr(home, name)
    assert name in dir(advprune_core)


def test_rooms_are_attributes() -> None:
    folders = {path.parent.name for path in SOURCE.parent.glob("*/__init__.py")}
    assert folders - {"cli"} == advprune_core._ROOMS
    for name in advprune_core._ROOMS:
        assert getattr(advprune_core, name) is import_module(f"advprune_core.{name}")


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        advprune_core.prune  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'prune'"):
        exec("from advprune_core import prune")


COMMAND = "import sys; sys.argv[0] = 'advprune'\nfrom advprune_core.cli import main\ntry:\n    main()\nfinally:\n    "


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("import advprune_core; ", []),
        ("from advprune_core import AdvpruneError; ", []),
        (COMMAND, ["--help"]),
        (COMMAND, ["list"]),
        (COMMAND, ["list", "pruners"]),
        (COMMAND, ["study", "--help"]),
        (COMMAND, ["init", "mine"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_needs_no_learning_imports_none(tmp_path: Path, code: str, arguments: list[str]) -> None:
    code += "import sys; print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "advprune_core" in done.stderr.split()
    assert HEAVY & set(done.stderr.split()) == set()
