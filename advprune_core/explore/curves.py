"""What a study's figure shows for a choice of axis, measure and arms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advprune_core.analysis.cells import setting_of, settings
from advprune_core.analysis.estimates import accuracy
from advprune_core.analysis.markup import plain
from advprune_core.analysis.plots import arm_label, point_label
from advprune_core.analysis.seeds import Point, points
from advprune_core.analysis.tested import attacks_of
from advprune_core.explore.pictures import COLOURS, MARKS, blank
from advprune_core.explore.sources import Source

Axis = Literal["fraction", "cost", "seconds"]

#: What each axis says.
AXES: dict[Axis, str] = {
    "fraction": "training images kept (control: of the run it matches), %",
    "cost": "forward-equivalents of training and selection, for each training image",
    "seconds": "processor seconds of training and selection, of runs timed alone",
}
#: What differs by less than this share of it stands in the middle of an axis that is twice as long.
_SPAN = 0.05


def axes_of(source: Source) -> list[Axis]:
    """The axes that a study has values for: seconds only where runs were timed alone."""
    return [axis for axis in get_args(Axis) if axis != "seconds" or len(source.timings)]


def metrics_of(table: pd.DataFrame) -> dict[str, str]:
    """Columns of accuracies by what they are called."""
    attacks = attacks_of(table, parts=True)
    named = {f"after {name}" + " and those before it" * (number > 0): name for number, name in enumerate(attacks)}
    return {
        "robust: right under every attack": "robust",
        "clean": "clean",
        **{label: f"robust_{name}" for label, name in named.items()},
    }


def threats_of(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each data set, threat model and network, named: across them nothing is comparable."""
    return {name or setting_of(rows): rows for name, rows in settings(table)}


def arms_of(table: pd.DataFrame) -> dict[str, str]:
    """Arms by what a legend says of them."""
    names = list(dict.fromkeys(table["arm"]))
    return {arm_label(name, names): name for name in names}


def curve(source: Source, table: pd.DataFrame, *, axis: Axis, metric: str) -> pd.DataFrame:
    """A row for each arm at each fraction of a table.

    Parameters
    ----------
    source : Source
        Of the timings.
    table : DataFrame
        Rows of one threat model, from `threats_of`, of any arms.
    axis : str
    metric : str
        A column of accuracies.

    Returns
    -------
    DataFrame
        ``arm, fraction`` (matched); ``x``: per cent, forward-equivalents for each training image, or the
        median of processor seconds (NaN: not timed); ``mean, low, high`` in [0, 1]: Student's 95 % interval
        over ``seeds`` (NaN without spread).
    """
    rows = []
    for (arm, fraction), runs in points(table).items():
        found = accuracy(runs[metric].dropna())
        rows.append(
            {
                "arm": arm,
                "fraction": fraction,
                "x": _place(source, runs, axis),
                "mean": found.mean,
                "low": found.low,
                "high": found.high,
                "seeds": found.seeds,
            }
        )
    return pd.DataFrame(rows, columns=["arm", "fraction", "x", "mean", "low", "high", "seeds"])


def _place(source: Source, runs: pd.DataFrame, axis: Axis) -> float:
    """Where a point stands."""
    if axis == "fraction":
        return float(100 * runs["matched_fraction"].iloc[0])
    if axis == "cost":
        return float((runs["cost"] / runs["n"]).mean())
    timed = source.timings
    own = timed[timed["key"].isin(runs["key"])]["cpu_seconds"] if len(timed) else np.empty(0)
    return float(np.median(own)) if len(own) else float("nan")


def curve_figure(
    source: Source,
    table: pd.DataFrame,
    arms: Sequence[str],
    *,
    axis: Axis = "fraction",
    metric: str = "robust",
    intervals: bool = True,
    runs: bool = False,
    chosen: Point | None = None,
) -> Figure:
    """Accuracy of some arms against what they keep or cost.

    Parameters
    ----------
    source, table, axis, metric
        As of `curve`; the axis of a study without timings is not seconds.
    arms : sequence of str
    intervals, runs : bool
        Draw 95 % intervals over seeds; draw each seed's run.
    chosen : (str, float), optional
        Arm and matched fraction of a point that is ringed.
    """
    figure = blank(width=9, height=4.6)
    axes = figure.subplots()
    names = list(dict.fromkeys(table["arm"]))
    for arm in arms:
        rows = table[table["arm"] == arm]
        found = curve(source, rows, axis=axis, metric=metric).dropna(subset=["x", "mean"]).sort_values("x")
        place = names.index(arm)
        colour, dashed = COLOURS[place % len(COLOURS)], bool(rows["control"].notna().any())
        look: dict[str, Any] = {
            "color": colour,
            "marker": MARKS[place % len(MARKS)],
            "linestyle": "--" if dashed else "-",
        }
        spread = np.nan_to_num(100 * np.array([found["mean"] - found["low"], found["high"] - found["mean"]]))
        label = plain(arm_label(arm, names))
        axes.errorbar(
            found["x"], 100 * found["mean"], yerr=spread if intervals else None, capsize=3, ms=5, label=label, **look
        )
        for _, point in found.iterrows() if runs else ():
            own = rows[rows["matched_fraction"] == point["fraction"]][metric].dropna()
            axes.plot([point["x"]] * len(own), 100 * own, ".", color=colour, alpha=0.5)
        ringed = found[(found["fraction"] == chosen[1])] if chosen and chosen[0] == arm else found.iloc[:0]
        axes.plot(ringed["x"], 100 * ringed["mean"], "o", ms=14, markerfacecolor="none", color="0.2")
    _honest_span(axes)
    axes.set_xlabel(AXES[axis])
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)
    what = next(label for label, column in metrics_of(table).items() if column == metric)
    seeds = table["seed"].nunique()
    about = f"{what}; {next(iter(threats_of(table)))}; {seeds} seed{'s' * (seeds > 1)}"
    axes.set_title(about + ", bars: 95 % intervals" * intervals + ", dots: single runs" * runs, fontsize=10)
    if arms:
        _legend(figure, most=3 if len(arms) > 4 else 2)
    return figure


def _honest_span(axes: Axes) -> None:
    """Numbers on the x axis as they are, and what costs the same, but for rounding, in one place."""
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    low, high = axes.dataLim.intervalx
    middle = (low + high) / 2
    if np.isfinite(middle) and high - low < _SPAN * middle:
        axes.set_xlim(middle * (1 - _SPAN), middle * (1 + _SPAN))


def _legend(figure: Figure, *, most: int) -> None:
    """A legend below the axes, in as many columns as the figure is wide enough for."""
    for columns in range(most, 0, -1):
        made = figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
        if columns == 1 or made.get_window_extent().width <= figure.bbox.width:
            break
        made.remove()


def choices(table: pd.DataFrame, arms: Sequence[str]) -> dict[str, Point]:
    """The points of some arms by what they are called."""
    names = list(dict.fromkeys(table["arm"]))
    found = sorted((point for point in points(table) if point[0] in arms), key=lambda point: names.index(point[0]))
    return {point_label(*point, names): point for point in found}
