"""Ways of training and pruners beside their cost: how each is drawn and called, in which panel it stands, how high."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from advprune_core.analysis.labels import arm_label, point_label, with_share
from advprune_core.analysis.style import COLLAPSED_MARK, CONTROL_MARK, Look, in_lines, paler, pruner_look, trainer_look
from advprune_core.analysis.ways import SAME_COST, way_labels

#: Inches: the height of the panel of the cost.
COST = 2.5
#: A line of text at a row, the space between rows, what stands around an axis.
_LINE, _SPACE, _FRAME = 0.115, 0.055, 0.55
#: With more points than this, only those of the front, and few runs on all the data, are named against the cost.
_NAMED = 6
#: With more than this the panels stand below: names against the cost need the width.
_BESIDE = 4
#: More controls than this stand against the cost alone, unnamed.
_MANY = 10
#: So many runs on all the data need no panel.
_FEW = 3


@dataclass(frozen=True, eq=False)
class Row:
    """A point with how it is drawn and named."""

    point: pd.Series
    look: Look
    label: str

    @property
    def share(self) -> float:
        """Of the data that it keeps, a control: that the run it matches keeps."""
        return float(self.point["matched_fraction"])

    @property
    def place(self) -> tuple[float, float]:
        """Forward-equivalents per training image, robust accuracy in per cent."""
        return float(self.point["cost_per_image"]), float(100 * self.point["robust"])

    def style(self, parts: list[float]) -> dict[str, Any]:
        """Mark and fill; `parts`: all fractions below 1 of the figure."""
        point, colour = self.point, self.look.colour
        mark = COLLAPSED_MARK if point["collapsed"] > 0 else CONTROL_MARK if point["control"] else self.look.mark
        face = paler(colour, paleness(self.share, parts))
        return {"marker": mark, "markerfacecolor": face, "markeredgecolor": colour, "linestyle": ""}


@dataclass(frozen=True)
class Block:
    """The points of one data set and threat model, the best first."""

    name: str
    rows: list[Row]

    @classmethod
    def of(cls, table: pd.DataFrame, points: pd.DataFrame) -> Block:
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
            found.append(Row(point, look, label))
        return cls(points["setting"].iloc[0], sorted(found, key=lambda row: -row.point["robust"]))

    @property
    def front(self) -> list[Row]:
        """What has the highest mean at its cost or less, the cheapest first."""
        return sorted((row for row in self.rows if row.point["on_frontier"]), key=lambda row: row.place)

    @property
    def one_cost(self) -> bool:
        """Whether all cost the same, so that there is nothing to draw against it."""
        costs = [row.place[0] for row in self.rows]
        return len(costs) > 1 and max(costs) <= (1 + SAME_COST) * min(costs)

    @property
    def shared(self) -> Row | None:
        """The run on all the data, if there is one for all, and parts of the data beside it."""
        whole = [row for row in self.whole if not row.point["control"]]
        return whole[0] if len(whole) == 1 and len(self.rows) > 1 else None

    @property
    def told(self) -> list[Row]:
        """What is named: all, but for controls, if there are many."""
        arms = [row for row in self.rows if not row.point["control"]]
        return arms if len(self.rows) - len(arms) > _MANY else self.rows

    @property
    def whole(self) -> list[Row]:
        """Of these the runs on all the data."""
        return [row for row in self.told if row.share == 1]

    @property
    def panels(self) -> list[tuple[float, list[Row]]]:
        """Fractions and the rows of their panels; few runs on all the data stand among those on parts of it."""
        parts = sorted({row.share for row in self.told}, reverse=True)
        few = len(parts) > 1 and len(self.whole) <= _FEW
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
        return len(self.panels) < 2 and len(self.rows) <= _BESIDE

    @property
    def height(self) -> float:
        """Inches of all panels."""
        tall = [max(map(self.tall, pair)) for pair in self.pairs()]
        if self.one_cost:
            return sum(tall)
        return max(2.0, *tall, 0.0) if self.beside else COST + sum(tall)

    def pairs(self) -> list[list[list[Row]]]:
        """The rows of the panels, two panels beside each other."""
        rows = [rows for _, rows in self.panels]
        return [rows[place : place + 2] for place in range(0, len(rows), 2)]

    def tall(self, rows: list[Row]) -> float:
        """Inches of a panel."""
        return sum(self.spaces(rows)) + _FRAME

    def spaces(self, rows: list[Row]) -> list[float]:
        """Inches of each row."""
        return [_LINE * (1 + self.text(row).count("\n")) + _SPACE for row in rows]

    def text(self, row: Row) -> str:
        """What stands at a row, in as many lines as it needs."""
        wide = 60 if len(self.panels) < 2 and (self.one_cost or not self.beside) else 34 if self.beside else 28
        return in_lines(row.label, wide, cut_words=False)

    def names(self) -> dict[tuple[float, float], str]:
        """What stands beside points against the cost."""
        best = self.front + self.whole * (len(self.whole) <= _FEW)
        shown = [row for row in self.told if len(self.rows) <= _NAMED or row in best]
        return {row.place: in_lines(_with_share(row), 34, cut_words=False) for row in shown}

    @staticmethod
    def places(rows: list[Row]) -> NDArray[np.float64]:
        """Of rows, against the cost, shape (n, 2)."""
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


def _with_share(row: Row) -> str:
    if row.share == 1:
        return row.label
    return with_share(row.label, row.share, matched=bool(row.point["fraction"] == 1))  # a control on all the data


def paleness(share: float, parts: list[float]) -> float:
    """How much of its colour a mark is filled with: all the data in full, the smallest part not at all."""
    return 1.0 if share == 1 else 0.5 * (len(parts) - 1 - parts.index(share)) / max(1, len(parts) - 1)


def parts_of(rows: Iterable[Row]) -> list[float]:
    """The shares of the data below 1, the largest first."""
    return sorted({row.share for row in rows if row.share < 1}, reverse=True)
