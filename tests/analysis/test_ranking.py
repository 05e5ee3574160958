"""Who is worth the test images: the ranking on held-out images, and who is tested by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.ranking import Ranking, level_with, ranked
from advprune_core.base.settings import ConfigError
from advprune_core.study.grid import study_grid
from advprune_core.study.study import StudyConfig
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


#: What ends the runs of all arms.
BUDGET = {"optimisation.cost_budget": 10_000}


def winners(table: pd.DataFrame, top: int, beside: Sequence[str] = ()) -> list[Any]:
    return Ranking.of(StudyConfig(settings=BUDGET), choice_seeds=[100], top=top, textbook=beside).winners(table)


PLAIN, FULL = runs("textbook: random", 0.50), runs("ours: random", 0.60)
PRUNED = runs("ours: random", 0.57, fraction=0.5)
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
    """In whatever order their seeds are added up."""
    reached = {"a": [0.94, 0.94, 0.94], "b": [0.88, 0.88, 0.94], "c": [0.88, 0.94, 0.88]}
    table = stacked(*(runs(f"{name}: random", 0.6)[:3].assign(robust=values) for name, values in reached.items()))
    assert winners(table, top=2) == winners(table, top=3)
    assert len(winners(table, top=1)) == 1


def test_what_chooses_is_not_what_is_reported() -> None:
    own = {"label_noise": 0.1, "limit": 300}
    config = StudyConfig.create(
        dataset={"digits": own},
        variants={"a": {}, "b": {"dataset": "digits"}},
        seeds=[0, 1],
        evaluation=["pgd"],
        images=100,
        settings=BUDGET,
    )
    choice = Ranking.of(config, choice_seeds=[7, 8]).config
    assert choice.dataset == {"digits": {**own, "tested_on": "val_stop"}}
    assert choice.variants == {"a": {}, "b": {"dataset": {"digits": {"tested_on": "val_stop"}}}}
    assert (choice.study, choice.seeds, choice.images) == (f"{config.study}_choice", (7, 8), None)
    with pytest.raises(ConfigError, match=r"choice_seeds: \[1\] are among the seeds \[0, 1\] of the test"):
        Ranking.of(config, choice_seeds=[7, 1])


def test_a_part_of_the_grid_brings_nothing_of_the_test_into_the_ranking() -> None:
    parts = [{"fractions": [1.0]}, {"fractions": [0.5], "seeds": [0, 1, 2], "images": 90, "evaluation": ["fgsm"]}]
    config = StudyConfig.create(seeds=[0], controls=[], parts=parts, settings=BUDGET)
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
    "settings",
    [
        {},
        {"settings": {"optimisation.ema": 0.9}},
        {"settings": BUDGET, "variants": {"a": {}, "b": {"optimisation.cost_budget": 20_000}}},
    ],
    ids=str,
)
def test_arms_of_unequal_cost_are_not_ranked(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"all arms of a ranking need one and the same 'optimisation\.cost_budget'"):
        Ranking.of(StudyConfig(**settings), choice_seeds=[7])


@pytest.mark.parametrize(
    ("option", "value"),
    [("choice_seeds", 100), ("choice_seeds", []), ("top", -1), ("top", 1.5), ("top", "many"), ("goals", [75])],
)
def test_options_are_checked_before_any_work(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        Ranking.of(StudyConfig(settings=BUDGET), **{"choice_seeds": [7], option: value})


def test_where_nothing_has_a_rank_nothing_is_tested() -> None:
    with pytest.raises(ConfigError, match="no arm has a rank"):
        winners(runs("none: random", 0.9, seeds=0), top=3)


def test_a_constant_answer_has_no_rank() -> None:
    table = stacked(runs("constant: random", 0.10), runs("ours: random", 0.30)).assign(classes=10)
    assert winners(table, top=1) == [("ours: random", 1.0)]
    assert ranked(table)["held_out"].isna().tolist() == [False, True]


def test_what_is_level_is_of_its_own_kind() -> None:
    table = held_out(plain=0.6, full=0.6, pruned=0.6).assign(robust=0.6)
    assert level_with(ranked(table), ("ours: random", 1.0)) == [("textbook: random", 1.0)]
    assert level_with(ranked(table), ("ours: random", 0.5)) == []
