"""Which runs stand for an arm, and which of two arms' can be paired."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.seeds import as_a_constant, both_outcomes, runs_of, was_run, well_covered, why_unpaired
from tests.made_up import outcome_table, stacked, study_table


@pytest.mark.parametrize(
    ("seeds", "covered"),
    [([5, 5, 1], [1, 1, 0]), ([5, 3, 2], [1, 1, 0]), ([2, 2, 1], [1, 1, 0]), ([1, 1], [1, 1]), ([], [])],
)
def test_what_has_seeds_enough_to_be_ranked(seeds: list[int], covered: list[int]) -> None:
    assert well_covered(pd.Series(seeds, dtype=int)).tolist() == [bool(one) for one in covered]


def test_a_run_that_stands_in_a_table_twice_is_one() -> None:
    table = study_table({("a", 0.5): [(1.0, 0.5), (1.0, 0.6)], ("a", 1.0): [(1.0, 0.9)], ("b", 0.5): [(1.0, 0.1)]})
    runs = runs_of(stacked(table, table), "a", 0.5)
    assert runs["robust"].to_dict() == {0: 0.5, 1: 0.6}
    assert [was_run(table, *point) for point in (("a", 0.5), ("a", 0.4), ("c", 0.5))] == [True, False, False]


@pytest.mark.parametrize(
    ("robust", "classes", "constant"),
    [((0.10, 0.12), 10, True), ((0.10, 0.13), 10, False), ((0.10, 0.12), 100, False), ((0.10, 0.12), None, False)],
)
def test_a_constant_answer_is_robust_where_one_class_is(
    robust: tuple[float, ...], classes: int | None, constant: bool
) -> None:
    runs = study_table({("a", 0.5): [(1.0, value) for value in robust]})
    assert as_a_constant(runs if classes is None else runs.assign(classes=classes)) == constant


def test_outcomes_of_images_come_back_by_seed() -> None:
    outcomes = {arm: np.random.default_rng(number).random((2, 9)) < 0.5 for number, arm in enumerate("ab")}
    table = outcome_table(outcomes)
    found = both_outcomes(*(runs_of(table, arm, 0.5) for arm in "ab"))
    assert found is not None
    np.testing.assert_array_equal(found, [outcomes["a"], outcomes["b"]])


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop(columns="outcomes"),
        lambda table: table.assign(outcomes=table["outcomes"].mask(table["seed"] == 1)),
        lambda table: table.assign(test_images=table["test_images"].mask(table["seed"] == 1, 8)),
        lambda table: table.assign(test_images=table["test_images"].mask(table["arm"] == "b", 8)),
        lambda table: table.assign(test_images=1),
    ],
    ids=["none", "not of all", "of other images in a seed", "of other images in an arm", "of one image"],
)
def test_outcomes_that_cannot_be_paired_are_none(change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    table = change(outcome_table({arm: np.ones((2, 9), bool) for arm in "ab"}))
    assert both_outcomes(*(runs_of(table, arm, 0.5) for arm in "ab")) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (None, ("ok", 0.5), "not run"),
        (("ok", 0.5), None, "not run"),
        (("diverged", np.nan), None, "diverged"),
        (("ok", 0.5), ("failed", np.nan), "failed"),
        (("collapsed", np.nan), ("ok", 0.5), "not evaluated"),
    ],
)
def test_why_a_seed_has_no_pair(ours: tuple[str, float] | None, theirs: tuple[str, float] | None, reason: str) -> None:
    def runs(run: tuple[str, float] | None) -> pd.DataFrame:
        rows = [] if run is None else [{"seed": 7, "status": run[0], "robust": run[1]}]
        return pd.DataFrame(rows, columns=["seed", "status", "robust"]).set_index("seed")

    assert why_unpaired(runs(ours), runs(theirs), 7) == reason
