"""What pruning loses, taken apart: fewer steps, less data, other steps, and which images are kept.

Each part is the difference of two arms that differ in that alone. From the run on all the data: the control of equal
cost takes away *steps*, the random subset takes away *data*, the control of equal step length gives the *optimiser* the
steps of a weighted selection, and the rule in place of chance is *selection*. The parts add up to the whole loss.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from advprune_core.analysis.estimates import estimate
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.plots import point_label
from advprune_core.analysis.rivals import SAME_COST, is_random
from advprune_core.analysis.summaries import Point, points, ways, with_accuracies


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
        Student's 95 % interval. Parts whose arm in between was not run are one: ``"steps and data"``.
    """
    rows = []
    for variant, own in ways(with_accuracies(table)):
        found = points(own[own["robust"].notna()])
        for arm, fraction in found:
            if fraction < 1 and found[arm, fraction]["control"].isna().all() and (arm, 1.0) in found:
                parts = _parts(found, (arm, fraction))
                rows += [{"variant": variant, "arm": arm, "fraction": fraction, **part} for part in parts]
    names = ["variant", "arm", "fraction", "part", "before", "after", "change", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=names)


def _parts(found: dict[Point, pd.DataFrame], pruned: Point) -> list[dict[str, object]]:
    stations = _stations(found, pruned)
    seeds = pd.DataFrame(
        {place: found[point].drop_duplicates("seed").set_index("seed")["robust"] for place, (_, point) in
         enumerate(stations)}
    ).dropna()  # fmt: skip
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
    shorter = [(f"same_cost({name})", fraction) for name in dict.fromkeys((arm, (chance or pruned)[0]))]
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
        return "Nothing to take apart: no pruned arm was tested beside its own run on all the data."
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


def decomposition_figure(table: pd.DataFrame) -> Figure:
    """From the robust accuracy on all the data to that of each pruned arm, part by part, with 95 % t intervals."""
    table = with_names(table, plain)
    parts = decomposition(table)
    groups = _by_arm(parts)
    figure, axis = plt.subplots(figsize=(9, 1.4 + 0.75 * max(1, len(groups))), layout="constrained")
    kinds = list(dict.fromkeys(parts["part"]))
    styles = {kind: (f"C{number}", marker) for number, (kind, marker) in enumerate(zip(kinds, "osD^vP*", strict=False))}
    for place, rows in enumerate(groups):
        axis.plot(2 * [100 * rows["before"].iloc[0]], [place - 0.4, place + 0.4], color="0.4", linewidth=2)
        for step, (_, row) in enumerate(rows.iterrows()):
            height = place - 0.3 + 0.6 * (step + 0.5) / len(rows)
            colour, marker = styles[row["part"]]
            ends = [100 * row["before"], 100 * row["after"]]
            axis.plot(ends, 2 * [height], color=colour, linewidth=5, alpha=0.5, solid_capstyle="butt")
            reach = np.nan_to_num([row["change"] - row["low"], row["high"] - row["change"]])
            axis.errorbar(
                100 * row["after"], height, xerr=100 * reach[:, None], color=colour, marker=marker, ms=5, capsize=3
            )
    axis.set_yticks(range(len(groups)), [_name(rows) for rows in groups], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("robust accuracy, %")
    axis.set_title("grey: all the data; each bar: what one part takes away or gives back, 95 % t interval", fontsize=9)
    axis.grid(alpha=0.3, axis="x")
    handles = [Line2D([], [], color=c, marker=m, linewidth=4, alpha=0.8, label=kind) for kind, (c, m) in styles.items()]
    if handles:
        axis.legend(handles=handles, frameon=False, fontsize=8, loc="best")
    return figure
