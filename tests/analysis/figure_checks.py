"""What is wrong with a figure as it will be printed: sizes, texts, clipping, series that look alike."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from advprune_core.analysis.style import COLUMN, PAGE

#: Points, as printed.
SMALLEST, LARGEST = 7.0, 10.0
#: CIELAB distance below which two colours pass for one; 2.3 is the least that is seen side by side.
ALIKE = 15.0
#: Machado, Oliveira and Fernandes (2009), table 1: deuteranomaly of severity 1, on linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
#: IEC 61966-2-1: linear sRGB to XYZ, D65.
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def as_deuteranopes_see(colour: Any) -> np.ndarray:
    """L*, a*, b* of a colour as someone without M cones sees it."""
    encoded = np.array(to_rgb(colour))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    relative = _XYZ @ np.clip(DEUTERANOPIA @ linear, 0, 1) / _XYZ.sum(1)
    f = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def faults(figure: Figure) -> list[str]:
    """Everything that is wrong, in words; nothing of a figure that can be printed."""
    figure.canvas.draw()
    width = figure.get_figwidth()
    found = [] if any(abs(width - named) < 1e-6 for named in (COLUMN, PAGE)) else [f"{width} inches wide"]
    found += list(_texts(figure))
    for axis in figure.axes:
        if axis.get_visible():
            found += list(_clipped(axis)) + list(_crossed(axis))
            found += list(_alike([line for line in axis.lines if not _thin(line)], "drawn"))
    for legend in [*figure.legends, *(axis.get_legend() for axis in figure.axes)]:
        if legend is not None:
            found += list(_alike([line for line in legend.legend_handles if isinstance(line, Line2D)], "in a legend"))
    return found


def texts(figure: Figure) -> list[Text]:
    """The texts that are to be seen."""
    hidden = {label for axis in figure.axes for label in _out_of_view(axis)}
    shown = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    off = {child for axis in figure.axes if not (axis.get_visible() and axis.axison) for child in axis.findobj(Text)}
    return [text for text in shown if text not in hidden and text not in off]


def _out_of_view(axis: Axes) -> Iterator[Text]:
    for scale in (axis.xaxis, axis.yaxis):
        low, high = sorted(scale.get_view_interval())
        for tick in [*scale.get_major_ticks(), *scale.get_minor_ticks()]:
            if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                yield from (tick.label1, tick.label2)


def _texts(figure: Figure) -> Iterator[str]:
    boxes = []
    for text in texts(figure):
        name, size = repr(text.get_text()), text.get_fontsize()
        if not SMALLEST <= size <= LARGEST:
            yield f"{name} has {size:g} points"
        box = Text.get_window_extent(text)  # of an annotation without its line
        inside = figure.bbox.padded(1)
        if not (inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1):
            yield f"{name} is cut off at the edge"
        boxes.append((name, box))
    for (one, a), (other, b) in combinations(boxes, 2):
        common = Bbox.intersection(a, b)
        if common is not None and min(common.width, common.height) > 1:
            yield f"{one} and {other} cover each other"


def _crossed(axis: Axes) -> Iterator[str]:
    """Thin lines from points to their texts that lead through another text."""
    boxes = {text: Text.get_window_extent(text) for text in axis.texts}
    for text, box in boxes.items():
        if isinstance(text, Annotation) and text.arrow_patch is not None:
            start = axis.transData.transform(text.xy)
            end = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
            way = [start + (end - start) * part for part in np.linspace(0, 1, 60)]
            for other, taken in boxes.items():
                if other is not text and any(taken.contains(*place) for place in way if not box.contains(*place)):
                    yield f"the line to {text.get_text()!r} leads through {other.get_text()!r}"


def _clipped(axis: Axes) -> Iterator[str]:
    """Marks and intervals that the frame of an axis cuts."""
    unit = axis.figure.dpi / 72
    frame = axis.get_window_extent().padded(0.5 * unit)
    places = []
    for line in axis.lines:
        if line.get_marker() not in ("None", None, ""):
            data = np.column_stack([np.ma.filled(np.ma.asarray(part, float), np.nan) for part in line.get_data()])
            places.append((line.get_transform().transform(data), line.get_markersize() / 2))
    for collection in axis.collections:
        if isinstance(collection, LineCollection):
            data = np.concatenate([np.reshape(part, (-1, 2)) for part in [*collection.get_segments(), []]])
            places.append((collection.get_transform().transform(data), 0.0))
        elif isinstance(collection, PathCollection):
            offsets = collection.get_offset_transform().transform(collection.get_offsets())
            places.append((np.asarray(offsets), float(np.sqrt(np.max(collection.get_sizes())) / 2)))
    for points, half in places:
        points = points[np.isfinite(points).all(1)] if len(points) else points
        for x, y in points:
            reach = half * unit
            if not (
                frame.x0 <= x - reach and x + reach <= frame.x1 and frame.y0 <= y - reach and y + reach <= frame.y1
            ):
                yield f"a mark or an interval leaves the panel {axis.get_title()!r}"
                return


def _thin(line: Line2D) -> bool:
    """Single runs, guides and what joins marks: they are not told apart."""
    return (line.get_alpha() or 1) < 0.5 or line.get_marker() in ("None", None, "", ".", "|", "_")


def _look(line: Line2D) -> tuple[Any, ...]:
    """What tells lines apart beside the colour: mark, whether it is filled, line."""
    face, colour = to_rgba(line.get_markerfacecolor()), to_rgba(line.get_color())
    fill = round(face[3] * (1 if face[:3] == colour[:3] else 0.5 + 0.01 * sum(face[:3])), 3)
    style = line.get_linestyle()
    dashes = line._unscaled_dash_pattern[1] if style not in ("None", "none", "") else None
    return str(line.get_marker()), fill, None if dashes is None else tuple(dashes), style in ("None", "none", "")


def _alike(lines: list[Line2D], where: str) -> Iterator[str]:
    """Pairs that only a colour tells apart that a deuteranope does not see."""
    looks: dict[tuple[Any, ...], dict[tuple[float, ...], str]] = {}
    for line in lines:
        colour = to_rgb(line.get_markeredgecolor() if line.get_linestyle() == "None" else line.get_color())
        looks.setdefault(_look(line), {})[colour] = str(line.get_label())
    for same in looks.values():
        for (one, name), (other, another) in combinations(same.items(), 2):
            apart = np.linalg.norm(as_deuteranopes_see(one) - as_deuteranopes_see(other))
            if apart < ALIKE:
                yield f"{where}, {name!r} and {another!r} look alike ({apart:.0f})"
