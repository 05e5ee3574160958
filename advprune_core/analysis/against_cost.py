"""Robust accuracy against cost, and how far ways of training and pruners stand apart."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.doubts import doubts
from advprune_core.analysis.labels import sample, setting
from advprune_core.analysis.markup import plain, with_names
from advprune_core.analysis.placing import label_points
from advprune_core.analysis.ranks import COST, Block, Row, paleness, parts_of
from advprune_core.analysis.seeds import MIN_SEEDS, well_covered
from advprune_core.analysis.style import (
    ALL_DATA,
    COLLAPSED_MARK,
    CONTROL_MARK,
    GREY,
    PAGE,
    caption,
    key,
    legend,
    middles,
    paler,
    reach,
    styled,
    tidy,
)
from advprune_core.analysis.ways import frontier

#: Inches of a setting's name, where there are several.
_NAME = 0.25


@styled
def robust_vs_cost(table: pd.DataFrame) -> Figure:
    """Robust accuracy against cost, and by way of training at each fraction, for each threat model by itself.

    First panel: means over seeds against forward-equivalents per training image; the line joins the
    points whose mean nothing as cheap or cheaper reaches, which is no verdict. Then a panel for each fraction:
    the same means with 95 % t intervals, the highest first, on one scale; what all arms share, as pruners do the run
    on all the data, is a line in all panels. Filled: all data; paler: a part of it. Squares are controls. A cross
    marks ways of which a run collapsed.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study.
    """
    table = with_names(with_accuracies(table), plain)
    blocks = [Block.of(table, points) for _, points in frontier(table).groupby("setting", sort=False)]
    heights = [block.height + _NAME * (len(blocks) > 1) for block in blocks]
    figure = plt.figure(figsize=(PAGE, sum(heights) + 0.9), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
    rows = [row for block in blocks for row in block.rows]
    shares = parts_of(rows)  # of all settings, as the legend is
    costs = [_draw(part, block, shares, named=len(blocks) > 1) for part, block in zip(parts, blocks, strict=True)]
    legend(figure, _keys(rows, shares, shared=any(block.shared for block in blocks)))
    how = ", 95 % t interval" * any(bool(np.isfinite(row.point["robust_low"])) for b in blocks for row in b.rows)
    ranked = all(well_covered(pd.Series([row.point["seeds"] for row in block.rows])).all() for block in blocks)
    which = "no mean" if ranked else f"no mean of {MIN_SEEDS} seeds"
    how += f"; line: {which} is as high at that cost or less" * any(len(block.front) > 1 for block in blocks)
    how += _same_costs(blocks)
    caption(figure, setting(table), sample(table) + how, doubts(table, brief=True))
    for axis, block in zip(costs, blocks, strict=True):
        if axis is not None:
            label_points(figure, axis, block.names(), block.places(block.rows), block.places(block.front))
    return figure


def _same_costs(blocks: list[Block]) -> str:
    """What all cost where there is no panel of the cost."""
    costs = [f"{np.mean([row.place[0] for row in block.rows]):.3g}" for block in blocks if block.one_cost]
    return (
        f"; cost of each: {' and '.join(dict.fromkeys(costs))} forward-equivalents per training image" if costs else ""
    )


def _draw(part: SubFigure, block: Block, parts: list[float], *, named: bool) -> Axes | None:
    """The panels of a setting; the axis of the cost. `parts`: all fractions below 1 of the figure."""
    axis: Axes | None
    tall = [max(map(block.tall, pair)) for pair in block.pairs()]
    panels = block.panels
    # Over all panels where there are several: one is too narrow for it.
    over = named and block.one_cost and len(panels) > 1
    if over:
        part.suptitle(block.name, fontsize=plt.rcParams["axes.titlesize"])
    name = f"{block.name}\n" if named and not over else ""
    if block.beside and not block.one_cost:
        grid = part.add_gridspec(1, 1 + len(panels), width_ratios=(1.3, *[1] * len(panels)))
        axis, places = part.add_subplot(grid[0, 0]), [part.add_subplot(grid[0, 1 + n]) for n in range(len(panels))]
    else:
        halves = [part] if block.one_cost else _halves(part, [COST, sum(tall)])
        below = halves[-1]
        grid = below.add_gridspec(len(tall), min(2, len(panels)), height_ratios=tall)
        axis = None if block.one_cost else halves[0].subplots()
        places = [below.add_subplot(grid[n // 2, n % 2]) for n in range(len(panels))]
    if axis is not None:
        _cost(axis, block, parts)
        axis.set_title(name.strip())
    for ranks, (fraction, rows) in zip(places, panels, strict=True):
        _ranks(ranks, block, rows, parts)
        share = "all the data" if fraction == 1 else f"{100 * fraction:g} % of the data"
        share += ", and all" * (fraction < 1 and any(row.share == 1 for row in rows))
        ranks.set_title(f"{name * (axis is None)}{share}")
    return axis


def _halves(part: SubFigure, heights: list[float]) -> list[SubFigure]:
    return list(np.ravel(part.subfigures(2, 1, squeeze=False, height_ratios=heights)))


def _cost(axis: Axes, block: Block, parts: list[float]) -> None:
    """Points by cost, and the line of the best."""
    for row in block.rows:
        axis.plot(*row.place, **row.style(parts))
    if len(block.front) > 1:
        axis.plot(*block.places(block.front).T, color=GREY, linewidth=0.8, zorder=0)
    axis.set_xscale("log")
    axis.margins(x=0.16, y=0.16)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("cost, forward-equivalents per training image")
    axis.set_ylabel("robust accuracy, %")
    tidy(axis)


def _ranks(axis: Axes, block: Block, rows: list[Row], parts: list[float]) -> None:
    """A row for each way, the highest mean at the top."""
    spaces = block.spaces(rows)
    places = middles(spaces)
    for place, row in zip(places, rows, strict=True):
        mean, low, high = (float(row.point[name]) for name in ("robust", "robust_low", "robust_high"))
        axis.errorbar(
            100 * mean, place, xerr=reach(mean, low, high), ecolor=row.look.colour, elinewidth=0.9, **row.style(parts)
        )
    if block.shared is not None and rows and rows[-1].share < 1:
        axis.axvline(block.shared.place[1], color=GREY, linewidth=0.9, linestyle="--", zorder=0)
    axis.set_xlim(*block.span)
    axis.set_ylim(sum(spaces), 0)
    axis.set_yticks(places, [block.text(row) for row in rows])
    axis.set_xlabel("robust accuracy, %")
    tidy(axis)


def _keys(rows: list[Row], parts: list[float], *, shared: bool) -> list[Line2D]:
    """Families, fills and marks that occur."""
    families = {row.look.family: row.look for row in rows if not row.point["control"] and row.look != ALL_DATA}
    keys = [key(look, linestyle="") for look in families.values()] if len(families) > 1 else []
    grey: dict[str, Any] = {"color": GREY, "linestyle": "", "marker": "o"}
    shares = sorted({row.share for row in rows}, reverse=True)
    controls = any(row.point["control"] for row in rows)
    for share in shares if len(shares) > 1 or controls else []:
        text = "all the data" if share == 1 else f"{100 * share:g} % of {'it' if 1 in shares else 'the data'}"
        keys.append(Line2D([], [], label=text, **{**grey, "markerfacecolor": paler(GREY, paleness(share, parts))}))
    if shared and parts:
        keys.append(Line2D([], [], label="robust accuracy on all the data", color=GREY, linestyle="--"))
    marks = {"control": (CONTROL_MARK, "control"), "collapsed": (COLLAPSED_MARK, "with a collapsed run")}
    for column, (mark, text) in marks.items():
        if any(row.point[column] > 0 for row in rows):
            keys.append(Line2D([], [], label=text, **{**grey, "marker": mark, "markerfacecolor": "w"}))
    return keys
