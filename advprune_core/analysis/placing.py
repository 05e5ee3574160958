"""Texts beside points and on lines of a figure, that cover nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from advprune_core.analysis.style import SMALL

#: Points between a mark and its text beyond which a line has to lead there.
_NEAR = 10
#: What a line through a text counts, in the area that texts may cover: more than any detour.
_CROSSED = 1000.0


def label_points(
    figure: Figure,
    axis: Axes,
    texts: Mapping[tuple[float, float], str],
    drawn: NDArray[np.float64],
    line: NDArray[np.float64],
) -> None:
    """Write texts beside points of an axis, so that none covers another, a point or the line: the last thing to draw.

    Parameters
    ----------
    texts : mapping of (x, y) to str
    drawn : array of float, shape (n, 2)
        All points of the axis.
    line : array of float, shape (m, 2)
        Corners of a line; none: no line.

    Notes
    -----
    The nearest free place of a fan around the point is taken, those in the thick of it first, or from one side to the
    other: whatever covers least and leaves texts nearest to their points. A thin line leads to one that stands apart.
    """
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    unit = figure.dpi / 72
    frame = axis.get_window_extent(renderer).padded(-2 * unit)
    marks, corners = (axis.transData.transform(part) if len(part) else np.zeros((0, 2)) for part in (drawn, line))
    along = [a + (b - a) * t for a, b in pairwise(corners) for t in np.linspace(0, 1, 100)]
    taken = [_around(mark, 4 * unit) for mark in marks] + [_around(place, unit) for place in along]
    owners = axis.transData.transform(np.array(list(texts)).reshape(-1, 2))
    crowds = [np.sum(np.hypot(*(marks - owner).T) < 40 * unit) for owner in owners]
    written: dict[str, Any] = {
        "textcoords": "offset points", "ha": "center", "va": "center", "fontsize": SMALL, "linespacing": 1.0,
    }  # fmt: skip
    boxes = []
    for point, text in texts.items():
        trial = axis.annotate(text, point, xytext=(0, 0), **written)
        boxes.append(trial.get_window_extent(renderer))
        trial.remove()

    def there(nth: int, place: tuple[float, float]) -> Bbox:
        return boxes[nth].translated(place[0] * unit, place[1] * unit)

    def leader(box: Bbox, owner: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Places along the thin line that leads from a point to a text apart from it; none to one beside it."""
        if _away(box, owner) <= _NEAR * unit:
            return []
        middle = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
        along = [owner + (middle - owner) * part for part in np.linspace(0, 1, 30)]
        return [place for place in along if not box.contains(*place)]

    def covered(
        box: Bbox,
        owner: NDArray[np.float64],
        full: list[Bbox],
        texts: list[Bbox],
        leaders: list[list[NDArray[np.float64]]],
    ) -> float:
        """What a text in a place covers, and how easily it is taken for another point's."""
        gap = _away(box, owner)
        cover = sum(_shared(box, other) for other in full) + 1e6 * (not _within(box, frame))
        cover += sum(9.0 for other in owners if (other != owner).any() and _away(box, other) < gap + 4 * unit)
        cover += sum(_CROSSED for others in leaders if any(box.contains(*place) for place in others))
        way = leader(box, owner)
        if way:
            cover += sum(9.0 for mark in marks if 0 < _from_line(mark, owner, way[-1]) < 4 * unit)
            cover += sum(_CROSSED for other in texts if any(other.contains(*place) for place in way))
        return cover

    def arranged(order: Sequence[int]) -> tuple[float, dict[int, tuple[float, float]]]:
        """What texts that are placed in this order cover and how far they stand apart; the place of each."""
        full, own, found, cost = list(taken), list[Bbox](), dict[int, tuple[float, float]](), 0.0
        leaders = list[list[NDArray[np.float64]]]()
        for nth in order:
            least = np.inf
            for place in _fan(boxes[nth].width / unit, boxes[nth].height / unit):
                cover = covered(there(nth, place), owners[nth], full, own, leaders)
                if cover < least:
                    found[nth], least = place, cover
                if not cover:
                    break
            own.append(there(nth, found[nth]))
            leaders.append(leader(own[-1], owners[nth]))
            full += [own[-1], *(_around(place, unit) for place in leaders[-1])]
            cost += least + _away(own[-1], owners[nth]) / unit
        return cost, found

    numbers = range(len(owners))
    orders = [sorted(numbers, key=lambda nth: -crowds[nth])]
    orders += [sorted(numbers, key=lambda nth: side * owners[nth][0]) for side in (1, -1)]
    _, places = min(map(arranged, orders), key=lambda arrangement: arrangement[0])
    lead = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    for nth, (point, text) in enumerate(texts.items()):
        apart = _away(there(nth, places[nth]), owners[nth]) > _NEAR * unit
        note = axis.annotate(text, point, xytext=places[nth], arrowprops=lead if apart else None, **written)
        note.set_in_layout(False)


def label_lines(
    figure: Figure, axis: Axes, lines: Mapping[str, NDArray[np.float64]], drawn: NDArray[np.float64]
) -> None:
    """Write a text on each line, at its first place that is free of points and other texts: the last thing to draw.

    Parameters
    ----------
    lines : mapping of str to array of float, shape (k, 2)
        Places along each line. One without a free place stays without its text.
    drawn : array of float, shape (n, 2)
        All points of the axis.
    """
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    unit = figure.dpi / 72
    frame = axis.get_window_extent(renderer).padded(-2 * unit)
    taken = [_around(mark, 6 * unit) for mark in axis.transData.transform(drawn)]
    for text, places in lines.items():
        note = axis.annotate(
            text, (0, 0), xycoords="axes fraction", ha="center", va="center", fontsize=SMALL, color="0.35", zorder=0.5,
            bbox={"facecolor": "w", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
        note.set_in_layout(False)
        box = note.get_window_extent(renderer)
        start = axis.transAxes.transform((0, 0))
        for place in places:
            there = box.translated(*(axis.transData.transform(place) - start))
            if _within(there, frame) and not any(_shared(there, other) for other in taken):
                note.xy = tuple(axis.transAxes.inverted().transform(axis.transData.transform(place)))
                note.set_position(note.xy)
                taken.append(there)
                break
        else:
            note.remove()


def _around(point: NDArray[np.float64], half: float) -> Bbox:
    return Bbox.from_bounds(point[0] - half, point[1] - half, 2 * half, 2 * half)


def _fan(width: float, height: float) -> Iterable[tuple[float, float]]:
    """Places of a text's middle around a point, in points, the nearest first: beside, above, below, askew."""
    for gap in (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 64.0):
        across, up = width / 2 + gap, height / 2 + gap
        yield from ((across, 0), (-across, 0), (0, up), (0, -up))
        for part in (0.5, 1.0):
            yield from ((across, part * up), (across, -part * up), (-across, part * up), (-across, -part * up))
        yield from ((across / 2, up), (across / 2, -up), (-across / 2, up), (-across / 2, -up))


def _shared(a: Bbox, b: Bbox) -> float:
    """Area that two boxes share."""
    common = Bbox.intersection(a, b)
    return 0.0 if common is None else float(common.width * common.height)


def _away(box: Bbox, point: NDArray[np.float64]) -> float:
    """How far a box is from a point."""
    nearest = np.clip(point, (box.x0, box.y0), (box.x1, box.y1))
    return float(np.hypot(*(point - nearest)))


def _from_line(point: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]) -> float:
    """How far a point is from the line between two; 0 for its start."""
    way, own = end - start, point - start
    along = min(1.0, max(0.0, float(own @ way) / max(1e-9, float(way @ way))))
    return float(np.hypot(*(own - along * way))) if own.any() else 0.0


def _within(inner: Bbox, outer: Bbox) -> bool:
    return bool(outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1)
