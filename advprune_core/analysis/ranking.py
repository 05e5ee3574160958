"""Which arms are worth the test images: a ranking of all of them on held-out images, with seeds of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.seconds import mean_seconds
from advprune_core.analysis.seeds import Point, as_a_constant, points
from advprune_core.analysis.ways import once
from advprune_core.base.settings import ConfigError, Seed, Settings
from advprune_core.datasets.base import DATASETS
from advprune_core.study.grid import study_grid
from advprune_core.study.study import StudyConfig

#: Ends the name of the study that ranks.
CHOICE = "_choice"
#: What ranks: cross-entropy alone flatters some ways of training by points beside others, the margin does not.
_RANKED_BY = ({"pgd": {"steps": 20}}, {"pgd": {"steps": 20, "loss": "margin"}})
#: What a part of a study may have of its own, and its ranking may not.
_OF_THE_TEST = ("seeds", "evaluation", "images")
_RANKED = ("arm", "fraction", "seeds", "runs", "held_out", "cost", "seconds")


class Options(Settings):
    """How a study chooses what it tests: the parameters of its notebook beside those of the study."""

    choice_seeds: Annotated[tuple[Seed, ...], Field(min_length=1, description="seeds that rank")]
    top: Annotated[int, Field(ge=0, le=1000, description="how many of the first places are tested")] = 3
    textbook: Annotated[tuple[str, ...], Field(description="arms that are tested as well, on all the data")] = ()
    goals: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(description="robust accuracies to reach, in (0, 1)")
    ] = ()


@dataclass(frozen=True)
class Ranking:
    """Which points of a study are worth its seeds and the test images.

    Attributes
    ----------
    config : StudyConfig
        Of the study that ranks them, with seeds of its own, tested on `val_stop`.
    options : Options
    """

    config: StudyConfig
    options: Options

    @classmethod
    def of(cls, config: StudyConfig, **options: Any) -> Ranking:
        """The ranking of the points of a study, by `Options`.

        Raises
        ------
        ConfigError
            Options out of range; seeds that the study itself has; a way of training that sets what it is tested on, or
            that ends by something else than the one cost of all.
        """
        chosen = Options.create(**options)
        of_the_test = {entry.seed for entry in study_grid(config)}
        if both := sorted({*chosen.choice_seeds} & of_the_test):
            raise ConfigError(f"choice_seeds: {both} are among the seeds {sorted(of_the_test)} of the test")
        ranks = config.replace(
            study=f"{config.study}{CHOICE}",
            dataset=_on_val_stop(config.dataset),
            variants={
                name: {**settings, "dataset": _on_val_stop(settings["dataset"])} if "dataset" in settings else settings
                for name, settings in config.variants.items()
            },
            parts=tuple({k: v for k, v in part.items() if k not in _OF_THE_TEST} for part in config.parts),
            seeds=chosen.choice_seeds,
            evaluation=_RANKED_BY,
            images=None,
        )
        entries = study_grid(ranks)
        if tested := sorted({e.arm for e in entries if e.config.dataset.tested_on != "val_stop"}):
            raise ConfigError(f"settings or variants: {tested} would be ranked on the test images; leave tested_on out")
        budgets = {entry.config.optimisation.cost_budget for entry in entries}
        if len(budgets) > 1 or None in budgets:
            raise ConfigError(
                "settings: all arms of a ranking need one and the same 'optimisation.cost_budget' (in "
                "forward-equivalents), which ends their runs; settings that are given take the place of all that the "
                "notebook has"
            )
        return cls(ranks, chosen)

    def winners(self, table: pd.DataFrame) -> list[Point]:
        """Who is tested: the first places and what is level with the last of them, the first that prunes, the first
        that doesn't, and the textbook arms.

        Parameters
        ----------
        table : DataFrame
            From `collect` with the study that ranks.

        Raises
        ------
        ConfigError
            There is nothing to test: no run has a rank.
        """
        ranking, top = ranked(table), self.options.top
        places, values = _placed(ranking)
        last = values[:top][-1:]
        level = [place for place, value in zip(places, values, strict=True) if value in last]
        firsts = [place for place in first_places(ranking) if place]
        found = list(dict.fromkeys([*places[:top], *level, *firsts, *((arm, 1.0) for arm in self.options.textbook)]))
        if not found:
            raise ConfigError("no arm has a rank: no run was tested, or is more robust than a constant answer")
        return found


def _on_val_stop(dataset: Any) -> Any:
    source = DATASETS.parse(dataset).replace(tested_on="val_stop")
    return source.spec() if isinstance(dataset, str | dict) else source


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The points of a study by their robust accuracy, the best first.

    Those of which some runs have none stand after the others, and what is as robust as a constant answer has no rank.
    What several arms share on all the data has one place, as the first of them.

    Parameters
    ----------
    table : DataFrame
        From `collect` with the study of a `Ranking`.

    Returns
    -------
    DataFrame
        ``arm, fraction`` (share of the data that is kept), ``seeds`` of those that were tested, of so many ``runs``;
        ``held_out`` in [0, 1], NaN without a rank, ``cost`` in forward-equivalents and processor ``seconds`` of
        training and selection (means).
    """
    rows = []
    for (arm, fraction), runs in points(once(with_accuracies(table))).items():
        tested = runs[runs["robust"].notna()]
        rows.append(
            {
                "arm": arm,
                "fraction": fraction,
                "seeds": tested["seed"].nunique(),
                "runs": runs["seed"].nunique(),
                # Level ones are equal, whatever the order in which their seeds were added up.
                "held_out": float("nan") if as_a_constant(tested) else round(float(tested["robust"].mean()), 9),
                "cost": tested["cost"].mean(),
                "seconds": mean_seconds(tested),
            }
        )
    found = pd.DataFrame(rows, columns=_RANKED)
    found = found.assign(whole=found["seeds"] == found["seeds"].max())
    found = found.sort_values(["whole", "held_out"], ascending=False, kind="stable", ignore_index=True)
    return found.drop(columns="whole")


def first_places(ranking: pd.DataFrame) -> tuple[Point | None, Point | None]:
    """The first of a ranking that prunes, and the first that does not."""
    places, _ = _placed(ranking)
    pruned, whole = (next((place for place in places if (place[1] < 1) == kind), None) for kind in (True, False))
    return pruned, whole


def level_with(ranking: pd.DataFrame, point: Point) -> list[Point]:
    """Others of a point's kind, pruned or not, that a ranking cannot tell from it: their order is the grid's."""
    places, values = _placed(ranking)
    own = dict(zip(places, values, strict=True))
    alike = (place for place in places if place != point and (place[1] < 1) == (point[1] < 1))
    return [place for place in alike if own[place] == own[point]]


def _placed(ranking: pd.DataFrame) -> tuple[list[Point], list[float]]:
    """The points that have a rank, in their order, and what they reach."""
    known: pd.DataFrame = ranking[ranking["held_out"].notna()]
    return places_of(known), known["held_out"].tolist()


def places_of(ranking: pd.DataFrame) -> list[Point]:
    """The points of a table in its order."""
    return list(zip(ranking["arm"], ranking["fraction"], strict=True))
