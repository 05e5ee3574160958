"""Where something went wrong is told with the error, in whatever process it happened."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from advprune_core.base.failures import message_of, note_place

MINE = """
import torch

def select(x):
    return x.foo

def through(x):
    return torch.nn.functional.cross_entropy(x, "labels")
"""


def raised_by(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:
        note_place(error)
        return error
    raise AssertionError("nothing was raised")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (tmp_path / "mine_that_fails.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("mine_that_fails")


def test_ones_own_file_and_line_are_named(mine: object) -> None:
    error = raised_by(lambda: mine.select(3))  # type: ignore[attr-defined]
    told = "AttributeError: 'int' object has no attribute 'foo' (mine_that_fails.py, line 5 of select)"
    assert message_of(error) == told
    assert message_of(pickle.loads(pickle.dumps(error))) == told, "as from another process"


def test_what_fails_elsewhere_is_told_with_the_line_that_led_there(mine: object) -> None:
    import torch

    text = message_of(raised_by(lambda: mine.through(torch.zeros(2, 2))))  # type: ignore[attr-defined]
    assert "(mine_that_fails.py, line 8 of through, then functional.py, line " in text


def test_the_standard_library_is_nobodys_own() -> None:
    text = message_of(raised_by(lambda: json.loads("{")))
    assert "(test_failures.py, line " in text
    assert ", then decoder.py, line " in text
    assert message_of(ValueError("no place")) == "ValueError: no place"
