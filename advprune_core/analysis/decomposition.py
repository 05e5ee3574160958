"""What pruning loses, taken apart: fewer steps, less data, other steps, and which images are kept.

Each part is the difference of two arms that differ in that alone. From the run on all the data: the control of equal
cost takes away *steps*, the random subset takes away *data*, the control of equal step length gives the *optimiser* the
steps of a weighted selection, and the rule in place of chance is *selection*. The parts add up to the whole loss.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from advprune_core.analysis.cells import settings, with_accuracies
from advprune_core.analysis.estimates import estimate
from advprune_core.analysis.labels import point_label, sample, setting
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.rivals import is_random
from advprune_core.analysis.seeds import Point, by_seed, points
from advprune_core.analysis.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    Look,
    canvas,
    caption,
    in_lines,
    key,
    legend,
    reach,
    styled,
    tidy,
)
from advprune_core.analysis.ways import SAME_COST, ways
from advprune_core.trainers.controls import control_arm

#: Width of a bar in points.
BAR = 4.0
_LOOKS = {"steps": (BLUE, "o"), "data": (ORANGE, "s"), "optimiser": (GREEN, "D"), "selection": (PURPLE, "^")}
#: What a legend calls the parts.
_TOLD = {"steps": "fewer steps", "data": "less data", "optimiser": "another step length", "selection": "which images"}


def decomposition(table: pd.DataFrame) -> pd.DataFrame:
    """The parts of what each pruned arm loses against its own way of training on all the data.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study.

    Returns
    -------
    DataFrame
        ``variant, arm, fraction, part``; ``before, after``: mean robust accuracies in [0, 1]; ``change, low,
        high``: their difference, paired over the ``seeds`` that all the arms of one decomposition have, with
        Student's 95 % interval. Parts whose arm in between was not run are one: ``"steps and data"``; an arm with
        nothing in between is left out.
    """
    rows = []
    for variant, own in ways(with_accuracies(table)):
        found = points(own[own["robust"].notna()])
        for arm, fraction in found:
            if fraction < 1 and found[arm, fraction]["control"].isna().all() and (arm, 1.0) in found:
                parts = _parts(found, (arm, fraction))
                if len(parts) > 1:
                    rows += [{"variant": variant, "arm": arm, "fraction": fraction, **part} for part in parts]
    names = ["variant", "arm", "fraction", "part", "before", "after", "change", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=names)


def _parts(found: dict[Point, pd.DataFrame], pruned: Point) -> list[dict[str, object]]:
    stations = _stations(found, pruned)
    robust = {place: by_seed(found[point])["robust"] for place, (_, point) in enumerate(stations)}
    seeds = pd.DataFrame(robust).dropna()
    if not len(seeds):
        return []
    rows = []
    for place, (part, _) in enumerate(stations[1:], 1):
        change = estimate((seeds[place] - seeds[place - 1]).to_numpy(np.float64), bounds=(-1.0, 1.0))
        ends = {"before": seeds[place - 1].mean(), "after": seeds[place].mean()}
        spread = {"change": change.mean, "low": change.low, "high": change.high, "seeds": change.seeds}
        rows.append({"part": part, **ends, **spread})
    return rows


def _stations(found: dict[Point, pd.DataFrame], pruned: Point) -> list[tuple[str, Point]]:
    """The arms on the way from all the data to a pruned one, each with what was changed to get there."""
    arm, fraction = pruned
    chance = pruned if is_random(found[pruned]) else _chance(found, pruned)
    shorter = [(control_arm("same_cost", name), fraction) for name in dict.fromkeys((arm, (chance or pruned)[0]))]
    places: list[tuple[str, Point | None]] = [
        ("steps", next((point for point in shorter if point in found), None)),
        ("data", chance),
    ]
    if chance != pruned:
        if (other := (f"same_step_size({arm})", fraction)) in found:
            places.append(("optimiser", other))
        places.append(("selection", pruned))
    stations, open_parts = [("", (arm, 1.0))], list[str]()
    for part, point in places:
        open_parts.append(part)
        if point is not None:
            stations.append((" and ".join(open_parts), point))
            open_parts = []
    return stations


def _chance(found: dict[Point, pd.DataFrame], pruned: Point) -> Point | None:
    """The random subset of the same size, for the same cost."""
    cost = found[pruned]["cost"].mean()
    for point, rows in found.items():
        close = abs(rows["cost"].mean() - cost) <= SAME_COST * cost
        if point[1] == pruned[1] and is_random(rows) and close:
            return point
    return None


def decomposition_findings(table: pd.DataFrame) -> str:
    """Markdown: what each pruned arm loses, part by part."""
    parts = decomposition(with_names(table, escape))
    lines = []
    for rows in _by_arm(parts):
        told = ", ".join(f"{row['part']} {_points(row)}" for _, row in rows.iterrows())
        whole = 100 * (rows["after"].iloc[-1] - rows["before"].iloc[0])
        lines.append(f"- **{_name(rows)}**: {whole:+.1f} points robust against all the data: {told} ({_seeds(rows)}).")
    if not lines:
        return (
            "Nothing to take apart: no pruned arm was tested beside its own run on all the data and something between "
            "the two, such as the control same_cost."
        )
    return "\n".join(lines) + "\n\nEach part is paired by seed, with its own 95 % interval; their sum is the whole."


def _by_arm(parts: pd.DataFrame) -> list[pd.DataFrame]:
    return [rows for _, rows in parts.groupby(["variant", "arm", "fraction"], sort=False)]


def _name(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    label = point_label(first["arm"], first["fraction"])
    return f"{first['variant']}: {label}" if first["variant"] else label


def _points(row: pd.Series) -> str:
    interval = "" if np.isnan(row["low"]) else f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return f"{100 * row['change']:+.1f}{interval}"


def _seeds(rows: pd.DataFrame) -> str:
    count = int(rows["seeds"].iloc[0])
    return f"{count} seed{'s' * (count != 1)}"


@styled
def decomposition_figure(table: pd.DataFrame) -> Figure:
    """From the robust accuracy on all the data to that of each pruned arm, part by part, with 95 % t intervals.

    A panel for each data set and threat model; what loses least is at the top.
    """
    table = with_names(with_accuracies(table), plain)
    found = [(name, _ranked(decomposition(rows))) for name, rows in settings(table)]
    tall = [0.55 + 0.36 * max(1, len(groups)) for _, groups in found]
    figure, axes = canvas(len(found), height=sum(tall) + 0.9, height_ratios=tall)
    for axis, (name, groups) in zip(axes[:, 0], found, strict=True):
        for place, rows in enumerate(groups):
            _waterfall(axis, rows, place)
        axis.set_yticks(range(len(groups)), [in_lines(_name(rows), 48) for rows in groups])
        axis.set_ylim(max(1, len(groups)) - 0.5, -0.5)
        axis.set_title(name)
        tidy(axis)
    axes[-1, 0].set_xlabel("robust accuracy, %")
    named = dict.fromkeys(str(part) for _, groups in found for rows in groups for part in rows["part"])
    keys = [key(_look(part), _told(part), linewidth=3, linestyle="-") for part in named]
    legend(figure, [Line2D([], [], color=GREY, linewidth=1.5, label="all the data"), *keys])
    how = f"{sample(table)}; each bar: what one part takes away or gives back, 95 % t interval"
    caption(figure, setting(table), how)
    return figure


def _ranked(parts: pd.DataFrame) -> list[pd.DataFrame]:
    """The parts of each arm, those of the highest robust accuracy first."""
    return sorted(_by_arm(parts), key=lambda rows: -float(rows["after"].iloc[-1]))


def _look(part: str) -> Look:
    """One for each of the parts, and of what is not taken apart for the last of them."""
    colour, mark = _LOOKS[part.rpartition(" and ")[2]]
    return Look(part, colour, mark)


def _told(part: str) -> str:
    """``fewer steps and less data`` of those that are not taken apart."""
    return " and ".join(_TOLD[name] for name in part.split(" and "))


def _waterfall(axis: Axes, rows: pd.DataFrame, place: int) -> None:
    """The parts of one arm below each other, from the run on all the data."""
    axis.plot(2 * [100 * rows["before"].iloc[0]], [place - 0.4, place + 0.4], color=GREY, linewidth=1.5)
    for step, (_, row) in enumerate(rows.iterrows()):
        height, look = place - 0.36 + 0.72 * (step + 0.5) / len(rows), _look(row["part"])
        ends = [100 * row["before"], 100 * row["after"]]
        axis.plot(ends, 2 * [height], color=look.colour, linewidth=BAR, alpha=0.4, solid_capstyle="butt")
        spread = reach(row["change"], row["low"], row["high"])
        axis.errorbar(100 * row["after"], height, xerr=spread, color=look.colour, marker=look.mark)
