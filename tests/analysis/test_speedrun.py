"""The most robust network for a budget: the ranking, who is tested, what is said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from advprune_core.analysis.ranking import Ranking, ranked
from advprune_core.analysis.speedrun import results, speedrun_figure, speedrun_findings
from advprune_core.base.settings import ConfigError
from advprune_core.study.grid import study_grid
from advprune_core.study.study import StudyConfig
from tests.analysis.figure_checks import faults
from tests.made_up import seeded_runs, stacked


def runs(arm: str, robust: float, *, fraction: float = 1.0, seeds: int = 5) -> pd.DataFrame:
    """Runs of an arm, of which so many were tested and the others diverged."""
    found = seeded_runs(arm, robust, fraction=fraction, cost_seconds=120)
    found.loc[found["seed"] >= seeds, ["robust", "clean"]] = np.nan
    return found.assign(status=np.where(found["seed"] < seeds, "ok", "diverged"))


def held_out(**reached: float) -> pd.DataFrame:
    """Runs of the three arms, and what they reach on held-out images."""
    arms = {"plain": ("textbook: random", 1.0), "full": ("ours: random", 1.0), "pruned": ("ours: random", 0.5)}
    return stacked(*(runs(arms[name][0], value, fraction=arms[name][1]) for name, value in reached.items()))


def winners(table: pd.DataFrame, top: int, beside: Sequence[str] = ()) -> list[Any]:
    return Ranking.of(StudyConfig(), choice_seeds=[100], top=top, textbook=beside).winners(table)


PLAIN, FULL, PRUNED = (
    runs("textbook: random", 0.50),
    runs("ours: random", 0.60),
    runs("ours: random", 0.57, fraction=0.5),
)
CHOICE = held_out(plain=0.55, full=0.64, pruned=0.66)
RANKING = ranked(CHOICE)


def test_a_ranking_has_every_point_and_those_that_lack_runs_last() -> None:
    """A mean of one seed that is the highest by chance is no first place, and what diverged does not vanish."""
    few, none = runs("few: random", 0.9, seeds=1), runs("none: random", 0.9, seeds=0)
    ranking = ranked(stacked(few, none, PLAIN, FULL, PRUNED))
    assert ranking[["arm", "fraction", "seeds", "runs"]].values.tolist() == [
        ["ours: random", 1.0, 5, 5],
        ["ours: random", 0.5, 5, 5],
        ["textbook: random", 1.0, 5, 5],
        ["few: random", 1.0, 1, 5],
        ["none: random", 1.0, 0, 5],
    ]
    assert ranking["held_out"].tolist()[:3] == pytest.approx([0.60, 0.57, 0.50])
    assert np.isnan(ranking["held_out"].iloc[-1])
    assert (ranking["seconds"].dropna() == 120).all()
    assert ("none: random", 1.0) not in winners(stacked(none, PLAIN), top=9)


@pytest.mark.parametrize(
    ("top", "beside", "expected"),
    [
        (2, ["ours: random"], [("ours: random", 0.5), ("ours: random", 1.0)]),
        (9, [], [("ours: random", 0.5), ("ours: random", 1.0), ("textbook: random", 1.0)]),
        # Whether pruning pays can be told of two only: the first that prunes, the first that doesn't.
        (1, [], [("ours: random", 0.5), ("ours: random", 1.0)]),
        (0, ["textbook: random"], [("ours: random", 0.5), ("ours: random", 1.0), ("textbook: random", 1.0)]),
    ],
)
def test_the_first_places_and_the_textbook_are_tested(top: int, beside: list[str], expected: Any) -> None:
    assert winners(CHOICE, top, beside) == expected
    assert winners(held_out(plain=0.55, full=0.64), top=1) == [("ours: random", 1.0)]


def test_what_is_level_with_the_last_of_the_first_places_is_tested_too() -> None:
    """In whatever order their seeds are added up; and the text says that they are level."""
    reached = {"a": [0.94, 0.94, 0.94], "b": [0.88, 0.88, 0.94], "c": [0.88, 0.94, 0.88]}
    table = stacked(*(runs(f"{name}: random", 0.6)[:3].assign(robust=values) for name, values in reached.items()))
    assert winners(table, top=2) == winners(table, top=3)
    assert len(winners(table, top=1)) == 1
    text = speedrun_findings(table, ranked(table[table["arm"] != "a: random"]), textbook=[])
    assert "- Level with *b: all the data* in the ranking, which the order of the grid decides: *c: all" in text


def test_what_chooses_is_not_what_is_reported() -> None:
    own = {"label_noise": 0.1, "limit": 300}
    config = StudyConfig.create(
        dataset={"digits": own},
        variants={"a": {}, "b": {"dataset": "digits"}},
        seeds=[0, 1],
        evaluation=["pgd"],
        images=100,
    )
    choice = Ranking.of(config, choice_seeds=[7, 8]).config
    assert choice.dataset == {"digits": {**own, "tested_on": "val_stop"}}
    assert choice.variants == {"a": {}, "b": {"dataset": {"digits": {"tested_on": "val_stop"}}}}
    assert (choice.study, choice.seeds, choice.images) == (f"{config.study}_choice", (7, 8), None)
    with pytest.raises(ConfigError, match=r"choice_seeds: \[1\] are among the seeds \[0, 1\] of the test"):
        Ranking.of(config, choice_seeds=[7, 1])


def test_a_part_of_the_grid_brings_nothing_of_the_test_into_the_ranking() -> None:
    parts = [{"fractions": [1.0]}, {"fractions": [0.5], "seeds": [0, 1, 2], "images": 90, "evaluation": ["fgsm"]}]
    config = StudyConfig.create(seeds=[0], controls=[], parts=parts)
    choice = Ranking.of(config, choice_seeds=[7]).config
    entries = study_grid(choice)
    assert {entry.seed for entry in entries} == {7}
    assert {entry.evaluation.images for entry in entries} == {None}
    assert len({tuple(attack.label() for attack in entry.evaluation.attacks) for entry in entries}) == 1
    assert {entry.fraction for entry in entries} == {1.0, 0.5}
    with pytest.raises(ConfigError, match=r"choice_seeds: \[2\]"):
        Ranking.of(config, choice_seeds=[2])


@pytest.mark.parametrize(
    "settings", [{"settings": {"dataset.tested_on": "test"}}, {"variants": {"a": {"dataset.tested_on": "test"}}}]
)
def test_nothing_is_ranked_on_the_test_images(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="would be ranked on the test images; leave tested_on out"):
        Ranking.of(StudyConfig.create(**settings), choice_seeds=[7])


@pytest.mark.parametrize(
    ("option", "value"),
    [("choice_seeds", 100), ("choice_seeds", []), ("top", -1), ("top", 1.5), ("top", "many"), ("goals", [75])],
)
def test_options_are_checked_before_any_work(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        Ranking.of(StudyConfig(), **{"choice_seeds": [7], option: value})


def test_where_nothing_has_a_rank_nothing_is_tested() -> None:
    with pytest.raises(ConfigError, match="no arm has a rank"):
        winners(runs("none: random", 0.9, seeds=0), top=3)


def test_a_constant_answer_has_no_rank_and_does_not_lead() -> None:
    useless = runs("constant: random", 0.10)
    table = stacked(useless, runs("ours: random", 0.30)).assign(classes=10)
    assert winners(table, top=1) == [("ours: random", 1.0)]
    assert ranked(table)["held_out"].isna().tolist() == [False, True]
    assert results(table)["arm"].tolist() == ["ours: random", "constant: random"]
    alone = useless.assign(classes=10)
    told = "No arm is more robust than a constant answer, so nobody leads."
    assert speedrun_findings(alone, ranked(alone), textbook=[]) == told


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
    table = stacked(PLAIN, runs("ours: random", full, seeds=seeds), runs("lucky: random", 0.99))
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
