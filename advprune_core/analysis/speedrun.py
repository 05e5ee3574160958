"""The most robust network that a budget buys: chosen by a `ranking` on held-out images, tested with other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.comparisons import compare
from advprune_core.analysis.estimates import Estimate, accuracy
from advprune_core.analysis.labels import point_label, sample, setting
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.ranking import first_places, level_with, places_of
from advprune_core.analysis.seconds import mean_seconds
from advprune_core.analysis.seeds import MIN_SEEDS, Point, as_a_constant, points, well_covered
from advprune_core.analysis.style import canvas, caption, key, legend, reach, share_looks, styled, tidy
from advprune_core.analysis.verdicts import judge, method
from advprune_core.analysis.ways import once
from advprune_core.study.plans import duration

_RESULTS = ("arm", "fraction", "seeds", "clean", "robust", "low", "high", "cost", "seconds")


def results(table: pd.DataFrame) -> pd.DataFrame:
    """What the points of a study reach on the test images, the most robust first.

    Those of fewer seeds than `well_covered` asks for stand last, as a mean of one seed may be high by chance, and those
    as robust as a constant answer. What several arms share on all the data is the first one's.

    Returns
    -------
    DataFrame
        ``arm, fraction, seeds, clean, robust`` in [0, 1], ``low, high`` (Student's 95 % interval of robust
        accuracy over seeds), ``cost`` and processor ``seconds``.
    """
    rows = []
    for (arm, fraction), runs in points(once(with_accuracies(table[table["robust"].notna()]))).items():
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
                "constant": as_a_constant(runs),
            }
        )
    found = pd.DataFrame(rows, columns=[*_RESULTS, "constant"])
    found = found.assign(covered=well_covered(found["seeds"]) & ~found["constant"].astype(bool))
    found = found.sort_values(["covered", "robust"], ascending=False, kind="stable", ignore_index=True)
    return found.drop(columns=["covered", "constant"])


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
    order = places_of(found)
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
        From `ranking.ranked`, by which they were chosen.
    textbook : sequence of str
        Arms that stand for the plain loops; the best ranked of them is the rival.
    goals : sequence of float
        Robust accuracies in [0, 1]; reached if the interval over seeds of the first of the ranking lies above.
    """
    table, ranking = (with_names(part, escape) for part in (with_accuracies(table), ranking))
    same = _first_arms(table)
    arms = [same.get(point, point)[0] for point in places_of(ranking)]
    found, ranking = results(table), ranking.assign(arm=arms)
    tested = dict(zip(places_of(found), [row for _, row in found.iterrows()], strict=True))
    places = places_of(ranking[ranking["held_out"].notna()])
    if not len(found):
        return "No arm was tested, so nobody leads."
    if as_a_constant(points(table)[next(iter(tested))]):
        return "No arm is more robust than a constant answer, so nobody leads."
    names = {point: _named(point, places) for point in [*places, *tested]}
    text = [_leader(found, names)]
    if places and places[0] in tested and places[0] != next(iter(tested)):
        first = tested[places[0]]
        text.append(f"- On held-out images, *{names[places[0]]}* was first; here it is {_reached(first)} % robust.")
    loops = {same.get((escape(arm), 1.0), (escape(arm), 1.0)) for arm in textbook}
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
    for place in filter(None, (pruned, whole)):
        if level := ", ".join(f"*{names[other]}*" for other in level_with(ranking, place)):
            text.append(f"- Level with *{names[place]}* in the ranking, which the order of the grid decides: {level}.")
    text += [f"- {100 * goal:g} % robust: {_goal(goal, places, tested, names)}." for goal in goals]
    return "\n".join(text) + (f"\n\n{method(verdicts.values())}" if verdicts else "")


def _first_arms(table: pd.DataFrame) -> dict[Point, Point]:
    """Of every point on all the data, that which `once` keeps of its runs."""
    full = table[table["matched_fraction"] == 1]
    first = full.drop_duplicates("key").set_index("key")["arm"]
    return {(arm, 1.0): (first[key], 1.0) for arm, key in zip(full["arm"], full["key"], strict=True)}


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


def _reached(row: pd.Series) -> str:
    return Estimate(row["robust"], row["low"], row["high"], row["seeds"]).text()


def _named(point: Point, others: Sequence[Point]) -> str:
    return point_label(*point, [arm for arm, _ in others], whole=point[1] == 1)
