"""What pruning loses, taken apart: against differences by hand."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from advprune_core.analysis.decomposition import BAR, decomposition, decomposition_figure, decomposition_findings

FULL, SHORTER, CHANCE, LONGER_STEPS, CHOSEN = (
    np.array(values) for values in ([0.80, 0.78, 0.79], [0.70, 0.71, 0.69], [0.60, 0.62, 0.64], [0.58, 0.63, 0.66],
                                    [0.65, 0.64, 0.70])
)  # fmt: skip


def rows(arm: str, fraction: float, robust: Any, **facts: Any) -> pd.DataFrame:
    facts = {"pruner": arm, "control": None, "variant": "", "cost": 1000 * fraction, **facts}
    return pd.DataFrame(
        {
            "arm": arm,
            "matched_fraction": fraction,
            "fraction": fraction if facts["control"] is None else 1.0,
            "seed": range(len(robust)),
            "clean": 0.9,
            "robust": robust,
        }
    ).assign(dataset="digits", norm="linf", eps=0.125, **facts)


def study(*parts: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)


def control(name: str, robust: Any, **facts: Any) -> pd.DataFrame:
    return rows(name, 0.2, robust, **{"control": name.partition("(")[0], "pruner": "full", **facts})


BASE = (rows("random", 1.0, FULL), rows("random", 0.2, CHANCE), rows("craig", 1.0, FULL), rows("craig", 0.2, CHOSEN))
COST, STEP = control("same_cost(random)", SHORTER), control("same_step_size(craig)", LONGER_STEPS, pruner="random")


def parts_of(table: pd.DataFrame, arm: str) -> dict[str, float]:
    found = decomposition(table)
    own = found[found["arm"] == arm]
    return dict(zip(own["part"], own["change"], strict=True))


@pytest.mark.parametrize(
    ("arms", "arm", "expected"),
    [
        ([COST], "random", {"steps": SHORTER - FULL, "data": CHANCE - SHORTER}),
        ([], "craig", {"steps and data": CHANCE - FULL, "selection": CHOSEN - CHANCE}),
        ([COST], "craig", {"steps": SHORTER - FULL, "data": CHANCE - SHORTER, "selection": CHOSEN - CHANCE}),
        (
            [COST, STEP],
            "craig",
            {
                "steps": SHORTER - FULL,
                "data": CHANCE - SHORTER,
                "optimiser": LONGER_STEPS - CHANCE,
                "selection": CHOSEN - LONGER_STEPS,
            },
        ),
        (
            [control("same_cost(craig)", SHORTER + 0.01)],
            "craig",
            {"steps": SHORTER + 0.01 - FULL, "data": CHANCE - SHORTER - 0.01, "selection": CHOSEN - CHANCE},
        ),
    ],
    ids=["random", "no control", "a rule", "a weighted rule", "its own control"],
)
def test_parts_are_the_differences_of_neighbours(
    arms: list[pd.DataFrame], arm: str, expected: dict[str, np.ndarray]
) -> None:
    table = study(*BASE, *arms)
    found = parts_of(table, arm)
    assert list(found) == list(expected)
    assert found == pytest.approx({part: values.mean() for part, values in expected.items()})
    own = decomposition(table)[lambda rows: rows["arm"] == arm]
    whole = own["after"].iloc[-1] - own["before"].iloc[0]
    assert own["change"].sum() == pytest.approx(whole), "the parts add up"
    for (_, row), values in zip(own.iterrows(), expected.values(), strict=True):
        interval = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
        assert (row["low"], row["high"]) == pytest.approx(interval)


def test_a_loss_of_one_part_is_not_taken_apart() -> None:
    assert not len(decomposition(study(*BASE[:2])))
    assert "such as the control same_cost" in decomposition_findings(study(*BASE[:2]))


def test_a_rule_that_costs_more_has_no_subset_by_chance_beside_it() -> None:
    table = study(*BASE[:3], rows("craig", 0.2, CHOSEN, cost=300), control("same_cost(craig)", SHORTER))
    assert list(parts_of(table, "craig")) == ["steps", "data and selection"]


def test_only_seeds_that_all_arms_have_count() -> None:
    shorter = control("same_cost(random)", [0.70, np.nan, 0.69])
    found = decomposition(study(*BASE[:2], shorter))
    assert found["seeds"].tolist() == [2, 2]
    assert found["before"].iloc[0] == pytest.approx(FULL[[0, 2]].mean())


def test_each_way_of_training_is_taken_apart_by_itself() -> None:
    def of(variant: str, shift: float) -> pd.DataFrame:
        table = study(*BASE[:2], COST)
        return table.assign(arm=f"{variant}: " + table["arm"], variant=variant, robust=table["robust"] - shift)

    found = decomposition(study(of("one", 0.0), of("two", 0.1)))
    assert found["variant"].tolist() == ["one", "one", "two", "two"]
    assert found["before"].iloc[2] == pytest.approx(FULL.mean() - 0.1)
    text = decomposition_findings(study(of("one", 0.0), of("two", 0.1)))
    assert "**one: static random subset, 20 %**: -17.0 points robust against all the data: steps -9.0 [" in text


def test_nothing_to_take_apart_is_said() -> None:
    table = study(BASE[1], COST)
    assert decomposition(table).empty
    assert "Nothing to take apart" in decomposition_findings(table)
    plt.close(decomposition_figure(table))


def test_the_figure_ends_where_the_arms_are() -> None:
    figure = decomposition_figure(study(*BASE, COST, STEP))
    (axis,) = figure.axes
    bars = [line.get_xdata() for line in axis.lines if line.get_linewidth() == BAR]
    ends = {round(float(values[-1]), 6) for values in bars}
    assert {round(100 * CHANCE.mean(), 6), round(100 * CHOSEN.mean(), 6)} <= ends
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["all the data", "fewer steps", "less data", "another step length", "which images"]
    plt.close(figure)
