"""What a setting may name as the maker of a network: nothing else is ever called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from advprune_core.base.factories import network_factory
from advprune_core.base.settings import ConfigError
from advprune_core.models.base import MODELS
from tests.made_up import entry_point

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "accuracy_vs_fraction.ipynb"
MINE = """
import os
from functools import partial
from os import system
from shutil import rmtree
from typing import TYPE_CHECKING

from torch import load, nn

if TYPE_CHECKING:
    from elsewhere import Net

class Mine(nn.Module):
    pass

class Evil:
    def __init__(self, path="gone"):
        os.mkdir(path)

def make(width=3) -> "Net":
    return nn.Linear(width, 10)

again = partial(make, 5)
number = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An importable module of one's own."""
    (tmp_path / "mine_made.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    "path",
    [
        "mine_made:Mine",
        "mine_made:make",
        "torch.nn:Flatten",
        "torchvision.models:resnet18",  # of an installed package, and annotated
        "torchvision.models:ResNet",
        "advprune_core.models.base:build_model",
    ],
)
def test_what_makes_networks(path: str) -> None:
    made = network_factory(path)
    assert made.__name__ == path.partition(":")[2]


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("os:system", "os is a part of Python"),
        ("posix:system", "posix is a part of Python"),
        ("builtins:eval", "builtins is a part of Python"),
        ("subprocess:run", "subprocess is a part of Python"),
        ("mine_made:system", "it is a builtin_function_or_method"),
        ("mine_made:os", "it is a module"),
        ("mine_made:rmtree", "a function of shutil, a part of Python"),
        ("mine_made:load", "a function of torch.serialization, and does not say"),
        ("mine_made:Evil", "it is another class"),
        ("mine_made:again", "it is a partial"),
        ("mine_made:number", "it is a int"),
        ("torch:load", "does not say '-> nn.Module'"),
        ("torch.hub:load", "does not say '-> nn.Module'"),
        ("numpy:load", "is not what makes a network"),
        ("pandas:read_pickle", "does not say '-> nn.Module'"),
        ("advprune_core.study.archive:export_study", "does not say '-> nn.Module'"),
    ],
)
def test_what_does_not(path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        network_factory(path)
    with pytest.raises(ConfigError, match=words):
        MODELS.parse({path: {"path": "anything"}})


@pytest.mark.usefixtures("mine")
def test_arguments_must_fit_before_anything_is_called() -> None:
    assert isinstance(MODELS.parse({"mine_made:make": {"width": 4}}).build(), nn.Linear)
    with pytest.raises(ConfigError, match=r"mine_made:make cannot be called with .*'widht'"):
        MODELS.parse({"mine_made:make": {"widht": 4}})


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("spec", ["os:mkdir", "mine_made:Evil"])
@pytest.mark.parametrize("command", [["run"], ["study", str(NOTEBOOK)]])
def test_a_profile_runs_nothing_else(
    command: list[str], spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    call, target = entry_point(monkeypatch, capsys), tmp_path / "gone"
    model = f"{{'{spec}': {{path: '{target}'}}}}"
    given = ["--model", model] if command == ["run"] else ["-p", f"model={model}"]
    code, _, said = call(*command, *given, "--dry-run", "--out", str(tmp_path / "r"))
    assert code == 2
    assert said.startswith("advprune: ")
    assert not target.exists()
