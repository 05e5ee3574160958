"""The table as a figure: how far each ratio is from its target, and how far it could get."""

from __future__ import annotations

from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from advprune_core.analysis.style import BLUE, GREY, SMALL, VERMILLION, canvas, caption, legend, middles, styled

#: Inches of a row, of each more line of its label, and characters of such a line.
LINE, MORE, LABEL = 0.155, 0.11, 68
#: What is more than so many times its target stands at the edge.
HIGH = 4.0
MARKS = {"torchattacks": "o", "Foolbox": "^", "ART": "D", "textbook": "s", "pyautoattack": "v"}
OTHER = "p"


def lines(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame | None]]:
    """What stands in each row of the figure: a work as a heading, then its settings with their rows."""
    found: list[tuple[str, pd.DataFrame | None]] = []
    for work, of_work in rows.groupby("work", sort=False):
        found.append((str(work), None))
        found += [(fill(str(setting), LABEL), own) for setting, own in of_work.groupby("setting", sort=False)]
    return found


def dots(axis: Axes, place: float, rows: pd.DataFrame) -> None:
    """Ratios of one row; what is beyond the range stands at its edge."""
    for row in rows.itertuples():
        share = row.ratio / row.target
        met = row.met == "yes"
        colour = BLUE if met else VERMILLION if row.met == "no" else GREY  # of too few rounds: open
        mark = MARKS.get(str(row.peer), OTHER)
        if share > HIGH:
            axis.plot(HIGH, place, ">", color=colour)
        else:
            axis.plot(share, place, mark, color=colour, markerfacecolor=colour if met else "white")
        if pd.notna(row.ceiling):
            axis.plot(row.ceiling / row.target, place, "|", color="black", markersize=8)


@styled
def draw(rows: pd.DataFrame, ceilings: pd.DataFrame) -> Figure:
    """Ratios in units of their targets, filled where the target is met.

    Parameters
    ----------
    rows : DataFrame
        The table.
    ceilings : DataFrame
        ``work, setting, peer, device, ceiling``, of some rows or of none.
    """
    known = rows[rows["ratio"].notna()].merge(ceilings, how="left")
    placed, least = lines(known), float((known["ratio"] / known["target"]).min())
    spaces = [LINE + MORE * label.count("\n") for label, _ in placed]
    places = middles(spaces)
    figure, ((axis,),) = canvas(height=1.3 + sum(spaces))
    for place, (_, own) in zip(places, placed, strict=True):
        if own is not None:
            dots(axis, place, own)
    axis.set_yticks(places, [label for label, _ in placed], fontsize=SMALL)
    for (_, own), text in zip(placed, axis.get_yticklabels(), strict=True):
        text.set_fontweight("normal" if own is not None else "bold")
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set(xscale="log", xlim=(min(0.5, 0.9 * least), 1.1 * HIGH), ylim=(sum(spaces), 0), xlabel="ratio / target")
    ticks = [0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    marks = {**MARKS, "other": OTHER}
    handles = [Line2D([], [], linestyle="", color=GREY, marker=mark, label=peer) for peer, mark in marks.items()]
    handles += [
        Line2D([], [], linestyle="", color=BLUE, marker=">", label=f"met, beyond {HIGH:g} times"),
        Line2D([], [], linestyle="", color=GREY, marker=OTHER, markerfacecolor="white", label="grey: open"),
        Line2D([], [], linestyle="", color="black", marker="|", markersize=8, label="passes alone (ceiling)"),
    ]
    legend(figure, handles)
    device = ", ".join(known["device"].dropna().unique())
    caption(
        figure,
        f"Time of the other way over ours, in units of its target ({device}): filled and right of the line is met.",
    )
    return figure
