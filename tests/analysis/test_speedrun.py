"""The most robust network for a budget: what is said of the runs that a ranking chose."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib import pyplot as plt

from advprune_core.analysis.ranking import ranked
from advprune_core.analysis.speedrun import results, speedrun_figure, speedrun_findings
from tests.analysis.figure_checks import faults
from tests.analysis.test_ranking import FULL, PLAIN, PRUNED, RANKING, held_out, runs
from tests.made_up import stacked


@pytest.mark.parametrize(
    ("pruned", "leads"), [(0.57, "ours: all the data"), (0.65, "ours: static random subset, 50 %")]
)
@pytest.mark.parametrize(("on_held_out", "first"), [(0.66, "pruned"), (0.62, "full")])
def test_who_leads_is_the_most_robust_but_who_is_compared_was_chosen_on_held_out_images(
    pruned: float, leads: str, on_held_out: float, first: str
) -> None:
    table = stacked(PLAIN, FULL, runs("ours: random", pruned, fraction=0.5))
    ranking = ranked(held_out(plain=0.55, full=0.64, pruned=on_held_out))
    text = speedrun_findings(table, ranking, textbook=["textbook: random"], goals=[0.5, 0.99])
    assert text.startswith(f"**{leads}** leads: {100 * max(pruned, 0.6):.1f} [")
    assert "(the highest of 3 means, so a little too good)" in text
    assert "in 2.0 minutes of one core" in text
    gain = re.search(r"The first pruned run of the ranking, .*?: ([+-][\d.]+) points", text)
    assert gain is not None
    assert float(gain[1]) == pytest.approx(100 * (pruned - 0.6), abs=0.06)
    best = re.search(r"The first of the ranking, .*?against \*textbook: .*?\*: ([+-][\d.]+) points", text)
    assert best is not None
    chosen = {"pruned": pruned, "full": 0.6}[first]
    assert float(best[1]) == pytest.approx(100 * (chosen - 0.5), abs=0.06)
    assert ("On held-out images" in text) == (chosen < max(pruned, 0.6))
    name = {"pruned": "ours: static random subset, 50 %", "full": "ours: all the data"}[first]
    assert f"50 % robust: reached by the first of the ranking, *{name}*, on these test images." in text
    assert f"99 % robust: not reached: the first of the ranking, *{name}*, has a lower mean." in text


@pytest.mark.parametrize(
    ("full", "seeds", "told"),
    [
        (0.605, 5, "the first of the ranking, *ours: all the data*, is above it by its mean, not by its interval."),
        (0.65, 2, "no verdict, as the first of the ranking, *ours: all the data*, has 2 seeds."),
        (0.65, 0, "not known, as the first of the ranking has no tested run."),
    ],
)
def test_a_goal_is_reached_by_what_was_chosen_for_it_alone(full: float, seeds: int, told: str) -> None:
    """The highest of several means is above a goal by chance: another arm's does not count."""
    table = stacked(PLAIN, runs("ours: random", full, seeds=seeds), runs("lucky: random", 0.95))
    text = speedrun_findings(table, ranked(held_out(plain=0.55, full=0.64)), textbook=[], goals=[0.60])
    assert f"- 60 % robust: {told}" in text


def test_one_lucky_seed_does_not_lead() -> None:
    table = stacked(PLAIN, FULL, runs("lucky: random", 0.99, seeds=1))
    text = speedrun_findings(table, RANKING, textbook=["textbook: random"])
    assert text.startswith("**ours: all the data** leads")
    assert results(table)["arm"].tolist() == ["ours: random", "textbook: random", "lucky: random"]


def test_nobody_takes_the_name_of_a_first_place_that_has_no_tested_run() -> None:
    table = stacked(PLAIN, FULL, runs("ours: random", 0.57, fraction=0.5, seeds=0))
    text = speedrun_findings(table, RANKING, textbook=["textbook: random"])
    untested = "*ours: static random subset, 50 %* has no tested run."
    assert text.count(untested) == 2
    pair = "*ours: static random subset, 50 %*, against *textbook: all the data*"
    assert f"- The first of the ranking, {pair}: {untested}" in text


def test_where_nothing_pruned_is_ranked_it_says_so() -> None:
    text = speedrun_findings(
        stacked(PLAIN, FULL), ranked(held_out(plain=0.55, full=0.64)), textbook=["textbook: random"]
    )
    assert "No pruned run has a place in the ranking, so that nothing is said of pruning." in text


def test_where_the_textbook_leads_nothing_is_held_against_it() -> None:
    table = stacked(runs("textbook: random", 0.7), FULL)
    text = speedrun_findings(table, ranked(held_out(plain=0.7, full=0.6)), textbook=["textbook: random"])
    assert text.startswith("**textbook: all the data** leads")
    assert "against" not in text
    apart = FULL.assign(run_device=["a GPU", *["a laptop"] * (len(FULL) - 1)])
    apart = speedrun_findings(apart, ranked(apart), textbook=[])
    assert f"in {FULL['cost'].mean():,.0f} forward-equivalents, on more than one device" in apart
    untested = FULL.assign(robust=np.nan)
    assert speedrun_findings(untested, ranked(untested), textbook=[]) == "No arm was tested, so nobody leads."


def test_the_figure_has_a_row_for_each_arm_the_best_on_top() -> None:
    table = stacked(PLAIN, FULL, PRUNED)
    figure = speedrun_figure(table)
    (axis,) = figure.axes
    names = ["ours: all the data", "ours: static random subset, 50 %", "textbook: all the data"]
    assert [label.get_text() for label in axis.get_yticklabels()] == names
    assert axis.yaxis_inverted()
    means = [bars.lines[0].get_xdata()[0] for bars in axis.containers]
    assert means == pytest.approx(100 * results(table)["robust"].to_numpy())
    assert faults(figure) == []
    plt.close(figure)


def test_what_the_ranking_cannot_tell_apart_is_named() -> None:
    level = held_out(plain=0.6, full=0.6).assign(robust=0.6)
    text = speedrun_findings(stacked(PLAIN, FULL), ranked(level), textbook=[])
    pair = "*textbook: all the data* in the ranking, which the order of the grid decides: *ours: all the data*."
    assert f"- Level with {pair}" in text


def test_a_constant_answer_does_not_lead() -> None:
    useless = runs("constant: random", 0.10).assign(classes=10)
    table = stacked(useless, runs("ours: random", 0.08).assign(classes=100))
    assert results(table)["arm"].tolist() == ["ours: random", "constant: random"]
    told = "No arm is more robust than a constant answer, so nobody leads."
    assert speedrun_findings(useless, ranked(useless), textbook=[]) == told


def test_one_run_on_all_the_data_that_several_pruners_share_is_one_point() -> None:
    """It takes one place in the ranking, is level with nobody, and is the textbook under any of its names."""
    shared = [rows.assign(arm="textbook: aum") for rows in (PLAIN, held_out(plain=0.55))]
    ranking = ranked(stacked(held_out(plain=0.55, full=0.64, pruned=0.66), shared[1]))
    assert ranking["arm"].tolist() == ["ours: random", "ours: random", "textbook: random"]
    table = stacked(PLAIN, shared[0], FULL, PRUNED)
    assert results(table)["arm"].tolist() == ["ours: random", "ours: random", "textbook: random"]
    text = speedrun_findings(table, ranking, textbook=["textbook: aum"])
    assert "(the highest of 3 means" in text
    assert "Level with" not in text
    assert "The first of the ranking, *ours: static random subset, 50 %*, against *textbook: all the data*" in text
    reversed_ = speedrun_findings(stacked(shared[0], PLAIN, FULL, PRUNED), ranking, textbook=["textbook: random"])
    assert "against *textbook: all the data*: " in reversed_
    plt.close(speedrun_figure(table))
