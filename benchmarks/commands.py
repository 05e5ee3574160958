"""What people wait for: `make study`, a notebook whose runs are all there, `import advprune_core`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.cases import Case, Goal
from benchmarks.timing import Round, seconds

ALLOWED = "time allowed"
ADVPRUNE = (sys.executable, "-c", "from advprune_core.cli import main; main()")
#: A study of two short runs, for what is around them.
SMALL = (
    "-p",
    "epochs=1",
    "-p",
    "fractions=[1.0, 0.5]",
    "-p",
    "seeds=[0]",
    "-p",
    "controls=[]",
    "-p",
    "timed_repeats=0",
)


def run(*command: str, **variables: str) -> None:
    """Carry out a command, quietly.

    Raises
    ------
    CalledProcessError
        If it fails.
    """
    subprocess.run(command, env={**os.environ, **variables}, check=True, capture_output=True)


def beside(allowed: float, own: float) -> Mapping[str, float]:
    """An amount and the one that is allowed."""
    return {"ours": own, ALLOWED: allowed}


@contextmanager
def study(allowed: float) -> Iterator[Round]:
    """The study of the digits, from nothing."""

    def measured(number: int) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            command = partial(run, *ADVPRUNE, "study", "digits", ADVPRUNE_RESULTS=folder)
            return beside(allowed, seconds(command, time.perf_counter))

    yield measured


@contextmanager
def notebook(allowed: float) -> Iterator[Round]:
    """A notebook executed by a command that trains nothing, because that was done before."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = str(Path(__file__).parents[1] / "notebooks" / "accuracy_vs_fraction.ipynb")
        command = partial(run, *ADVPRUNE, "study", notebook, "-f", "digits", *SMALL, ADVPRUNE_RESULTS=folder)
        command()
        yield lambda number: beside(allowed, seconds(command, time.perf_counter))


@contextmanager
def imported(allowed: float) -> Iterator[Round]:
    """A Python that does nothing but import the package."""
    command = partial(run, sys.executable, "-c", "import advprune_core")
    yield lambda number: beside(allowed, seconds(command, time.perf_counter))


def _case(
    name: str, work: str, setting: str, begin: Callable[[float], AbstractContextManager[Round]], allowed: float
) -> Case:
    goals = (Goal("ours", ALLOWED, 1.0),)
    setting = f"{setting}; {allowed:g} s of the clock allowed"
    return Case(name, work, setting, goals, partial(begin, allowed), warm_up=False)


CASES = [
    replace(_case("make-study", "make study", "digits, from an empty folder", study, 150.0), long=True),
    _case("notebook", "notebook overhead", "accuracy_vs_fraction, its runs being there", notebook, 10.0),
    _case("import", "import advprune_core", "a new process", imported, 2.0),
]
