"""Ratios, targets, what is met, what is left to do: from made-up amounts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import pandas as pd
import pytest

from benchmarks.bench import CASES
from benchmarks.cases import COLUMNS, PACKAGES, Case, Goal, chosen, missing_rounds, table
from benchmarks.readings import Readings, Rounds
from benchmarks.timing import Round


@contextmanager
def nothing() -> Iterator[Round]:
    yield lambda number: {}


CASE = Case(
    "pgd-small",
    "PGD",
    "a network",
    (Goal("exact", "textbook", 2.0), Goal("exact", "ART", 1.4), Goal("compiled", "textbook", 3.0)),
    nothing,
    rounds=3,
)
AMOUNTS = {"exact": [1.0, 2.0, 50.0], "compiled": [1.0, 1.5, 1.0], "textbook": [4.0, 4.0, 3.0]}


def readings(rounds: int = 3, **more: list[float]) -> Readings:
    amounts = {**AMOUNTS, **more}
    found = {n + 1: {name: values[n] for name, values in amounts.items()} for n in range(rounds)}
    return Readings({CASE.name: Rounds(found, "s", "this CPU")})


def met(rows: pd.DataFrame) -> list[str]:
    return list(rows["met"])


def test_a_ratio_is_the_peers_median_over_ours_and_met_at_the_target() -> None:
    rows = table([CASE], readings(ART=[1.0, 9.0, 2.0]))
    assert list(rows.columns) == COLUMNS
    middle = {name: median(values) for name, values in AMOUNTS.items()}
    expected = [middle["textbook"] / middle["exact"], 2.0 / middle["exact"], middle["textbook"] / middle["compiled"]]
    assert list(rows["ratio"]) == expected == [2.0, 1.0, 4.0]
    assert met(rows) == ["yes", "no", "yes"]  # the first one just so
    assert list(rows["setting"]) == ["a network; exact", "a network; exact", "a network; compiled"]
    assert set(rows["device"]) == {"this CPU"}


def test_a_peer_that_is_not_here_is_not_met() -> None:
    rows = table([CASE], readings())
    assert met(rows) == ["yes", "no: ART is not installed", "yes"]
    assert rows["ratio"].isna().tolist() == [False, True, False]


def test_what_was_not_measured_or_not_often_enough_is_not_met() -> None:
    assert met(table([CASE], Readings())) == ["not measured"] * 3
    assert met(table([CASE], readings(2, ART=[9.0, 9.0])))[1:] == ["after 2 rounds only"] * 2


def test_only_rounds_that_lack_someone_who_could_take_part_are_left() -> None:
    def without_art(name: str) -> bool:
        return name != "ART"

    def everyone(name: str) -> bool:
        return True

    assert missing_rounds(CASE, Readings(), without_art) == [1, 2, 3]
    assert missing_rounds(CASE, readings(2), without_art) == [3]
    assert missing_rounds(CASE, readings(), without_art) == []
    assert missing_rounds(CASE, readings(), everyone) == [1, 2, 3]  # it was installed meanwhile
    assert missing_rounds(CASE, readings(ART=[1.0, 1.0, 1.0]), everyone) == []
    assert missing_rounds(CASE.with_rounds(4), readings(), without_art) == [4]


def test_cases_are_chosen_by_name_or_the_part_before_a_dash() -> None:
    names = ["omp-5", "omp-50", "omp-memory", "import"]
    cases = [Case(name, "", "", (), nothing, long=name == "omp-50") for name in names]

    def found(*wanted: str, long: bool = False) -> list[str]:
        return [case.name for case in chosen(cases, wanted, long=long)]

    assert found() == ["omp-5", "omp-memory", "import"]
    assert found(long=True) == ["omp-50"]
    assert found("omp") == ["omp-5", "omp-50", "omp-memory"]
    assert found("omp-5") == ["omp-5"]
    with pytest.raises(ValueError, match="there is no case 'om'; there are omp-5"):
        found("om")


def test_the_cases_that_there_are_have_names_of_their_own_and_peers_that_are_known() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.rounds >= 5 for case in CASES)
    rows = [(case.work, case.setting, goal) for case in CASES for goal in case.goals]
    assert len(set(rows)) == len(rows)
    assert set(PACKAGES) <= {goal.peer for case in CASES for goal in case.goals}
    assert all(goal.target > 0 and goal.ours not in PACKAGES for case in CASES for goal in case.goals)
