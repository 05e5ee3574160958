"""What is measured: cases, their goals, and the table that amounts make of them.

A *case* measures some contenders side by side, round by round. A *goal* is a row of the table: one of
them is ours, one is a peer, and the ratio, the peer's median over ours, should be at least so much.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import pandas as pd

from benchmarks.readings import Readings
from benchmarks.timing import Round, medians

#: Contenders that are somebody else's package, which need not be installed, and how it is imported.
PACKAGES = {"torchattacks": "torchattacks", "Foolbox": "foolbox", "ART": "art", "pyautoattack": "pyautoattack"}
COLUMNS = ["work", "setting", "peer", "ratio", "target", "met", "device"]


class OtherResults(Exception):
    """A peer's result is not ours, so that their seconds cannot be compared."""


@dataclass(frozen=True)
class Goal:
    """A row of the table: `peer` takes at least `target` times what `ours` takes."""

    ours: str
    peer: str
    target: float


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes
    ----------
    name : str
        What it is called on the command line.
    work, setting : str
        What is done, and with which network, data and numbers.
    goals : tuple of Goal
        Rows of the table.
    begin : callable
        A context, whose preparation checks that results agree, and that gives a `Round`.
    rounds : int
        Counted ones.
    warm_up : bool
        Do one round more before them: first calls load and compile.
    long : bool
        Takes many minutes.
    unit : str
        Of the amounts.
    """

    name: str
    work: str
    setting: str
    goals: tuple[Goal, ...]
    begin: Callable[[], AbstractContextManager[Round]]
    rounds: int = 5
    warm_up: bool = True
    long: bool = False
    unit: str = "s"

    def contenders(self) -> list[str]:
        """Those that its goals name."""
        return list(dict.fromkeys(name for goal in self.goals for name in (goal.ours, goal.peer)))

    def setting_of(self, goal: Goal) -> str:
        """What the table says of a goal's row: which of ours it is, too, where there are several."""
        several = len({other.ours for other in self.goals}) > 1
        return f"{self.setting}; {goal.ours}" if several else self.setting

    def with_rounds(self, rounds: int) -> Case:
        """The same with another number of rounds."""
        return replace(self, rounds=rounds)


def installed(contender: str) -> bool:
    """Whether what a contender needs is here."""
    return contender not in PACKAGES or importlib.util.find_spec(PACKAGES[contender]) is not None


def missing_rounds(case: Case, readings: Readings, present: Callable[[str], bool] = installed) -> list[int]:
    """Numbers of the rounds, from 1, that lack a contender which could take part."""
    rounds = readings.of(case.name).rounds
    wanted = {name for name in case.contenders() if present(name)}
    return [number for number in range(1, case.rounds + 1) if not wanted <= set(rounds.get(number, ()))]


def table(cases: Iterable[Case], readings: Readings) -> pd.DataFrame:
    """All goals of all cases; `COLUMNS`."""
    return pd.DataFrame([row for case in cases for row in _rows(case, readings)], columns=COLUMNS)


def _rows(case: Case, readings: Readings) -> list[dict[str, str | float | None]]:
    found = readings.of(case.name)
    middle = medians(found.rounds.values())
    rows = []
    for goal in case.goals:
        ratio, met = None, "not measured"
        if goal.ours in middle and goal.peer in middle:
            ratio = middle[goal.peer] / middle[goal.ours]
            enough = len(found.rounds) >= case.rounds
            met = ("yes" if ratio >= goal.target else "no") if enough else f"after {len(found.rounds)} rounds only"
        elif goal.ours in middle:
            met = f"no: {goal.peer} is not installed"
        values = (case.work, case.setting_of(goal), goal.peer, ratio, goal.target, met, found.device)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def chosen(cases: Sequence[Case], names: Sequence[str], *, long: bool) -> list[Case]:
    """The cases of these names, or that begin with one and a dash; without any, the short ones, or the long ones.

    Raises
    ------
    ValueError
        A name that is none.
    """
    if not names:
        return [case for case in cases if case.long == long]

    def meant(case: Case, name: str) -> bool:
        return f"{case.name}-".startswith(f"{name}-")

    for name in names:
        if not any(meant(case, name) for case in cases):
            raise ValueError(f"there is no case {name!r}; there are {', '.join(case.name for case in cases)}")
    return [case for case in cases if any(meant(case, name) for name in names)]
