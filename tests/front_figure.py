"""README's figure: what pruned runs gain or lose against runs of equal cost on all the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill

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
    key,
    legend,
    reach,
    styled,
    tidy,
)
from advprune_core.analysis.verdicts import (
    BETTER,
    BETTER_ALONE,
    BETTER_HERE,
    UNDECIDED,
    WORSE,
    WORSE_ALONE,
    WORSE_HERE,
)
from tests.committed import Row

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
_CLEAN = Look("clean accuracy: no verdict", BLACK, "D")


@styled
def gains(rows: Sequence[Row]) -> Figure:
    """Robust accuracy, marked by its verdict, and clean accuracy of each row, from the top down."""
    figure, ((robust, clean),) = canvas(1, 2, height=0.42 * len(rows) + 0.8, sharex=True, sharey=True)
    for place, row in enumerate(rows):
        _interval(robust, row.case.comparison.difference, place, _LOOKS[row.verdict.says])
        _interval(clean, row.case.clean, place, _CLEAN)
    for axis, what in ((robust, "robust"), (clean, "clean")):
        axis.axvline(0, color="0.3", linewidth=0.9, zorder=0)
        axis.set_xlabel(f"{what} accuracy, points")
        tidy(axis, grid="x")
    robust.set_yticks(range(len(rows)), [_name(row) for row in rows])
    robust.set_ylim(len(rows) - 0.4, -0.6)
    caption(
        figure,
        "What pruning gains (right) or loses against all the data at the same cost, or at less where that is said",
        "bars: 95 % intervals, each for itself; verdicts on robust accuracy: at 5 % over all rows with right labels, "
        "and over all with wrong ones (Holm)",
    )
    said = {row.verdict.says for row in rows}
    looks = [look for verdict, look in _LOOKS.items() if verdict in said]
    legend(figure, [key(look, linestyle="") for look in [*looks, _CLEAN]])
    return figure


def _interval(axis: Axes, found: Estimate, place: int, look: Look) -> None:
    arms = reach(found.mean, found.low, found.high)
    axis.errorbar(100 * found.mean, place, xerr=arms, color=look.colour, marker=look.mark)


def _name(row: Row) -> str:
    seeds = row.case.comparison.difference.seeds
    kept = f"{re.split(':|,? [(]', row.case.kept)[0]} ({seeds} seeds)"
    return fill(f"{row.case.data}: {kept}".replace(" %", "\xa0%").replace(" seeds", "\xa0seeds"), 44)
