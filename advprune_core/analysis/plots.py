"""Accuracy and cost against the share of the data kept: figures from the tidy table alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from advprune_core.analysis.against_cost import robust_vs_cost as robust_vs_cost
from advprune_core.analysis.cells import settings, threat, with_accuracies
from advprune_core.analysis.dots import MANY, accuracy_dots
from advprune_core.analysis.doubts import doubts
from advprune_core.analysis.estimates import accuracy
from advprune_core.analysis.labels import arm_label as arm_label
from advprune_core.analysis.labels import point_label as point_label
from advprune_core.analysis.labels import sample, setting
from advprune_core.analysis.markup import plain, with_names
from advprune_core.analysis.seeds import Point
from advprune_core.analysis.style import (
    BLACK,
    BLUE,
    GREY,
    Look,
    canvas,
    caption,
    in_lines,
    key,
    legend,
    legend_columns,
    looks,
    reach,
    share_looks,
    styled,
)
from advprune_core.analysis.summaries import speed_ups
from advprune_core.analysis.tested import attacks_told
from advprune_core.analysis.ways import full_costs
from advprune_core.trainers.controls import control_of, matched_arm

#: What a phase is called, and how its bars are filled.
_PHASES: dict[str, tuple[str, dict[str, Any]]] = {
    "train": ("training", {"color": "0.75"}),
    "select": ("selection", {"color": BLUE, "hatch": "////", "fill": False}),
    "validate": ("validation attacks", {"color": BLACK, "hatch": "....", "fill": False}),
}


#: What sets the line of a control apart.
_HOLLOW: dict[str, Any] = {"markerfacecolor": "w", "linewidth": 0.8}


def panels(
    found: Iterable[Point], *, xlabel: str, ylabel: str
) -> tuple[Figure, dict[str, Axes], dict[Point, dict[str, Any]]]:
    """A figure with a panel for each arm, three in a row, of the same scale, and a legend of the fractions.

    Returns
    -------
    figure : Figure
    axes : dict of str to Axes
        By arm; of a control the panel of the arm that it matches.
    lines : dict of Point to dict
        How the line of each point is drawn, with a mark at its end: a look for each fraction; controls thin, hollow.
    """
    places = list(found)
    names = list(dict.fromkeys(matched_arm(arm) for arm, _ in places))
    controls = {arm: matched_arm(arm) for arm, _ in places if matched_arm(arm) != arm}
    shares, titles = share_looks(fraction for _, fraction in places), [arm_label(name, names) for name in names]
    ways, arms = ({name.rpartition(": ")[place] for name in names} for place in (0, 2))
    if len(ways) == len(names) > len(arms) == 1:  # one pruner in all: it stands beside the shares that it keeps
        titles, kept = [name.rpartition(": ")[0] for name in names], arm_label(arms.pop())
        shares = {f: look if f == 1 else replace(look, family=f"{look.family}, {kept}") for f, look in shares.items()}
    columns = min(3, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    figure, grid = canvas(rows, columns, height=1.75 * rows + 0.9, sharex=True, sharey=True)
    axes = grid.ravel().tolist()
    for axis in axes[max(1, len(names)) :]:
        axis.set_visible(False)
    for place, axis in enumerate(axes[: len(names)]):
        axis.set_title(in_lines(titles[place], 36))
        if place + columns >= len(names):  # the last of its column
            axis.set_xlabel(xlabel)
            axis.tick_params(labelbottom=True)
    figure.supylabel(ylabel)
    told = dict.fromkeys(arm_label(arm.rpartition(": ")[2]) for arm in controls)
    matched = {fraction for arm, fraction in places if arm in controls}  # of one share, a control has its colour
    like = shares[matched.pop()] if len(matched) == 1 else Look("", GREY, "o")
    legend(figure, [*map(key, shares.values()), *(key(replace(like, family=name), **_HOLLOW) for name in told)])
    of_arm = dict(zip(names, axes, strict=False))
    of_arm |= {control: of_arm[arm] for control, arm in controls.items()}
    lines: dict[Point, dict[str, Any]] = {}
    for arm, fraction in places:
        look = shares[fraction]
        drawn = {"color": look.colour, "linestyle": look.line, "marker": look.mark, "markevery": [-1]}
        lines[arm, fraction] = drawn | {"label": look.family} | (_HOLLOW if arm in controls else {})
    return figure, of_arm, lines


def _arms(table: pd.DataFrame) -> list[str]:
    """Pruners first, controls after them, each in order of appearance."""
    found = list(dict.fromkeys(table["arm"]))
    return sorted(found, key=lambda arm: control_of(arm) is not None)


@styled
def accuracy_vs_fraction(table: pd.DataFrame) -> Figure:
    """Clean and robust accuracy against the share of the data kept: two panels for each data set and threat model.

    Lines are means over seeds with 95 % t intervals, where seeds differ; dots are single runs. A control
    stands at the fraction of the run that it matches. Of more arms than lines could be told apart: `accuracy_dots`.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study.
    """
    if table["arm"].nunique() > MANY:
        return accuracy_dots(table)
    table = with_names(with_accuracies(table), plain)
    found = settings(table)
    drawn = looks(_arms(table))
    labels = {arm: arm_label(arm, list(drawn)) for arm in drawn}
    below = max(0.25 * math.ceil(len(labels) / 2), 0.2 * math.ceil(len(labels) / legend_columns(list(labels.values()))))
    figure, axes = canvas(len(found), 2, height=2.7 * len(found) + below, sharex=True)
    fractions = sorted(table["matched_fraction"].unique())  # one axis for all, whatever one of them was run with
    for row, (name, rows) in zip(axes, found, strict=True):
        titles = {
            "clean": f"{name}: " * bool(name) + "clean test images",
            "robust": f"under attack ({threat(rows)}; {attacks_told(rows)})",
        }
        for axis, (value, title) in zip(row, titles.items(), strict=True):
            for place, arm in enumerate(_arms(rows)):
                own = rows[(rows["arm"] == arm) & rows[value].notna()]
                _line(axis, own, value, look=drawn[arm], shift=0.008 * place, label=labels[arm])
            axis.set_title(in_lines(title, 46))
            axis.set_xticks(fractions, [f"{100 * fraction:g}" for fraction in fractions])
        row[0].set_ylabel("accuracy, %")
    for axis in axes[-1]:
        axis.set_xlabel(f"data kept{' (control: by the run it matches)' * bool(table['control'].notna().any())}, %")
    legend(figure, [key(look, labels[arm]) for arm, look in drawn.items()])
    caption(
        figure, setting(table), f"{sample(table)}, 95 % t interval; small dots: single runs", doubts(table, brief=True)
    )
    return figure


def _line(axis: Axes, rows: pd.DataFrame, value: str, *, look: Look, shift: float, label: str) -> None:
    """One arm: interval, mean, single runs."""
    points = [(fraction, accuracy(group[value])) for fraction, group in rows.groupby("matched_fraction")]
    x = np.array([fraction for fraction, _ in points]) + shift
    spread = np.hstack([reach(e.mean, e.low, e.high) for _, e in points]) if points else np.zeros((2, 0))
    means = [100 * e.mean for _, e in points]
    axis.errorbar(x, means, yerr=spread, color=look.colour, linestyle=look.line, marker=look.mark, label=label)
    axis.plot(rows["matched_fraction"] + shift, 100 * rows[value], ".", color=look.colour, alpha=0.35, ms=3)


@styled
def runtime(table: pd.DataFrame, timings: pd.DataFrame) -> Figure:
    """Cost by phase against the share of data kept, and the speed-up in both units.

    Left: forward-equivalents of all runs, as a share of the full run's. Middle: processor seconds
    of the runs that were timed alone, if any were. Right: how many times cheaper than the full run, with the range
    over repeated timings, and the line 1/f that a free selection would reach.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study; controls are left out.
    timings : DataFrame
        From `collect_timings`; may be empty.
    """
    runs, timings = with_names(table[table["control"].isna()], plain), with_names(timings, plain)
    arms, fractions = _arms(runs), sorted(runs["fraction"].unique())
    drawn = looks(arms)
    figure, ((left, *middle, right),) = canvas(1, 3 if len(timings) else 2, height=2.5 + 0.14 * len(arms))
    _phases(left, runs, arms, fractions)
    for axis in middle:
        _seconds(axis, timings, drawn)
    limit = np.linspace(min(fractions), 1, 100)
    (free,) = right.plot(limit, 1 / limit, color=GREY, linestyle=":", label="1/f")
    handles, speeds = [free], speed_ups(runs, timings)
    for arm, look in drawn.items():
        group, label = speeds[speeds["arm"] == arm], arm_label(arm, arms)
        x, colour = group["fraction"], look.colour
        text = f"{label}, forward-equivalents"
        handles += right.plot(x, group["speed_up_passes"], color=colour, marker=look.mark, label=text)
        if group["speed_up_seconds"].notna().any():
            hollow = {"color": colour, "marker": look.mark, "markerfacecolor": "w", "linestyle": "--"}
            handles += right.plot(x, group["speed_up_seconds"], label=f"{label}, seconds", **hollow)
            right.vlines(x, group["speed_up_seconds_low"], group["speed_up_seconds_high"], color=colour, linewidth=0.9)
    right.set_title("speed-up against the full run")
    for axis in (left, *middle, right):
        axis.set_xticks(fractions, [f"{100 * fraction:g}" for fraction in fractions])
        axis.set_xlabel("training images kept, %")
    legend(figure, handles)
    caption(figure, f"{setting(runs)}; {runs['seed'].nunique()} seed{'s' * (runs['seed'].nunique() != 1)}")
    return figure


def _phases(axis: Axes, runs: pd.DataFrame, arms: list[str], fractions: list[float]) -> None:
    """Bars of what each phase costs, side by side for the arms."""
    width, named = 0.13 / len(arms), dict[str, Patch]()
    for place, arm in enumerate(arms):
        bottom = np.zeros(len(fractions))
        for phase, (name, fill_) in _PHASES.items():
            column = f"passes_{phase}"
            means = np.array([_share(runs, arm, fraction, column) for fraction in fractions])
            if means.any():
                x = np.array(fractions) + (place - (len(arms) - 1) / 2) * width
                axis.bar(x, means, width=0.9 * width, bottom=bottom, linewidth=0.5, **fill_)
                named[name] = Patch(label=name, linewidth=0.5, **fill_)
                bottom += means
    (line,) = axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="f")
    axis.set_title("cost / cost of the full run")
    axis.legend(handles=[line, *named.values()], loc="upper left")


def _seconds(axis: Axes, timings: pd.DataFrame, drawn: dict[str, Look]) -> None:
    """Processor seconds of each arm, of runs that were timed alone."""
    for arm in dict.fromkeys(timings["arm"]):
        group, look = timings[timings["arm"] == arm], drawn[arm]
        seconds = group.groupby("fraction")["cpu_seconds"].median()
        hollow: dict[str, Any] = {"color": look.colour, "marker": look.mark, "markerfacecolor": "w", "linestyle": "--"}
        axis.plot(seconds.index, seconds, label=arm_label(arm, list(drawn)), **hollow)
        axis.plot(group["fraction"], group["cpu_seconds"], ".", color=look.colour, alpha=0.4, ms=3)
        if 1.0 in seconds.index:
            axis.plot([0, 1], [0, seconds[1.0]], color=GREY, linestyle=":")
    repeats = int(timings.groupby(["arm", "key"]).size().median())
    axis.set_title(f"processor seconds,\n{repeats} timing{'s' * (repeats > 1)} alone")
    axis.set_ylim(bottom=0)


def _share(runs: pd.DataFrame, arm: str, fraction: float, column: str) -> float:
    """What a phase of runs costs, as a share of the full run's: of those that were trained to their end."""
    rows = runs[(runs["arm"] == arm) & (runs["fraction"] == fraction) & runs["cost"].notna()]
    known = len(rows) and column in runs
    return float((rows[column].fillna(0) / full_costs(runs)[rows.index]).mean()) if known else 0.0
