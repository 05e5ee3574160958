"""The most robust network that a budget buys: chosen on held-out images of some seeds, tested with others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.estimates import Estimate, accuracy
from advprune_core.analysis.labels import point_label, sample, setting
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.seeds import MIN_SEEDS, well_covered
from advprune_core.analysis.style import canvas, caption, key, legend, reach, share_looks, styled, tidy
from advprune_core.analysis.summaries import Point, mean_seconds, points
from advprune_core.analysis.verdicts import compare, judge, method
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import DATASETS
from advprune_core.study.plans import duration
from advprune_core.study.study import StudyConfig

#: Ends the name of the study that ranks.
CHOICE = "_choice"
#: What ranks: cross-entropy alone flatters some ways of training by points beside others, the margin does not.
_RANKED_BY = ({"pgd": {"steps": 20}}, {"pgd": {"steps": 20, "loss": "margin"}})
_RANKED = ("arm", "fraction", "seeds", "runs", "held_out", "cost", "seconds")
_RESULTS = ("arm", "fraction", "seeds", "clean", "robust", "low", "high", "cost", "seconds")


@dataclass(frozen=True)
class Choice:
    """Which points of a study are worth its seeds and the test images.

    Attributes
    ----------
    config : StudyConfig
        Of the study that ranks them, with seeds of its own, tested on `val_stop`.
    top : int
        How many of the first places are tested.
    beside : tuple of str
        Arms that are tested as well, on all the data.
    """

    config: StudyConfig
    top: int
    beside: tuple[str, ...]

    @classmethod
    def of(cls, config: StudyConfig, seeds: Collection[int], *, top: int, beside: Sequence[str] = ()) -> Choice:
        """The choice among the points of a study.

        Raises
        ------
        ConfigError
            Seeds that the study itself has.
        """
        if both := sorted({*seeds} & {*config.seeds}):
            raise ConfigError(f"choice_seeds: {both} are among seeds = {list(config.seeds)}, which are for the test")
        variants = {
            name: {**settings, "dataset": _on_val_stop(settings["dataset"])} if "dataset" in settings else settings
            for name, settings in config.variants.items()
        }
        ranks = config.replace(
            study=f"{config.study}{CHOICE}",
            dataset=_on_val_stop(config.dataset),
            variants=variants,
            seeds=tuple(seeds),
            evaluation=_RANKED_BY,
            images=None,
        )
        return cls(ranks, top, tuple(beside))

    def winners(self, table: pd.DataFrame) -> list[Point]:
        """Who is tested: the first places and what is level with the last of them, the first that prunes, the first
        that doesn't, and the arms beside them.

        Parameters
        ----------
        table : DataFrame
            From `collect` with the study that ranks.
        """
        ranking, top = ranked(table), self.top
        known = ranking[ranking["held_out"].notna()]
        places, values = _in_order(known), known["held_out"].tolist()
        pruned, whole = first_places(ranking)
        level = [place for place, value in zip(places, values, strict=True) if value in values[top - 1 : top]]
        firsts = [place for place in (pruned, whole) if place]
        return list(dict.fromkeys([*places[:top], *level, *firsts, *((arm, 1.0) for arm in self.beside)]))


def _on_val_stop(dataset: Any) -> Any:
    return DATASETS.parse(dataset).replace(tested_on="val_stop").spec()


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The points of a study by their robust accuracy, the best first; those of which some runs have none stand last.

    Parameters
    ----------
    table : DataFrame
        From `collect` with the study of a `Choice`.

    Returns
    -------
    DataFrame
        ``arm, fraction`` (share of the data that is kept), ``seeds`` of those that were tested, of so many ``runs``;
        ``held_out`` in [0, 1], NaN of no test, ``cost`` in forward-equivalents and processor ``seconds`` of training
        and selection (means).
    """
    rows = []
    for (arm, fraction), runs in points(with_accuracies(table)).items():
        tested = runs[runs["robust"].notna()]
        rows.append(
            {
                "arm": arm,
                "fraction": fraction,
                "seeds": tested["seed"].nunique(),
                "runs": runs["seed"].nunique(),
                "held_out": tested["robust"].mean(),
                "cost": runs["cost"].mean(),
                "seconds": mean_seconds(runs),
            }
        )
    found = pd.DataFrame(rows, columns=_RANKED)
    found = found.assign(whole=found["seeds"] == found["seeds"].max())
    found = found.sort_values(["whole", "held_out"], ascending=False, kind="stable", ignore_index=True)
    return found.drop(columns="whole")


def first_places(ranking: pd.DataFrame) -> tuple[Point | None, Point | None]:
    """The first of a ranking that prunes, and the first that does not."""
    places = _in_order(ranking[ranking["held_out"].notna()])
    pruned, whole = (next((place for place in places if (place[1] < 1) == kind), None) for kind in (True, False))
    return pruned, whole


def results(table: pd.DataFrame) -> pd.DataFrame:
    """What the points of a study reach on the test images, the most robust first.

    Those of fewer seeds than `well_covered` asks for stand last: a mean of one seed may be high by chance.

    Returns
    -------
    DataFrame
        ``arm, fraction, seeds, clean, robust`` in [0, 1], ``low, high`` (Student's 95 % interval of robust
        accuracy over seeds), ``cost`` and processor ``seconds``.
    """
    rows = []
    for (arm, fraction), runs in points(with_accuracies(table[table["robust"].notna()])).items():
        robust = accuracy(runs["robust"])
        rows.append(
            {
                "arm": arm,
                "fraction": fraction,
                "seeds": robust.seeds,
                "clean": runs["clean"].mean(),
                "robust": robust.mean,
                "low": robust.low,
                "high": robust.high,
                "cost": runs["cost"].mean(),
                "seconds": mean_seconds(runs),
            }
        )
    found = pd.DataFrame(rows, columns=_RESULTS)
    found = found.assign(covered=well_covered(found["seeds"]))
    found = found.sort_values(["covered", "robust"], ascending=False, kind="stable", ignore_index=True)
    return found.drop(columns="covered")


@styled
def speedrun_figure(table: pd.DataFrame) -> Figure:
    """Robust accuracy of each point, the best on top, with 95 % t intervals; small dots: its runs."""
    table = with_names(with_accuracies(table), plain)
    found, runs = results(table), points(table[table["robust"].notna()])
    figure, axes = canvas(height=1.3 + 0.2 * max(1, len(found)))
    axis, looks = axes[0, 0], share_looks(found["fraction"])
    tidy(axis, grid="x")
    for place, row in found.iterrows():
        own, look = runs[row["arm"], row["fraction"]], looks[row["fraction"]]
        axis.plot(100 * own["robust"], [place] * len(own), ".", color=look.colour, alpha=0.5, markersize=4)
        spread = reach(row["robust"], row["low"], row["high"])
        axis.errorbar(100 * row["robust"], place, xerr=spread, color=look.colour, marker=look.mark)
    order = _in_order(found)
    axis.set_yticks(range(len(order)), [_named(point, order) for point in order])
    axis.set_ylim(len(found) - 0.5, -0.5)
    axis.set_xlabel("robust accuracy, %")
    legend(figure, [key(look, linestyle="") for look in looks.values()])
    caption(figure, setting(table), f"{sample(table)}, 95 % t interval; small dots: single runs")
    return figure


def speedrun_findings(
    table: pd.DataFrame, ranking: pd.DataFrame, *, textbook: Sequence[str], goals: Sequence[float] = ()
) -> str:
    """Markdown: who leads, whether pruning pays, by how much the textbook is beaten, which goals are reached.

    Who is compared, and who is to reach a goal, was chosen before the test, by the ranking: the highest of several
    means over test images would be too high by chance.

    Parameters
    ----------
    table : DataFrame
        From `collect` with the study of the winners.
    ranking : DataFrame
        From `ranked`, by which they were chosen.
    textbook : sequence of str
        Arms that stand for the plain loops; the best ranked of them is the rival.
    goals : sequence of float
        Robust accuracies in [0, 1]; reached if the interval over seeds of the first of the ranking lies above.
    """
    table, ranking = (with_names(part, escape) for part in (with_accuracies(table), ranking))
    found = results(table)
    tested = dict(zip(_in_order(found), [row for _, row in found.iterrows()], strict=True))
    places = _in_order(ranking[ranking["held_out"].notna()])
    if not len(found):
        return "No arm was tested, so nobody leads."
    names = {point: _named(point, places) for point in [*places, *tested]}
    text = [_leader(found, names)]
    if places and places[0] in tested and places[0] != next(iter(tested)):
        first = tested[places[0]]
        text.append(f"- On held-out images, *{names[places[0]]}* was first; here it is {_reached(first)} % robust.")
    loops = {(escape(arm), 1.0) for arm in textbook}
    pruned, whole = first_places(ranking)
    asked = {
        "The first pruned run of the ranking": (pruned, whole),
        "The first of the ranking": (next(iter(places), None), next((p for p in places if p in loops), None)),
    }
    pairs: dict[str, tuple[Point, Point]] = {}
    for who, (ours, theirs) in asked.items():
        if ours and theirs and ours != theirs and (ours, theirs) not in pairs.values():
            pairs[who] = (ours, theirs)
    verdicts = judge(
        {
            who: compare(table, ours[0], theirs[0], fraction=ours[1], reference_fraction=theirs[1])
            for who, (ours, theirs) in pairs.items()
            if ours in tested and theirs in tested
        }
    )
    for who, (ours, theirs) in pairs.items():
        untested = [f"*{names[point]}* has no tested run" for point in (ours, theirs) if point not in tested]
        told = verdicts[who].text() if who in verdicts else "; ".join(untested)
        text.append(f"- {who}, *{names[ours]}*, against *{names[theirs]}*: {told}.")
    if pruned is None:
        text.append("- No pruned run has a place in the ranking, so that nothing is said of pruning.")
    text += [f"- {100 * goal:g} % robust: {_goal(goal, places, tested, names)}." for goal in goals]
    return "\n".join(text) + (f"\n\n{method(verdicts.values())}" if verdicts else "")


def _leader(found: pd.DataFrame, names: Mapping[Point, str]) -> str:
    best, compared = found.iloc[0], int(well_covered(found["seeds"]).sum())
    part = "all the data" if best["fraction"] == 1 else f"{100 * best['fraction']:g} % of the data"
    took = f"{duration(best['seconds'])} of one core"
    if np.isnan(best["seconds"]):
        took = f"{best['cost']:,.0f} forward-equivalents, on more than one device"
    highest = f" (the highest of {compared} means, so a little too good)" if compared > 1 else ""
    return (
        f"**{names[best['arm'], best['fraction']]}** leads: {_reached(best)} % robust{highest} and "
        f"{100 * best['clean']:.1f} % clean, on {part}, in {took}."
    )


def _goal(goal: float, places: Sequence[Point], tested: Mapping[Point, pd.Series], names: Mapping[Point, str]) -> str:
    """Whether the first of the ranking reaches a goal."""
    first = next(iter(places), None)
    if first is None or first not in tested:
        return "not known, as the first of the ranking has no tested run"
    row, name = tested[first], f"the first of the ranking, *{names[first]}*"
    if row["seeds"] < MIN_SEEDS or np.isnan(row["low"]):
        few = f"{row['seeds']} seed{'s' * (row['seeds'] != 1)}"
        why = f"has {few}" if row["seeds"] < MIN_SEEDS else f"says the same in {few}"
        return f"no verdict, as {name}, {why}"
    if row["low"] >= goal:
        return f"reached by {name}, on these test images"
    if row["robust"] >= goal:
        return f"{name}, is above it by its mean, not by its interval"
    return f"not reached: {name}, has a lower mean"


def _in_order(ranking: pd.DataFrame) -> list[Point]:
    return list(zip(ranking["arm"], ranking["fraction"], strict=True))


def _reached(row: pd.Series) -> str:
    return Estimate(row["robust"], row["low"], row["high"], row["seeds"]).text()


def _named(point: Point, others: Sequence[Point]) -> str:
    return point_label(*point, [arm for arm, _ in others], whole=point[1] == 1)
