"""What a budget buys: against the choice made by hand."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.budgets import best_within, budget_findings, costs, iso_cost_map

SEEDS = np.array([-0.011, 0.001, 0.0, 0.010])


def rows(
    arm: str, robust: float, *, visits: float, per_visit: float, fraction: float = 1.0, control: str | None = None
) -> pd.DataFrame:
    """Four runs of an arm on 100 training images."""
    own = np.random.default_rng([*arm.encode(), round(100 * fraction)]).normal(scale=0.001, size=4)
    return pd.DataFrame(
        {
            "key": [f"{arm} {fraction} {seed}" for seed in range(4)],
            "arm": arm,
            "variant": "",
            "pruner": arm.rpartition(": ")[2],
            "control": control,
            "matched_fraction": fraction,
            "fraction": 1.0 if control else fraction,
            "seed": range(4),
            "n": 100,
            "images_visited": 100 * visits,
            "cost": 100 * visits * per_visit,
            "clean": 0.9,
            "robust": robust + SEEDS + own - own.mean(),
            "dataset": "digits",
            "norm": "linf",
            "eps": 0.125,
        }
    )


PGD, HALF = rows("random", 0.50, visits=10, per_visit=17), rows("random", 0.45, visits=5, per_visit=17, fraction=0.5)
SHORT = rows("same_cost(random)", 0.47, visits=5, per_visit=17, fraction=0.5, control="same_cost")
FAST = rows("fast: random", 0.40, visits=10, per_visit=5)
TABLE = pd.concat([PGD, HALF, SHORT, FAST], ignore_index=True)


def chosen(table: pd.DataFrame, budget: float) -> tuple[Any, ...]:
    found = best_within(table, [budget])
    if not len(found):
        return ()
    (row,) = found.to_dict("records")
    return row["arm"], row["matched_fraction"], row["rival"]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (1.0, ("random", 1.0, "random")),
        (0.99, ("same_cost(random)", 0.5, "random")),
        (0.5, ("same_cost(random)", 0.5, "random")),
        (0.49, ("fast: random", 1.0, None)),
        (0.29, ()),
    ],
)
def test_the_best_that_a_budget_pays_for(budget: float, expected: tuple[Any, ...]) -> None:
    assert chosen(TABLE, budget) == expected
    itself = rows("same_cost(random)", 0.50, visits=10, per_visit=17, control="same_cost")
    assert chosen(pd.concat([itself, TABLE], ignore_index=True), budget) == expected, "the full run by its other name"


def test_a_pruned_arm_that_is_best_stands_beside_the_best_on_all_the_data() -> None:
    better = pd.concat([TABLE, rows("craig", 0.55, visits=4, per_visit=17, fraction=0.4)], ignore_index=True)
    assert chosen(better, 1.0) == ("craig", 0.4, "random")
    text = budget_findings(better, [1.0])
    assert "**craig, 40 %**, 55.0 [" in text
    assert "against the best on all the data, *all the data*: +5.0 points" in text
    assert "better" not in text, "what was chosen by what it is judged on gets no verdict"


def test_budgets_with_one_answer_share_a_line() -> None:
    lines = [line for line in budget_findings(TABLE, [0.3, 0.49, 0.5, 0.99]).splitlines() if line.startswith("- ")]
    assert [line.partition(":")[0] for line in lines] == [
        "- With 30 or 49 % of the most expensive run's cost",
        "- With 50 or 99 % of the most expensive run's cost",
    ]
    assert lines[0].endswith("seeds); nothing pruned was tested at this cost or less.")


def test_nobody_is_advised_to_know_the_true_labels() -> None:
    known = pd.concat([TABLE, rows("oracle", 0.6, visits=4, per_visit=17, fraction=0.4)], ignore_index=True)
    assert chosen(known, 1.0) == chosen(TABLE, 1.0)
    assert (costs(known)["arm"] == "oracle").any(), "the map has it"


def test_settings_of_an_own_pruner_are_no_markup() -> None:
    """Its cell is parsed, and its arm is printed."""
    own = rows("mine:_Own file=~/$s.npy", 0.48, visits=5, per_visit=17, fraction=0.5)
    table = pd.concat([PGD, own.assign(pruner='{"mine:_Own": {"file": "~/$s.npy"}}')], ignore_index=True)
    text = budget_findings(table, [0.5])
    assert r"**mine:\_Own file=\~/\$s.npy, 50 %**" in text
    plt.close(iso_cost_map(table))


def test_one_seed_that_is_the_highest_is_no_advice() -> None:
    lucky = rows("craig", 0.9, visits=4, per_visit=17, fraction=0.4)
    assert chosen(pd.concat([TABLE, lucky.iloc[:1]], ignore_index=True), 1.0) == chosen(TABLE, 1.0)
    assert chosen(lucky.iloc[:1], 1.0)[0] == "craig", "where nothing has more seeds it is all there is"


def test_a_rival_that_is_passed_over_was_tested_nevertheless() -> None:
    """To say that nothing was would make advice to prune of an even result."""
    few = pd.concat([HALF, SHORT.iloc[:2]], ignore_index=True)
    assert "what was tested on all the data at this cost or less has too few seeds" in budget_findings(few, [1.0])
    useless = pd.concat([HALF, SHORT.assign(robust=0.1)], ignore_index=True).assign(classes=10)
    told = "what was tested on all the data at this cost or less is no more robust than a constant answer."
    assert told in budget_findings(useless, [1.0])
    assert "nothing on all the data was tested at this cost or less." in budget_findings(HALF, [1.0])


def test_a_constant_answer_is_no_advice() -> None:
    useless = TABLE.assign(classes=10)
    useless.loc[useless["arm"] == "random", "robust"] *= 0.1
    assert chosen(useless, 1.0) == ("same_cost(random)", 0.5, None)
    nothing = budget_findings(TABLE.assign(classes=2))
    assert nothing == "No arm at this cost is more robust than a constant answer, so there is nothing to advise."


def test_costs_are_visits_times_what_each_costs() -> None:
    found = costs(TABLE).set_index(["arm", "matched_fraction"])
    assert found.loc[("fast: random", 1.0), ["visits", "per_visit", "cost"]].tolist() == [10, 5, 50]
    assert np.allclose(found["cost"], found["visits"] * found["per_visit"])
    assert found.loc[("random", 0.5), "robust"] == pytest.approx(0.45)


def test_what_was_not_tested_is_no_advice() -> None:
    none = TABLE.assign(robust=np.nan, clean=np.nan)
    assert costs(none).empty
    assert "nothing to advise" in budget_findings(none)
    plt.close(iso_cost_map(none))


def test_the_map_has_every_arm_and_lines_of_equal_cost() -> None:
    figure = iso_cost_map(TABLE)
    axis = figure.axes[0]
    drawn = np.concatenate(
        [np.asarray(collection.get_offsets()) for collection in axis.collections if len(collection.get_offsets())]
    )
    assert sorted(map(tuple, drawn.tolist())) == [(5, 17), (5, 17), (10, 5), (10, 17)]
    products = [np.prod(line.get_xydata(), axis=1) for line in axis.lines]
    assert all(np.allclose(product, product[0]) for product in products)
    assert max(product[0] for product in products) == pytest.approx(170)
    plt.close(figure)


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"eps": 0.25}, "digits, L-inf 4/16"),
        ({"dataset": '{"digits": {"label_noise": 0.4}}'}, "digits (label_noise 0.4), L-inf 2/16"),
    ],
)
def test_no_arm_of_another_threat_model_or_data_set_is_advised(other: dict[str, Any], name: str) -> None:
    theirs = TABLE.assign(robust=TABLE["robust"] - 0.1 * (1 + (TABLE["fraction"] < 1)), **other)
    both = pd.concat([TABLE, theirs], ignore_index=True)
    text = budget_findings(both, [1.0])
    first, second = text.split(f"**{name}**")
    assert "**digits, L-inf 2/16**" in first
    assert "**all the data**, 50.0 [" in first
    assert "+5.0 points" in first
    assert "**all the data**, 40.0 [" in second
    assert "+15.0 points" in second
    figure = iso_cost_map(both)
    assert len([axis for axis in figure.axes if axis.get_xlabel()]) == 2
    plt.close(figure)
