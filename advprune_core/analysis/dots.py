"""Accuracies of many arms: a row for each arm at each share of the data, where lines could not be told apart."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advprune_core.analysis.cells import settings, threat, with_accuracies
from advprune_core.analysis.doubts import doubts
from advprune_core.analysis.estimates import accuracy
from advprune_core.analysis.labels import arm_label, point_label, sample, setting
from advprune_core.analysis.markup import plain, with_names
from advprune_core.analysis.style import (
    Look,
    canvas,
    caption,
    in_lines,
    key,
    legend,
    middles,
    pruner_look,
    reach,
    row_height,
    styled,
    tidy,
)
from advprune_core.analysis.tested import attacks_told
from advprune_core.analysis.ways import dearest_costs, full_costs, once

#: With more arms than this, controls among them, lines cannot be told apart.
MANY = 8
#: Characters of a row's name on a line.
_LETTERS = 42


@styled
def accuracy_dots(table: pd.DataFrame) -> Figure:
    """Clean and robust accuracy of each arm: the shares of the data from the largest down, the most robust first.

    Means over seeds with 95 % t intervals, where seeds differ; dots are single runs; in brackets what each costs of
    the full run, of the dearest where ways of training differ. A control stands with the runs that it matches.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study.
    """
    table = with_names(with_accuracies(table), plain)
    dearest = dearest_costs(table)
    whose, costs = ("full run", full_costs(table)) if dearest is None else (f"full run of {dearest[0]}", dearest[1])
    table = once(table.assign(share=table["cost"] / costs))
    groups, arms = settings(table), list(dict.fromkeys(table["arm"]))
    rows = [_rows(group, arms) for _, group in groups]
    heights = [[row_height(name) for name, _ in own] for own in rows]
    tall = [sum(own) for own in heights]
    figure, axes = canvas(len(groups), 2, height=sum(tall) + 0.4 * len(groups) + 1.0, sharey="row", height_ratios=tall)
    for pair, (name, group), own, high in zip(axes, groups, rows, heights, strict=True):
        places = middles(high)
        pair[0].set_yticks(places, [label for label, _ in own])
        for tick, (_, runs) in zip(pair[0].yaxis.get_major_ticks(), own, strict=True):
            tick.label1.set_fontweight("bold" if runs is None else "normal")
        pair[0].set_title(f"{name}\n" * bool(name) + "clean test images")
        pair[1].set_title(in_lines(f"under attack ({threat(group)}; {attacks_told(group)})", 34))
        for axis, value in zip(pair, ("clean", "robust"), strict=True):
            tidy(axis, grid="x")
            axis.set_ylim(sum(high), 0)
            axis.set_xlabel("accuracy, %")
            for place, (_, runs) in zip(places, own, strict=True):
                if runs is not None:
                    _dot(axis, runs[value].dropna(), place, look=_look(runs))
    looks = dict.fromkeys(_look(runs) for own in rows for _, runs in own if runs is not None)
    legend(figure, [key(look, linestyle="") for look in looks])
    how = f"{sample(table)}, 95 % t interval; small dots: single runs"
    caption(figure, setting(table), how, f"in brackets: cost / that of the {whose}", doubts(table, brief=True))
    return figure


def _rows(table: pd.DataFrame, arms: Sequence[str]) -> list[tuple[str, pd.DataFrame | None]]:
    """What a row is called, and its runs; of the head of a share of the data none."""
    rows = list[tuple[str, pd.DataFrame | None]]()
    for fraction in sorted(table["matched_fraction"].unique(), reverse=True):
        here = table[table["matched_fraction"] == fraction]
        rows.append(("all the data" if fraction == 1 else f"{100 * fraction:g} % of the data", None))
        ranked = here.groupby("arm", sort=False)["robust"].mean().sort_values(ascending=False, kind="stable")
        for arm in map(str, ranked.index):
            runs = here[here["arm"] == arm]
            label = point_label(arm, 1.0, arms, whole=True) if fraction == 1 else arm_label(arm, arms)
            share = runs["share"].mean()
            rows.append((in_lines(f"{label} ({share:.2f})" if share == share else label, _LETTERS), runs))
    return rows


def _look(runs: pd.DataFrame) -> Look:
    """The look of a row: by its pruner, or that it is of all the data."""
    run = runs.iloc[0]
    return pruner_look(run["arm"], whole=bool(run["matched_fraction"] == 1 and pd.isna(run["control"])))


def _dot(axis: Axes, values: pd.Series, place: float, *, look: Look) -> None:
    """Interval, mean, single runs."""
    if len(values):
        found = accuracy(values)
        spread = reach(found.mean, found.low, found.high)
        axis.errorbar(100 * found.mean, place, xerr=spread, marker=look.mark, color=look.colour)
        axis.plot(100 * values, [place] * len(values), ".", color=look.colour, alpha=0.35, ms=3)
