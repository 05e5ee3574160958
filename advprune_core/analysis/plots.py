"""Every figure, from the tidy table alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from advprune_core.analysis.doubts import doubts
from advprune_core.analysis.estimates import accuracy
from advprune_core.analysis.markup import plain, with_names
from advprune_core.analysis.summaries import (
    Point,
    attacks_of,
    component_name,
    frontier,
    full_costs,
    speed_ups,
    threat,
    with_accuracies,
)
from advprune_core.trainers.controls import CONTROLS

_PHASES = {"train": "training", "select": "selection", "validate": "validation attacks"}


def arm_label(arm: str, arms: Sequence[str] = ()) -> str:
    """What a legend says of an arm; controls are described, pruners named."""
    way, colon, rest = arm.partition(": ")
    if colon and way in {other.partition(": ")[0] for other in arms or [arm]} and "=" not in way:
        own = [other.removeprefix(way + colon) for other in arms if other.startswith(way + colon)]
        return f"{way}: {arm_label(rest, own)}"
    control, bracket, matched = arm.partition("(")
    if bracket and control in CONTROLS:
        several = len({other.partition("(")[2] for other in arms if other.startswith(f"{control}(")}) > 1
        text = CONTROLS[control]
        return f"{text} (as {matched.rstrip(')')})" if several else text
    return {"random": "static random subset", "redraw": "random subset, redrawn each epoch"}.get(arm, arm)


def point_label(arm: str, fraction: float, arms: Sequence[str] = (), *, whole: bool = False) -> str:
    """An arm at a fraction: ``static random subset, 40 %``; of the `whole` data, ``TRADES: all the data``."""
    label = arm_label(arm, arms)
    if not whole or fraction < 1:
        return f"{label}, {100 * fraction:g} %"
    way, colon, _ = label.rpartition(": ")
    return f"{way}{colon}all the data"


def panels(
    found: Iterable[Point], *, xlabel: str, ylabel: str
) -> tuple[Figure, dict[str, Axes], dict[float, tuple[float, float, float]]]:
    """A figure with a panel for each arm, three in a row, of the same scale.

    Returns
    -------
    figure : Figure
    axes : dict of str to Axes
        By arm.
    colours : dict of float to tuple
        By fraction, the largest first.
    """
    places = list(found)
    names = list(dict.fromkeys(arm for arm, _ in places))
    fractions = sorted({fraction for _, fraction in places}, reverse=True)
    columns = min(3, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    size = (9, 4.5) if len(names) < 2 else (3.4 * columns, 2.9 * rows + 0.4)
    figure, grid = plt.subplots(
        rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    axes = grid.ravel().tolist()
    for axis in axes[max(1, len(names)) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, names, strict=False):
        axis.set_title(arm_label(name, names), fontsize=10)
        axis.grid(alpha=0.3)
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    colours = dict(zip(fractions, sns.color_palette("colorblind", len(fractions)), strict=True))
    return figure, dict(zip(names, axes, strict=False)), colours


def _arms(table: pd.DataFrame) -> list[str]:
    """Pruners first, controls after them, each in order of appearance."""
    found = list(dict.fromkeys(table["arm"]))
    return sorted(found, key=lambda arm: arm.rpartition(": ")[2].partition("(")[0] in CONTROLS)


def _footnote(figure: Figure, table: pd.DataFrame) -> None:
    """Say under a figure what its evaluations warn of, and of how many runs."""
    if text := doubts(table):
        figure.supxlabel(fill(text, 150), fontsize=8, color="firebrick")


def accuracy_vs_fraction(table: pd.DataFrame) -> Figure:
    """Clean and robust accuracy against the share of the data kept.

    Lines are means over seeds with 95 % t intervals, where seeds differ; dots are single runs. A control
    stands at the fraction of the run that it matches.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study.
    """
    table = with_names(with_accuracies(table), plain)
    arms = _arms(table)
    colours = dict(zip(arms, sns.color_palette("colorblind", len(arms)), strict=True))
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, layout="constrained")
    titles = {"clean": "clean test images", "robust": f"under attack ({_threat(table)})"}
    for axis, (value, title) in zip(axes, titles.items(), strict=True):
        for place, arm in enumerate(arms):
            rows = table[(table["arm"] == arm) & table[value].notna()]
            dashed = bool(rows["control"].notna().any())
            _line(
                axis, rows, value, colour=colours[arm], dashed=dashed, shift=0.006 * place, label=arm_label(arm, arms)
            )
        axis.set_xlabel("training images kept (control: of the run it matches), %")
        axis.set_title(fill(title, 52), fontsize=11)
        fractions = sorted(table["matched_fraction"].unique())
        axis.set_xticks(fractions, [f"{100 * fraction:g}" for fraction in fractions])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy, %")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(f"{_names(table)}: {_seeds(table)}, 95 % t interval; small dots: single runs", fontsize=10)
    _footnote(figure, table)
    return figure


def _line(axis: Axes, rows: pd.DataFrame, value: str, *, colour: Any, dashed: bool, shift: float, label: str) -> None:
    """One arm: interval, mean, single runs."""
    points = [(fraction, accuracy(group[value])) for fraction, group in rows.groupby("matched_fraction")]
    x = np.array([fraction for fraction, _ in points]) + shift
    means = 100 * np.array([e.mean for _, e in points])
    spread = 100 * np.array([[e.mean - e.low, e.high - e.mean] for _, e in points]).T
    style = "--" if dashed else "-"
    axis.errorbar(
        x, means, yerr=np.nan_to_num(spread), color=colour, linestyle=style, marker="o", ms=5, capsize=3, label=label
    )
    axis.plot(rows["matched_fraction"] + shift, 100 * rows[value], ".", color=colour, alpha=0.35, ms=5)


def runtime(table: pd.DataFrame, timings: pd.DataFrame) -> Figure:
    """Cost by phase against the share of data kept, and the speed-up in both units.

    Left: forward-equivalents of all runs, as a share of the full run's. Middle: processor seconds
    of the runs that were timed alone. Right: how many times cheaper than the full run, with the range
    over repeated timings, and the line 1/f that a free selection would reach.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study; controls are left out.
    timings : DataFrame
        From `collect_timings`; may be empty.
    """
    runs, timings = with_names(table[table["control"].isna()], plain), with_names(timings, plain)
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    fractions = sorted(runs["fraction"].unique())
    arms = _arms(runs)
    width = 0.13 / len(arms)
    colours = dict(zip(_PHASES, sns.color_palette("muted", len(_PHASES)), strict=True))
    named: set[str] = set()
    for place, arm in enumerate(arms):
        bottom = np.zeros(len(fractions))
        for phase, name in _PHASES.items():
            column = f"passes_{phase}"
            if column not in runs:
                continue
            means = np.array([_share(runs, arm, fraction, column) for fraction in fractions])
            if not means.any():
                continue
            x = np.array(fractions) + (place - (len(arms) - 1) / 2) * width
            label = None if phase in named else name
            axes[0].bar(x, means, width=0.9 * width, bottom=bottom, color=colours[phase], label=label)
            named.add(phase)
            bottom += means
    axes[0].plot([0, 1], [0, 1], color="grey", linestyle=":", label="fraction f")
    axes[0].set_ylabel("forward-equivalents / full run's training")
    axes[0].set_title(f"cost by phase, {runs['seed'].nunique()} seeds", fontsize=11)

    if len(timings):
        palette = dict(zip(arms, sns.color_palette("colorblind", len(arms)), strict=True))
        for arm in dict.fromkeys(timings["arm"]):
            group = timings[timings["arm"] == arm]
            seconds = group.groupby("fraction")["cpu_seconds"].median()
            axes[1].plot(seconds.index, seconds, "o-", color=palette[arm], label=arm_label(arm, arms))
            axes[1].plot(group["fraction"], group["cpu_seconds"], ".", color=palette[arm], alpha=0.4)
            if 1.0 in seconds.index:
                axes[1].plot([0, 1], [0, seconds[1.0]], color="grey", linestyle=":")
        axes[1].set_title(
            f"processor seconds, {int(_repeats(timings))} timing{'s' * (_repeats(timings) > 1)} alone", fontsize=11
        )
        axes[1].set_ylim(bottom=0)
    else:
        axes[1].text(0.5, 0.5, "no run was timed alone\n(timed_repeats = 0)", ha="center", transform=axes[1].transAxes)
    axes[1].set_ylabel("seconds of training + selection")

    grid = np.linspace(min(fractions), 1, 100)
    axes[2].plot(grid, 1 / grid, color="grey", linestyle=":", label="1/f")
    table_ = speed_ups(runs, timings)
    for arm in dict.fromkeys(table_["arm"]):
        group = table_[table_["arm"] == arm]
        label = arm_label(arm, arms)
        axes[2].plot(group["fraction"], group["speed_up_passes"], "o-", label=f"{label}, forward-equivalents")
        if group["speed_up_seconds"].notna().any():
            (line,) = axes[2].plot(group["fraction"], group["speed_up_seconds"], "s--", label=f"{label}, seconds")
            ends = (group["speed_up_seconds_low"], group["speed_up_seconds_high"])
            axes[2].vlines(group["fraction"], *ends, color=line.get_color())
    axes[2].set_ylabel("speed-up against the full run")
    axes[2].set_title("speed-up", fontsize=11)
    for axis in axes:
        axis.set_xticks(fractions, [f"{100 * fraction:g}" for fraction in fractions])
        axis.set_xlabel("training images kept, %")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    figure.suptitle(_names(table), fontsize=10)
    return figure


def _share(runs: pd.DataFrame, arm: str, fraction: float, column: str) -> float:
    rows = runs[(runs["arm"] == arm) & (runs["fraction"] == fraction)]
    return float((rows[column].fillna(0) / full_costs(runs)[rows.index]).mean()) if len(rows) else 0.0


def _repeats(timings: pd.DataFrame) -> int:
    return int(timings.groupby(["arm", "key"]).size().median())


def _threat(table: pd.DataFrame) -> str:
    return f"{threat(table)}; {', '.join(attacks_of(table))}"


def _seeds(table: pd.DataFrame) -> str:
    """``mean of 3 seeds``, and how many runs are in no mean."""
    seeds, missing = table["seed"].nunique(), table[table["robust"].isna()]["key"].nunique()
    left_out = f" ({missing} run{'s' * (missing > 1)} without a result left out)" if missing else ""
    return f"mean of {seeds} seed{'s' * (seeds > 1)}{left_out}"


def _names(table: pd.DataFrame) -> str:
    """Data set, network and objective, where there is one of each."""
    values = [dict.fromkeys(map(component_name, table[column])) for column in ("dataset", "model", "objective")]
    return ", ".join(next(iter(found)) for found in values if len(found) == 1)


def robust_vs_cost(table: pd.DataFrame) -> Figure:
    """Robust accuracy against cost: a point for each way of training at each fraction.

    Left: mean over seeds against forward-equivalents per training image; the line joins the points
    whose mean nothing as cheap or cheaper reaches, which is no verdict. Right: the same means with
    95 % t intervals, by way of training. Filled: all data; paler: a part of it. A cross marks ways
    of which a run collapsed.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study; controls are drawn like their runs, with a square.
    """
    table = with_names(with_accuracies(table), plain)
    points = frontier(table)
    names = list(dict.fromkeys(points.sort_values(["matched_fraction", "robust"], ascending=[False, True])["way"]))
    families = list(dict.fromkeys(points["objective"]))
    colours = dict(zip(families, sns.color_palette("colorblind", len(families)), strict=True))
    height = max(4.5, 0.27 * len(names) + 1.2)
    partial = sorted(fraction for fraction in points["matched_fraction"].unique() if fraction < 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, height), layout="constrained", width_ratios=(1.2, 1))
    for _, point in points.iterrows():
        colour, full = colours[point["objective"]], point["matched_fraction"] == 1
        style = {
            "marker": "X" if point["collapsed"] else "s" if point["control"] else "o",
            "markerfacecolor": colour
            if full
            else sns.light_palette(colour, 4)[partial.index(point["matched_fraction"]) % 3],
            "markeredgecolor": colour,
            "ms": 7,
            "linestyle": "",
        }
        left.plot(point["cost_per_image"], 100 * point["robust"], **style)
        low, high = 100 * (point["robust"] - point["robust_low"]), 100 * (point["robust_high"] - point["robust"])
        place = names.index(point["way"])
        right.errorbar(
            100 * point["robust"], place, xerr=[[np.nan_to_num(low)], [np.nan_to_num(high)]], ecolor=colour, **style
        )
    # What several arms share, as all pruners do the run on all data, is one point.
    best = points[points["on_frontier"]].sort_values("cost_per_image").drop_duplicates(["cost_per_image", "robust"])
    left.plot(best["cost_per_image"], 100 * best["robust"], color="grey", lw=1, zorder=0)
    for number, (_, point) in enumerate(best.iterrows()):
        same = (points["cost_per_image"] == point["cost_per_image"]) & (points["robust"] == point["robust"])
        full = point["matched_fraction"] == 1
        name = point["way"] if same.sum() == 1 else "all data" if full else f"{same.sum()} of them"
        share = "" if full else f" {100 * point['matched_fraction']:g} %"
        leftwards = number % 2 == 0 and number > 0  # left of the cheapest stands the axis
        left.annotate(
            f"{name}{share}",
            (point["cost_per_image"], 100 * point["robust"]),
            xytext=(-4, 6) if leftwards else (4, -13),
            textcoords="offset points",
            ha="right" if leftwards else "left",
            fontsize=8,
        )
    left.set_xscale("log")
    left.margins(x=0.2)
    left.set_xlabel("cost of training and selection, forward-equivalents per training image")
    left.set_ylabel(fill(f"robust accuracy, % ({_threat(table)})", 60))
    left.set_title("line: no mean is as high at that cost or less (no test)", fontsize=11)
    right.set_yticks(range(len(names)), names, fontsize=8)
    right.set_xlabel("robust accuracy, %, with 95 % t interval")
    parts = ", ".join(f"{100 * f:g} %" for f in sorted(points["matched_fraction"].unique(), reverse=True) if f < 1)
    kinds = f"filled: all data; paler: {parts} of it" if parts else "all data"
    kinds += "; squares: their controls" if points["control"].any() else ""
    right.set_title(kinds, fontsize=11)
    low, high = (points[f"robust_{end}"].fillna(points["robust"]) for end in ("low", "high"))
    right.set_xlim(max(0, 100 * low.min() - 2), min(100, 100 * high.max() + 2))
    handles = [Line2D([], [], color=colours[name], marker="o", linestyle="", label=name) for name in families]
    right.legend(handles=handles, title="objective", frameon=False, fontsize=8, loc="upper left")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.suptitle(f"{_names(table)}: {_seeds(table)}", fontsize=10)
    _footnote(figure, table)
    return figure
