"""What a page says beside its table, over the committed studies."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from advprune_core.analysis.labels import arm_label
from advprune_core.analysis.pages import findings_of, more_findings
from advprune_core.study.table import collect
from tests.reference import REFERENCE

SECTION = "Cheaper at equal robustness"


def of(study: str) -> pd.DataFrame:
    return collect(REFERENCE / study, study=study)


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        ("collapse", "nothing is pruned"),
        ("carried", "two threat models"),
        ("when_pruning_wins", "data with different labels"),
        ("pruners", "too many points"),
        ("speedrun", "all cost the same"),
    ],
)
def test_equal_robustness_is_left_out_where_it_means_nothing(study: str, reason: str) -> None:
    assert SECTION not in more_findings(of(study)), reason


def test_a_study_of_which_nothing_was_tested_yet_has_a_page() -> None:
    table = of("digits")
    untested = table.drop(columns=[name for name in table if name.startswith(("robust", "clean", "worst", "outcomes"))])
    assert SECTION not in more_findings(untested)


def test_runs_that_are_longer_for_their_share_stand_beside_what_costs_as_much() -> None:
    """A quarter of the data for four times the epochs is not the same training."""
    text = findings_of(of("budget_cifar10_cpu"))
    assert "against *carried, cost of 6 epochs: all the data*: " in text
    assert "with the same training" not in text
    assert "which costs" not in text


def test_each_objective_is_held_against_its_own_run_on_all_the_data() -> None:
    found = more_findings(of("gradient_matching_cifar10_cpu"))
    of_trades, of_mart = found[SECTION], found[f"{SECTION}: beside MART: random"]
    assert "to *TRADES: random* on all the data" in of_trades
    assert "MART" not in of_trades
    assert "to *MART: random* on all the data" in of_mart
    assert "TRADES" not in of_mart


def test_what_has_collapsed_is_no_bar() -> None:
    """To be as robust as FGSM, of which most runs fell, is no merit of a part of the data."""
    text = more_findings(of("collapse_by_fraction"))[SECTION]
    assert "is known to lose at most 2 points to *PGD-2: random* on all the data." in text
    assert "- as robust" not in text


def test_equal_robustness_is_that_of_the_runs() -> None:
    table = of("gradient_matching")
    text = more_findings(table)[SECTION]
    by_arm = {arm: rows.set_index("seed") for arm, rows in table[table["matched_fraction"] == 0.3].groupby("arm")}
    full = table[(table["arm"] == "TRADES: random") & (table["matched_fraction"] == 1)].set_index("seed")
    said = re.findall(r"robust: (TRADES.*?)(?:, 30 %| \(as 30 %\)): ([\d.]+)x cheaper, ([+-][\d.]+) points", text)
    labels = {arm_label(arm, list(by_arm)): arm for arm in by_arm}
    assert {label for label, *_ in said} == set(labels)
    for label, times, points in said:
        own = by_arm[labels[label]]
        assert float(times) == pytest.approx((full["cost"] / own["cost"]).mean(), abs=0.006)
        assert float(points) == pytest.approx(100 * (own["robust"] - full["robust"]).mean(), abs=0.06)
    assert text.count("robust: TRADES, BulletTrain: all the data: ") == 1, "as its own control it does not come again"
