"""What a class of a notebook rests on in other cells: an edit there is another run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CELLS = [
    "import math\nfrom advprune_core.base.sources import source_hash\nunused = 1",
    "SIGN = -1",
    "ORDER = [3, 1]",
    "def inner(x):\n    return SIGN * x",
    "def score(x):\n    local = inner(x)\n    return local + math.pi",
    "class Base:\n    def first(self):\n        return ORDER[0]",
    "count, local = 0, 5",
    "class Own(Base):\n    def select(self, x):\n        global count\n        count += 1\n"
    "        return [score(value) for value in x]",
    "print(source_hash(Own))",
]

RUN = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in json.loads(sys.argv[1]):
    shell.run_cell(cell, store_history=True).raise_error()
"""


def hashes(cells: list[str]) -> list[str]:
    """What the cells print, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(cells)], check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout.split()


HASH = CELLS[-1]


@pytest.mark.parametrize(
    ("cells", "same"),
    [
        pytest.param([HASH], True, id="nothing"),
        pytest.param(["SIGN = 1", HASH], False, id="a constant of a function that a function uses"),
        pytest.param(["SIGN = -1", HASH], True, id="a constant that is set to what it was"),
        pytest.param([CELLS[4].replace("+ math", "- math"), HASH], False, id="a function"),
        pytest.param([CELLS[3].replace("* x", "+ x"), HASH], False, id="a function of a function"),
        pytest.param(["ORDER = [1, 3]", HASH], False, id="a list, of a base"),
        pytest.param(["ORDER[0] = 5", HASH], False, id="an item of a list"),
        pytest.param(["ORDER = [3, 1]", HASH], True, id="a list that is made again"),
        pytest.param(["ORDER.append(4)", HASH], True, id="a list that is used up: its assignment counts"),
        pytest.param(["make = lambda: [9]", "ORDER = make()", HASH], False, id="an assignment that calls something"),
        pytest.param(["count, unused, local = 7, 2, 3", HASH], True, id="what it counts itself, or does not use"),
        pytest.param(["Own().select([1.0])", HASH], True, id="that it was used"),
    ],
)
def test_an_edit_of_another_cell_is_another_source(cells: list[str], same: bool) -> None:
    first, *_, last = hashes([*CELLS, *cells])
    assert (first == last) == same


def test_what_was_assigned_counts_below_what_was_added() -> None:
    """An item that is set, or something added, does not hide the list."""
    for more in ("ORDER[0] = 5", "ORDER += [4]"):
        cells = [cell for first in ("[3, 1]", "[3, 2]") for cell in (f"ORDER = {first}", more, HASH)]
        first, last = hashes([*CELLS[:-1], *cells])
        assert first != last


def test_what_an_assignment_calls_is_looked_at_too() -> None:
    """And whatever it calls in turn."""
    before = ["def make():\n    return [2]", "ORDER = make()", HASH]
    after = ["def make():\n    return [1]", "ORDER = make()", HASH]
    first, last = hashes([*CELLS[:-1], *before, *after])
    assert first != last


def test_a_command_of_the_notebook_is_no_obstacle() -> None:
    first, *_, last = hashes([*CELLS, "%xmode Plain\nSIGN = 2", HASH])
    assert first != last
