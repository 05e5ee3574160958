"""Texts beside points and on lines of a figure, that cover nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from advprune_core.analysis.style import SMALL

#: Points between a mark and its text beyond which a line has to lead there.
_NEAR = 10
#: What a line through a text counts, in the area that texts may cover: more than any detour.
_CROSSED = 1000.0
#: What a text that may be taken for another point's counts, in the same.
_MISTAKEN = 30.0
#: Orders of texts by chance that are tried beside those with a reason.
_TRIES = 30

Floats = NDArray[np.float64]


def label_points(
    figure: Figure, axis: Axes, texts: Mapping[tuple[float, float], str], drawn: Floats, line: Floats
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
    The nearest free place of a fan around the point is taken, those in the thick of it first, from one side to the
    other or by chance; then each text that covers something moves, as long as that helps. Whatever covers least and
    leaves texts nearest to their points is drawn, with a thin line to each text that stands apart.
    """
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    unit = figure.dpi / 72
    frame = np.array(axis.get_window_extent(renderer).padded(-2 * unit).extents)
    marks, corners = (axis.transData.transform(part) if len(part) else np.zeros((0, 2)) for part in (drawn, line))
    along = [a + (b - a) * t for a, b in pairwise(corners) for t in np.linspace(0, 1, 100)]
    taken = np.concatenate([_around(marks, 4 * unit), _around(np.reshape(along, (-1, 2)), unit)])
    owners = axis.transData.transform(np.reshape(list(texts), (-1, 2)))
    written: dict[str, Any] = {
        "textcoords": "offset points", "ha": "center", "va": "center", "fontsize": SMALL, "linespacing": 1.0,
    }  # fmt: skip
    fans = list[_Fan]()
    for (point, text), owner in zip(texts.items(), owners, strict=True):
        trial = axis.annotate(text, point, xytext=(0, 0), **written)
        others = marks[(np.abs(marks - owner) > 0.01).any(1)]  # pixels: what is less apart is one point
        fans.append(_fan(np.array(trial.get_window_extent(renderer).extents), owner, others, unit))
        trial.remove()
    alone = [_alone(fan, taken=taken, frame=frame, unit=unit) for fan in fans]
    crowds = np.array([np.sum(np.hypot(*(marks - owner).T) < 40 * unit) for owner in owners], float)
    places = _arranged(fans, alone, [-crowds, owners[:, 0], -owners[:, 0]])
    lead = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    for (point, text), fan, place in zip(texts.items(), fans, places, strict=True):
        arrow = lead if fan.led[place] else None
        note = axis.annotate(text, point, xytext=tuple(fan.offsets[place]), arrowprops=arrow, **written)
        note.set_in_layout(False)


def label_lines(figure: Figure, axis: Axes, lines: Mapping[str, Floats], drawn: Floats) -> None:
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
    frame = np.array(axis.get_window_extent(renderer).padded(-2 * unit).extents)
    taken = list(_around(axis.transData.transform(drawn), 6 * unit))
    for text, places in lines.items():
        note = axis.annotate(
            text, (0, 0), xycoords="axes fraction", ha="center", va="center", fontsize=SMALL, color="0.35", zorder=0.5,
            bbox={"facecolor": "w", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
        note.set_in_layout(False)
        box = note.get_window_extent(renderer).extents
        start = axis.transAxes.transform((0, 0))
        for place in places:
            there = box + np.tile(axis.transData.transform(place) - start, 2)
            if _within(there, frame) and not _shared(there, np.reshape(taken, (-1, 4))).any():
                note.xy = tuple(axis.transAxes.inverted().transform(axis.transData.transform(place)))
                note.set_position(note.xy)
                taken.append(there)
                break
        else:
            note.remove()


@dataclass(frozen=True)
class _Fan:
    """Places that a text may take around its point, the nearest first; in pixels where nothing else is said."""

    #: The point, shape (2,).
    owner: Floats
    #: A text's middle from the point, in points, shape (k, 2).
    offsets: Floats
    #: Its box: x0, y0, x1, y1, shape (k, 4).
    boxes: Floats
    #: How far it is from the point, in points, shape (k,).
    away: Floats
    #: Other points, shape (m, 2).
    others: Floats
    #: Whether another point is as near to it, within a few points: it may be taken for that one's; shape (k,).
    mistaken: NDArray[np.bool_]
    #: Whether a thin line leads to it, shape (k,).
    led: NDArray[np.bool_]
    #: Places on the thin line; not a number where there is none: shape (k, 60, 2).
    ways: Floats


def _fan(box: Floats, owner: Floats, others: Floats, unit: float) -> _Fan:
    """Beside, above, below, askew."""
    offsets = list[tuple[float, float]]()
    half = (box[2:] - box[:2]) / 2
    for gap in (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 64.0, 80.0, 100.0):
        across, up = half / unit + gap
        offsets += [(across, 0), (-across, 0), (0, up), (0, -up)]
        for part in (0.5, 1.0):
            offsets += [(across, part * up), (across, -part * up), (-across, part * up), (-across, -part * up)]
        offsets += [(across / 2, up), (across / 2, -up), (-across / 2, up), (-across / 2, -up)]
    middles = owner + np.array(offsets) * unit
    boxes = np.column_stack([middles - half, middles + half])
    away = _away(boxes, owner) / unit
    nearest = np.min([_away(boxes, other) / unit for other in others], axis=0, initial=np.inf)
    mistaken = nearest < away + 4
    led = mistaken | (away > _NEAR)
    ways = owner + (middles - owner)[:, None] * np.linspace(0, 1, 60)[:, None]
    shown = led[:, None] & ~_inside(ways, boxes[:, None])
    return _Fan(owner, np.array(offsets), boxes, away, others, mistaken, led, np.where(shown[..., None], ways, np.nan))


def _alone(fan: _Fan, *, taken: Floats, frame: Floats, unit: float) -> Floats:
    """What a text in each place covers of a figure without others, and how easily it is taken for another point's."""
    cover = _shared(fan.boxes[:, None], taken).sum(1)
    cover += 1e6 * ~_within(fan.boxes, frame)
    cover += _MISTAKEN * fan.mistaken
    for other in fan.others:
        cover += 9.0 * (np.hypot(*np.moveaxis(fan.ways - other, -1, 0)) < 4 * unit).any(1)
    return cover


def _between(fan: _Fan, other: _Fan, place: int) -> Floats:
    """What a text in each place covers of another one, and the lines to both of either."""
    wide = np.array([-1.0, -1.0, 1.0, 1.0])  # a pixel more: places on a line are some apart
    crossed = _inside(fan.ways, other.boxes[place] + wide).any(1).astype(float)
    crossed += _inside(other.ways[place], fan.boxes[:, None] + wide).any(1)
    return _shared(fan.boxes, other.boxes[place]) + _CROSSED * crossed


def _arranged(fans: Sequence[_Fan], alone: Sequence[Floats], first: Sequence[Floats]) -> list[int]:
    """The place of each text: those with the least of one of `first` are placed first, or any."""

    @cache  # other orders come to the same places
    def between(nth: int, other: int, place: int) -> Floats:
        return _between(fans[nth], fans[other], place)

    def covers(nth: int, places: Mapping[int, int]) -> Floats:
        others = [between(nth, other, place) for other, place in places.items() if other != nth]
        return np.sum([alone[nth], *others], axis=0)

    best, least, chance = dict[int, int](), np.inf, np.random.default_rng(0)
    orders = [np.argsort(key, kind="stable") for key in first]
    for order in [*orders, *(chance.permutation(len(fans)) for _ in range(_TRIES))]:
        places, moved = dict[int, int](), True
        for nth in order:
            places[nth] = int(np.argmin(covers(nth, places)))
        while moved:
            moved = False
            for nth in order:
                cover = covers(nth, places)
                if cover.min() < cover[places[nth]] - 1e-6:  # not by rounding, which would never end
                    places[nth], moved = int(np.argmin(cover)), True
        cost = sum(covers(nth, places)[places[nth]] + fans[nth].away[places[nth]] for nth in places)
        if cost < least:
            best, least = places, cost
    return [best[nth] for nth in range(len(fans))]


def _around(points: Floats, half: float) -> Floats:
    return np.concatenate([points - half, points + half], axis=-1)


def _shared(a: Floats, b: Floats) -> Floats:
    """Area that boxes share."""
    common = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    return np.prod(np.maximum(common, 0), axis=-1)


def _away(boxes: Floats, point: Floats) -> Floats:
    """How far boxes are from a point."""
    nearest = np.clip(point, boxes[..., :2], boxes[..., 2:])
    return np.hypot(*np.moveaxis(point - nearest, -1, 0))


def _inside(points: Floats, boxes: Floats) -> Any:
    return ((boxes[..., :2] <= points) & (points <= boxes[..., 2:])).all(-1)


def _within(inner: Floats, outer: Floats) -> Any:
    return ((outer[:2] <= inner[..., :2]) & (inner[..., 2:] <= outer[2:])).all(-1)
