"""Robust accuracy against cost, and how far ways of training and pruners stand apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.doubts import doubts
from advprune_core.analysis.labels import arm_label, point_label, sample, setting, with_share
from advprune_core.analysis.markup import plain, with_names
from advprune_core.analysis.placing import label_points
from advprune_core.analysis.style import (
    ALL_DATA,
    COLLAPSED_MARK,
    CONTROL_MARK,
    GREY,
    PAGE,
    Look,
    caption,
    key,
    legend,
    paler,
    pruner_look,
    reach,
    styled,
    tidy,
    trainer_look,
)
from advprune_core.analysis.ways import SAME_COST, frontier, way_labels

#: With more points than this, only those of the front are named against the cost.
_NAMED = 6
#: With more than this the panels stand below; more controls than this stand against the cost alone, unnamed.
_MANY = 10
#: So many runs on all the data need no panel.
_FEW = 3
#: Inches: a line of text at a row, the space between rows, what stands around an axis, the height of the cost's, and
#: of a setting's name, where there are several.
_LINE, _SPACE, _FRAME, _COST, _NAME = 0.115, 0.055, 0.55, 2.5, 0.25


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
    blocks = [_Block.of(table, points) for _, points in frontier(table).groupby("setting", sort=False)]
    heights = [block.height + _NAME * (len(blocks) > 1) for block in blocks]
    figure = plt.figure(figsize=(PAGE, sum(heights) + 0.9), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
    costs = [_draw(part, block, named=len(blocks) > 1) for part, block in zip(parts, blocks, strict=True)]
    legend(figure, _keys([row for block in blocks for row in block.rows], shared=any(block.shared for block in blocks)))
    how = ", 95 % t interval" * any(bool(np.isfinite(row.point["robust_low"])) for b in blocks for row in b.rows)
    how += "; line: no mean is as high at that cost or less" * any(len(block.front) > 1 for block in blocks)
    how += _same_costs(blocks)
    caption(figure, setting(table), sample(table) + how, doubts(table, brief=True))
    for axis, block in zip(costs, blocks, strict=True):
        if axis is not None:
            label_points(figure, axis, block.names(), block.places(block.rows), block.places(block.front))
    return figure


@dataclass(frozen=True, eq=False)
class _Row:
    """A point with how it is drawn and named."""

    point: pd.Series
    look: Look
    label: str

    @property
    def share(self) -> float:
        return float(self.point["matched_fraction"])

    @property
    def place(self) -> tuple[float, float]:
        return float(self.point["cost_per_image"]), float(100 * self.point["robust"])

    def style(self, parts: list[float]) -> dict[str, Any]:
        """Mark and fill; `parts`: all fractions below 1 of the figure."""
        point, colour = self.point, self.look.colour
        mark = COLLAPSED_MARK if point["collapsed"] else CONTROL_MARK if point["control"] else self.look.mark
        face = paler(colour, _paleness(self.share, parts))
        return {"marker": mark, "markerfacecolor": face, "markeredgecolor": colour, "linestyle": ""}


@dataclass(frozen=True)
class _Block:
    """The points of one data set and threat model, the best first."""

    name: str
    rows: list[_Row]

    @classmethod
    def of(cls, table: pd.DataFrame, points: pd.DataFrame) -> _Block:
        """Points that were tested; arms that are the same runs are one."""
        names, found = list(dict.fromkeys(way_labels(table))), []
        by_pruner = bool((way_labels(table) == table["arm"]).all())
        same = ["matched_fraction", "cost_per_image", "clean", "robust", "robust_low", "collapsed"]
        for _, group in points[points["robust"].notna()].groupby(same, sort=False, dropna=False):
            point = group.sort_values("control", kind="stable").iloc[0]  # a full run is its own control
            whole = bool(point["matched_fraction"] == 1)
            look = trainer_look(point["objective"], point["start"], point["steps"])
            look = pruner_look(point["way"], whole=whole) if by_pruner else look
            label = _together(list(group["way"]), names, whole=whole, by_pruner=by_pruner)
            found.append(_Row(point, look, label))
        return cls(points["setting"].iloc[0], sorted(found, key=lambda row: -row.point["robust"]))

    @property
    def front(self) -> list[_Row]:
        """What has the highest mean at its cost or less, the cheapest first."""
        return sorted((row for row in self.rows if row.point["on_frontier"]), key=lambda row: row.place)

    @property
    def one_cost(self) -> bool:
        """Whether all cost the same, so that there is nothing to draw against it."""
        costs = [row.place[0] for row in self.rows]
        return len(costs) > 1 and max(costs) <= (1 + SAME_COST) * min(costs)

    @property
    def shared(self) -> _Row | None:
        """The run on all the data, if there is one for all, and parts of the data beside it."""
        whole = [row for row in self.rows if row.share == 1 and not row.point["control"]]
        return whole[0] if len(whole) == 1 and len(self.rows) > 1 else None

    @property
    def told(self) -> list[_Row]:
        """What is named: all, but for controls, if there are many."""
        arms = [row for row in self.rows if not row.point["control"]]
        return arms if len(self.rows) - len(arms) > _MANY else self.rows

    @property
    def panels(self) -> list[tuple[float, list[_Row]]]:
        """Fractions and the rows of their panels; few runs on all the data stand among those on parts of it."""
        parts = sorted({row.share for row in self.told}, reverse=True)
        few = len(parts) > 1 and sum(row.share == 1 for row in self.told) <= _FEW
        found = []
        for part in parts:
            guests = few and self.shared is None
            rows = [row for row in self.told if row.share == part or (guests and row.share == 1)]
            found += [(part, rows)] if part < 1 or not few else []
        return found

    @property
    def span(self) -> tuple[float, float]:
        """Robust accuracies that all panels show, in per cent."""
        shown = [row for _, rows in self.panels for row in rows] + [row for row in [self.shared] if row]
        ends = [row.point[name] for row in shown for name in ("robust", "robust_low", "robust_high")]
        low, high = 100 * np.nanmin(ends), 100 * np.nanmax(ends)
        room = 0.04 * max(1.0, high - low)
        return low - room, high + room

    @property
    def beside(self) -> bool:
        """Whether the panels stand side by side; else that of the cost above the others."""
        return len(self.panels) < 2 and len(self.rows) <= _MANY

    @property
    def height(self) -> float:
        """Inches of all panels."""
        tall = [max(map(self.tall, pair)) for pair in self.pairs()]
        if self.one_cost:
            return sum(tall)
        return max(2.0, *tall, 0.0) if self.beside else _COST + sum(tall)

    def pairs(self) -> list[list[list[_Row]]]:
        """The rows of the panels, two panels beside each other."""
        rows = [rows for _, rows in self.panels]
        return [rows[place : place + 2] for place in range(0, len(rows), 2)]

    def tall(self, rows: list[_Row]) -> float:
        return sum(self.spaces(rows)) + _FRAME

    def spaces(self, rows: list[_Row]) -> list[float]:
        """Inches of each row."""
        return [_LINE * (1 + self.text(row).count("\n")) + _SPACE for row in rows]

    def text(self, row: _Row) -> str:
        """What stands at a row, in as many lines as it needs."""
        wide = 60 if len(self.panels) < 2 and (self.one_cost or not self.beside) else 34 if self.beside else 28
        return fill(row.label, wide, break_long_words=False)

    def names(self) -> dict[tuple[float, float], str]:
        """What stands beside points against the cost."""
        shown = self.rows if len(self.rows) <= _NAMED else self.front
        return {row.place: fill(_with_share(row), 34, break_long_words=False) for row in shown if row in self.told}

    @staticmethod
    def places(rows: list[_Row]) -> NDArray[np.float64]:
        return np.array([row.place for row in rows]).reshape(-1, 2)


def _together(ways: list[str], names: list[str], *, whole: bool, by_pruner: bool) -> str:
    """What arms that are the same runs are called together; one alone keeps its name, but for a pruner's of all."""
    if len(ways) == 1:
        return point_label(ways[0], 1.0, names, whole=True) if whole and by_pruner else arm_label(ways[0], names)
    parts = [way.rpartition(": ")[::2] for way in ways]
    of, own = (set(side) for side in zip(*parts, strict=True))
    if whole:
        text = "all the data"
    elif len(own) == 1:
        return f"{arm_label(own.pop())} (all ways)"
    else:
        text = f"{arm_label(parts[0][1])} and {len(ways) - 1} more"
    return f"{of.pop()}: {text}" if len(of) == 1 and "" not in of else text


def _with_share(row: _Row) -> str:
    if row.share == 1:
        return row.label
    return with_share(row.label, row.share, matched=bool(row.point["fraction"] == 1))  # a control on all the data


def _paleness(share: float, parts: list[float]) -> float:
    """How much of its colour a mark is filled with: all the data in full, the smallest part not at all."""
    return 1.0 if share == 1 else 0.5 * (len(parts) - 1 - parts.index(share)) / max(1, len(parts) - 1)


def _parts(rows: Iterable[_Row]) -> list[float]:
    return sorted({row.share for row in rows if row.share < 1}, reverse=True)


def _same_costs(blocks: list[_Block]) -> str:
    """What all cost where there is no panel of the cost."""
    costs = [f"{np.mean([row.place[0] for row in block.rows]):.3g}" for block in blocks if block.one_cost]
    return (
        f"; cost of each: {' and '.join(dict.fromkeys(costs))} forward-equivalents per training image" if costs else ""
    )


def _draw(part: SubFigure, block: _Block, *, named: bool) -> Axes | None:
    """The panels of a setting; the axis of the cost."""
    axis: Axes | None
    tall = [max(map(block.tall, pair)) for pair in block.pairs()]
    panels, parts = block.panels, _parts(block.rows)
    # Over all panels where there are several: one is too narrow for it.
    over = named and block.one_cost and len(panels) > 1
    if over:
        part.suptitle(block.name, fontsize=plt.rcParams["axes.titlesize"])
    name = f"{block.name}\n" if named and not over else ""
    if block.beside and not block.one_cost:
        grid = part.add_gridspec(1, 1 + len(panels), width_ratios=(1.3, *[1] * len(panels)))
        axis, places = part.add_subplot(grid[0, 0]), [part.add_subplot(grid[0, 1 + n]) for n in range(len(panels))]
    else:
        halves = [part] if block.one_cost else _halves(part, [_COST, sum(tall)])
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


def _cost(axis: Axes, block: _Block, parts: list[float]) -> None:
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


def _ranks(axis: Axes, block: _Block, rows: list[_Row], parts: list[float]) -> None:
    """A row for each way, the highest mean at the top."""
    spaces = np.array(block.spaces(rows))
    places = np.cumsum(spaces) - spaces / 2
    for place, row in zip(places, rows, strict=True):
        mean, low, high = (float(row.point[name]) for name in ("robust", "robust_low", "robust_high"))
        axis.errorbar(
            100 * mean, place, xerr=reach(mean, low, high), ecolor=row.look.colour, elinewidth=0.9, **row.style(parts)
        )
    if block.shared is not None and rows and rows[-1].share < 1:
        axis.axvline(block.shared.place[1], color=GREY, linewidth=0.9, linestyle="--", zorder=0)
    axis.set_xlim(*block.span)
    axis.set_ylim(spaces.sum(), 0)
    axis.set_yticks(places, [block.text(row) for row in rows])
    axis.set_xlabel("robust accuracy, %")
    tidy(axis)


def _keys(rows: list[_Row], *, shared: bool) -> list[Line2D]:
    """Families, fills and marks that occur."""
    families = {row.look.family: row.look for row in rows if not row.point["control"] and row.look != ALL_DATA}
    keys = [key(look, linestyle="") for look in families.values()] if len(families) > 1 else []
    parts = _parts(rows)
    grey: dict[str, Any] = {"color": GREY, "linestyle": "", "marker": "o"}
    shares = sorted({row.share for row in rows}, reverse=True)
    for share in shares if len(shares) > 1 else []:
        text = "all the data" if share == 1 else f"{100 * share:g} % of it"
        keys.append(Line2D([], [], label=text, **{**grey, "markerfacecolor": paler(GREY, _paleness(share, parts))}))
    if shared and parts:
        keys.append(Line2D([], [], label="robust accuracy on all the data", color=GREY, linestyle="--"))
    marks = {"control": (CONTROL_MARK, "control"), "collapsed": (COLLAPSED_MARK, "with a collapsed run")}
    for column, (mark, text) in marks.items():
        if any(row.point[column] for row in rows):
            keys.append(Line2D([], [], label=text, **{**grey, "marker": mark, "markerfacecolor": "w"}))
    return keys
