"""README's figure: what pruned runs gain or lose against runs of equal cost on all the data."""

from __future__ import annotations

import re
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from advprune_core.analysis.estimates import Estimate
from advprune_core.analysis.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    Look,
    canvas,
    caption,
    in_lines,
    key,
    legend,
    middles,
    reach,
    styled,
    tidy,
)
from advprune_core.analysis.verdicts import BETTER, BETTER_ALONE, BETTER_HERE, UNDECIDED, WORSE, WORSE_ALONE, WORSE_HERE
from tests.committed import Row, asks

#: The robust accuracy's, by its verdict.
_LOOKS = {
    verdict: Look(verdict, *look)
    for verdict, look in {
        BETTER: (BLUE, "^"),
        BETTER_HERE: (SKY, "^"),
        BETTER_ALONE: (GREY, "^"),
        UNDECIDED: (GREY, "o"),
        WORSE_ALONE: (GREY, "v"),
        WORSE_HERE: (ORANGE, "v"),
        WORSE: (VERMILLION, "v"),
    }.items()
}
#: Height of the head of a group of rows, in that of a row.
_HEAD = 0.6
_CLEAN = Look("clean accuracy: no verdict", BLACK, "D")


@styled
def gains(rows: Mapping[str, Row]) -> Figure:
    """Robust accuracy, marked by its verdict, and clean accuracy of each row, from the top down, by question."""
    groups = {name: [row for key, row in rows.items() if asks(key) == name] for name in map(asks, rows)}
    lines: list[str | Row] = [line for name, own in groups.items() for line in (name, *own)]
    spaces = [_HEAD if isinstance(line, str) else 1.0 for line in lines]
    places = middles(spaces)
    figure, ((robust, clean),) = canvas(1, 2, height=0.42 * sum(spaces) + 0.8, sharex=True, sharey=True)
    for place, row in zip(places, lines, strict=True):
        if isinstance(row, str):
            continue
        _interval(robust, row.case.comparison.over_images, place, _LOOKS[row.verdict.says])
        _interval(clean, row.case.clean, place, _CLEAN)
    for axis, what in ((robust, "robust"), (clean, "clean")):
        axis.axvline(0, color="0.3", linewidth=0.9, zorder=0)
        axis.set_xlabel(f"{what} accuracy, points")
        tidy(axis, grid="x")
    robust.set_yticks(places, [line if isinstance(line, str) else _name(line) for line in lines])
    for tick, line in zip(robust.yaxis.get_major_ticks(), lines, strict=True):
        tick.label1.set_fontweight("bold" if isinstance(line, str) else "normal")
    robust.set_ylim(sum(spaces), 0)
    caption(
        figure,
        "What pruning gains (right) or loses against all the data at the same cost, or at less where that is said",
        "bars: 95 % intervals, each for itself, over seeds, of robust accuracy over test images too; verdicts on it: "
        "at 5 % over all rows with right labels, and over all with wrong ones (Holm)",
    )
    said = {row.verdict.says for row in rows.values()}
    looks = [look for verdict, look in _LOOKS.items() if verdict in said]
    legend(figure, [key(look, linestyle="") for look in [*looks, _CLEAN]])
    return figure


def _interval(axis: Axes, found: Estimate, place: int, look: Look) -> None:
    arms = reach(found.mean, found.low, found.high)
    axis.errorbar(100 * found.mean, place, xerr=arms, color=look.colour, marker=look.mark)


def _name(row: Row) -> str:
    seeds = row.case.comparison.difference.seeds
    kept = f"{re.split(':|,? [(]', row.case.kept)[0]} ({seeds} seeds)"
    return in_lines(f"{row.case.data}: {kept}", 44)
