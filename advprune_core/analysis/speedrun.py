"""The most robust network that a budget buys: chosen on held-out images of some seeds, tested with others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.estimates import Estimate, accuracy
from advprune_core.analysis.labels import point_label, sample, setting
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.style import canvas, caption, key, legend, reach, share_looks, styled, tidy
from advprune_core.analysis.summaries import Point, mean_seconds, points
from advprune_core.analysis.verdicts import compare, judge, method
from advprune_core.study.plans import duration

_RANKED = ("arm", "fraction", "seeds", "held_out", "cost", "seconds")
_RESULTS = ("arm", "fraction", "seeds", "clean", "robust", "low", "high", "cost", "seconds")


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The points of a study by robust accuracy on `val_stop` at the end of training, the best first.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study whose runs had a check at their end (`best_every`).

    Returns
    -------
    DataFrame
        ``arm, fraction`` (share of the data that is kept), ``seeds``, ``held_out`` in [0, 1], ``cost`` in
        forward-equivalents and processor ``seconds`` of training and selection (means).
    """
    rows = [
        {
            "arm": arm,
            "fraction": fraction,
            "seeds": runs["seed"].nunique(),
            "held_out": runs["val_pgd_last"].mean(),
            "cost": runs["cost"].mean(),
            "seconds": mean_seconds(runs),
        }
        for (arm, fraction), runs in points(table[table["val_pgd_last"].notna()]).items()
    ]
    found = pd.DataFrame(rows, columns=_RANKED)
    return found.sort_values("held_out", ascending=False, kind="stable", ignore_index=True)


def winners(ranking: pd.DataFrame, *, top: int, beside: Sequence[str] = ()) -> list[Point]:
    """Who is tested: the first `top` points of a ranking, the first that prunes, the first that doesn't, and the arms
    `beside` them on all the data."""
    places = _in_order(ranking)
    firsts = [point for point in (_first(places, pruned=True), _first(places, pruned=False)) if point]
    return list(dict.fromkeys([*places[:top], *firsts, *((arm, 1.0) for arm in beside)]))


def results(table: pd.DataFrame) -> pd.DataFrame:
    """What the points of a study reach on the test images, the most robust first.

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
    return found.sort_values("robust", ascending=False, kind="stable", ignore_index=True)


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
    axis.set_yticks(range(len(found)), [_named(row, found) for _, row in found.iterrows()])
    axis.set_ylim(len(found) - 0.5, -0.5)
    axis.set_xlabel("robust accuracy, %")
    legend(figure, [key(look, linestyle="") for look in looks.values()])
    caption(figure, setting(table), f"{sample(table)}, 95 % t interval; small dots: single runs")
    return figure


def speedrun_findings(
    table: pd.DataFrame, ranking: pd.DataFrame, *, textbook: Sequence[str], goals: Sequence[float] = ()
) -> str:
    """Markdown: who leads, whether pruning pays, by how much the textbook is beaten, which goals are reached.

    Who is compared was chosen before the test, by the ranking: the highest of several means over test images would be
    too high by chance.

    Parameters
    ----------
    table : DataFrame
        From `collect` with the study of the winners.
    ranking : DataFrame
        From `ranked`, by which they were chosen.
    textbook : sequence of str
        Arms that stand for the plain loops; the best ranked of them is the rival.
    goals : sequence of float
        Robust accuracies in [0, 1]; reached if the interval over seeds lies above.
    """
    table = with_names(with_accuracies(table), escape)
    found = results(table)
    tested = dict(zip(_in_order(found), [row for _, row in found.iterrows()], strict=True))
    places = [point for point in _in_order(with_names(ranking, escape)) if point in tested]
    if not len(found):
        return "No arm was tested, so nobody leads."
    best, text = found.iloc[0], []
    part = "all the data" if best["fraction"] == 1 else f"{100 * best['fraction']:g} % of the data"
    took = f"{duration(best['seconds'])} of one core"
    if np.isnan(best["seconds"]):
        took = f"{best['cost']:,.0f} forward-equivalents, on more than one device"
    text.append(
        f"**{_named(best, found)}** leads: {_reached(best)} % robust and {100 * best['clean']:.1f} % clean, on {part}, "
        f"in {took}."
    )
    if places and places[0] != next(iter(tested)):
        first = tested[places[0]]
        text.append(f"- On held-out images, *{_named(first, found)}* was first; here it is {_reached(first)} % robust.")
    loops = {(escape(arm), 1.0) for arm in textbook}
    pairs = {
        "The first pruned run of the ranking": (_first(places, pruned=True), _first(places, pruned=False)),
        "The first of the ranking": (next(iter(places), None), next((p for p in places if p in loops), None)),
    }
    met: dict[str, tuple[Point, Point]] = {}
    for name, (ours, theirs) in pairs.items():
        if ours and theirs and ours != theirs and (ours, theirs) not in met.values():
            met[name] = (ours, theirs)
    verdicts = judge(
        {
            name: compare(table, ours[0], theirs[0], fraction=ours[1], reference_fraction=theirs[1])
            for name, (ours, theirs) in met.items()
        }
    )
    for name, (ours, theirs) in met.items():
        who = [_named(tested[point], found) for point in (ours, theirs)]
        text.append(f"- {name}, *{who[0]}*, against *{who[1]}*: {verdicts[name].text()}.")
    for goal in goals:
        sure = found[found["low"] >= goal]
        reached = f"reached by *{_named(sure.iloc[0], found)}*" if len(sure) else "not reached for sure by any arm"
        text.append(f"- {100 * goal:g} % robust: {reached}.")
    return "\n".join(text) + (f"\n\n{method(verdicts.values())}" if verdicts else "")


def _in_order(ranking: pd.DataFrame) -> list[Point]:
    return list(zip(ranking["arm"], ranking["fraction"], strict=True))


def _first(places: Sequence[Point], *, pruned: bool) -> Point | None:
    """The first of the places that prunes, or doesn't."""
    return next((point for point in places if (point[1] < 1) == pruned), None)


def _reached(row: pd.Series) -> str:
    return Estimate(row["robust"], row["low"], row["high"], row["seeds"]).text()


def _named(row: pd.Series, found: pd.DataFrame) -> str:
    return point_label(row["arm"], row["fraction"], list(found["arm"]), whole=row["fraction"] == 1)
