"""What a budget buys: fewer images, cheaper attacks and shorter training in one map, and the best arm for each budget.

The cost of a run is the images that it visits times what each costs. Pruning saves by the first factor, as fewer epochs
do; a cheaper attack by the second. On logarithmic axes all that costs the same lies on a straight line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from advprune_core.analysis.cells import component_name, settings, with_accuracies
from advprune_core.analysis.comparisons import compare
from advprune_core.analysis.estimates import Estimate, accuracy
from advprune_core.analysis.labels import point_label, sample, setting
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.placing import label_lines
from advprune_core.analysis.seeds import as_a_constant, points, well_covered
from advprune_core.analysis.style import COLUMN, PAGE, canvas, caption, in_lines, legend, styled, tidy
from advprune_core.pruners.oracle import Oracle

#: What red, green and blue add to the brightness of a colour (ITU-R BT.709).
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
#: Shares of the most expensive run's cost that advice is given for.
BUDGETS = (0.1, 0.2, 0.4, 0.6, 1.0)
#: Marks of the map with their sizes: a control lies where the run is that it matches, larger and below it.
_MARKS = {"control": ("s", 150), "all the data": ("o", 20), "part of the data": ("^", 20)}
#: Why a tested arm is no rival.
_FEW, _CONSTANT = "has too few seeds to be compared", "is no more robust than a constant answer"
_OF_RUN = ("fraction", "control", "variant", "pruner")
_COSTS = (
    "arm",
    "matched_fraction",
    *_OF_RUN,
    "visits",
    "per_visit",
    "cost",
    "robust",
    "low",
    "high",
    "seeds",
    "learned",
)


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """What every tested arm costs, by its two factors, and what it reaches.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study.

    Returns
    -------
    DataFrame
        ``arm, matched_fraction, fraction, control, variant, pruner``; ``visits``: visited images for each training
        image (epochs times fraction), ``per_visit``: forward-equivalents of each, selection included, ``cost``: their
        product; ``robust, low, high`` in [0, 1] (mean over ``seeds``, Student's 95 % interval); ``learned``: whether
        that is more than what a constant answer reaches.
    """
    table, rows = with_accuracies(table), []
    for (arm, matched), runs in points(table[table["robust"].notna()]).items():
        robust, visits = accuracy(runs["robust"]), float((runs["images_visited"] / runs["n"]).mean())
        cost = float((runs["cost"] / runs["n"]).mean())
        first = runs.iloc[0]
        rows.append(
            {
                "arm": arm,
                "matched_fraction": matched,
                **{name: first[name] for name in _OF_RUN},
                "visits": visits,
                "per_visit": cost / visits,
                "cost": cost,
                "robust": robust.mean,
                "low": robust.low,
                "high": robust.high,
                "seeds": robust.seeds,
                "learned": not as_a_constant(runs),
            }
        )
    return pd.DataFrame(rows, columns=_COSTS)


def best_within(table: pd.DataFrame, budgets: Sequence[float] = BUDGETS) -> pd.DataFrame:
    """The arm of the highest mean robust accuracy that each budget pays for, and the best of the other kind.

    Nobody can choose by the true labels: the oracle is a bound, and no arm. Nor is what too few seeds were tested of,
    or what is as robust as a constant answer.

    Parameters
    ----------
    budgets : sequence of float
        Shares of the cost of the most expensive arm.

    Returns
    -------
    DataFrame
        A row of `costs` for each budget that pays for any arm, with ``budget``, and ``rival, rival_fraction``: where
        a pruned arm is the best, the best that trains on all the data; else the best pruned one (none: None, NaN);
        ``passed_over``: why none of those that were tested is it, empty where none was.
    """
    found, rows = costs(table), []
    found = found[found["pruner"].map(component_name) != Oracle.name]
    found = found[found["control"].isna() | (found["matched_fraction"] < 1)]  # of a full run it is that run
    for budget in budgets:
        paid = found[found["cost"] <= budget * found["cost"].max() * (1 + 1e-9)].sort_values("robust", ascending=False)
        learned = paid[paid["learned"].astype(bool)]
        known = learned[well_covered(learned["seeds"])]
        if not len(known):
            continue
        best = known.iloc[0]
        pruned = best["fraction"] < 1
        tested, able, others = (rows[(rows["fraction"] < 1) != pruned] for rows in (paid, learned, known))
        why = "" if len(others) or not len(tested) else _FEW if len(able) else _CONSTANT
        rival, share = (others.iloc[0]["arm"], others.iloc[0]["matched_fraction"]) if len(others) else (None, np.nan)
        beside = {"rival": rival, "rival_fraction": share, "passed_over": why}
        rows.append({"budget": budget, **best.to_dict(), **beside})
    return pd.DataFrame(rows, columns=["budget", *_COSTS, "rival", "rival_fraction", "passed_over"])


def budget_findings(table: pd.DataFrame, budgets: Sequence[float] = BUDGETS) -> str:
    """Markdown: "with this budget, use ...", and how far that is from the best of the other kind.

    Each data set and threat model for itself. There is no verdict: both are chosen by what would be tested.
    """
    texts = []
    for name, rows in settings(with_accuracies(with_names(table, escape))):
        lines = [f"- {text}" for text in _advice(best_within(rows, budgets), rows)]
        texts += [f"**{name}**"] * bool(name and lines) + ["\n".join(lines)] * bool(lines)
    if not texts:
        tested = with_accuracies(table)["robust"].notna().any()
        why = "No arm at this cost is more robust than a constant answer" if tested else "No arm was tested"
        return f"{why}, so there is nothing to advise."
    texts.append(
        "Each arm is the best of several on the very images that are compared, so what it reaches is a little too "
        "good, and no verdict is given. Intervals: 95 %, each for itself, over seeds; *other images*: by a bootstrap "
        "of seeds and test images."
    )
    return "\n\n".join(texts)


def _advice(best: pd.DataFrame, runs: pd.DataFrame) -> Iterator[str]:
    """A line for each choice, with all the budgets that it is the best for."""
    choice = ["arm", "matched_fraction", "rival", "rival_fraction"]
    for _, rows in best.groupby(choice, sort=False, dropna=False):
        *less, most = (f"{100 * budget:g}" for budget in rows["budget"])
        shares = f"{', '.join(less)} or {most}" if less else most
        yield f"With {shares} % of the most expensive run's cost: {_choice(rows.iloc[-1], runs)}"


def _choice(row: pd.Series, runs: pd.DataFrame) -> str:
    reached = Estimate(row["robust"], row["low"], row["high"], int(row["seeds"]))
    text = f"**{_named(row)}**, {reached.text()} % robust"
    if pd.isna(row["rival"]):
        other = "on all the data" if row["fraction"] < 1 else "pruned"
        none = f"nothing {other} was tested at this cost or less"
        if row["passed_over"]:
            none = f"what was tested {other} at this cost or less {row['passed_over']}"
        return f"{text} ({reached.counted()}); {none}."
    places = {"fraction": row["matched_fraction"], "reference_fraction": row["rival_fraction"]}
    difference = compare(runs, row["arm"], row["rival"], **places)
    kind = "the best on all the data" if row["fraction"] < 1 else "the best pruned one"
    other = point_label(row["rival"], row["rival_fraction"], [row["rival"]], whole=row["fraction"] < 1)
    return f"{text}; against {kind}, *{other}*: {difference.text()}."


def _named(row: pd.Series) -> str:
    return point_label(row["arm"], row["matched_fraction"], [row["arm"]], whole=row["fraction"] == 1)


@styled
def iso_cost_map(table: pd.DataFrame) -> Figure:
    """Images visited against the cost of each, coloured by robust accuracy; grey lines: all that costs the same.

    A panel for each data set and threat model.
    """
    table = with_names(with_accuracies(table), plain)
    found = [(name, costs(rows)) for name, rows in settings(table)]
    found = [(name, rows) for name, rows in found if len(rows)] or [("no arm was tested", costs(table))]
    columns = min(2, len(found))
    rows = math.ceil(len(found) / columns)
    width = COLUMN if columns == 1 else PAGE
    figure, axes = canvas(rows, columns, width=width, height=2.5 * rows + 0.9)
    for axis in axes.ravel()[len(found) :]:
        axis.set_visible(False)
    for axis, (name, arms) in zip(axes.ravel(), found, strict=False):
        axis.set_title(in_lines(name, 46))
        axis.set_xlabel("images visited / training images")
        axis.set_ylabel("cost of each image visited")
        if len(arms):
            _draw(axis, arms)
    shown = dict.fromkeys(kind for _, arms in found for kind in kinds(arms))
    hollow: dict[str, Any] = {"color": "0.2", "markerfacecolor": "none", "linestyle": ""}
    legend(figure, [Line2D([], [], marker=_MARKS[kind][0], label=kind, **hollow) for kind in _MARKS if kind in shown])
    caption(
        figure,
        setting(table),
        f"{sample(table)}; cost in forward-equivalents; grey: equal cost, of the most expensive run's",
    )
    for axis, (_, arms) in zip(axes.ravel(), found, strict=False):
        if len(arms):
            label_lines(figure, axis, _lines(axis, arms), arms[["visits", "per_visit"]].to_numpy(np.float64))
    return figure


def _lines(axis: Axes, found: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """The lines of equal cost within the axis, by the share of the most expensive run's cost, from their lower ends."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    x, lines = np.geomspace(right, left, 200), {}
    for budget in BUDGETS:
        y = budget * found["cost"].max() / x
        inside = (y > low) & (y < high)
        lines[f"{100 * budget:g} %"] = np.stack([x[inside], y[inside]], axis=1)
    return lines


def _draw(axis: Axes, found: pd.DataFrame) -> None:
    wide, high = ((0.8 * found[name].min(), 1.25 * found[name].max()) for name in ("visits", "per_visit"))
    axis.set(xscale="log", yscale="log", xlim=wide, ylim=high)
    for budget in BUDGETS:
        x = np.geomspace(*wide, 50)
        axis.plot(x, budget * found["cost"].max() / x, color="0.75", linewidth=0.8, zorder=0)
    colours = ScalarMappable(Normalize(100 * found["robust"].min(), 100 * found["robust"].max()), "viridis")
    found = found.sort_values("robust")  # of what lies at one place, the best is on top
    for kind, (marker, size) in _MARKS.items():
        own = found[kinds(found) == kind]
        if len(own):
            shades = colours.to_rgba(100 * own["robust"].to_numpy())
            # Of two marks at one place the one on top is seen by its edge, which stands out from either's colour.
            edges = np.where(shades[:, :3] @ _LUMINANCE < 0.4, "white", "0.2")
            look: dict[str, Any] = {"c": shades, "marker": marker, "edgecolors": edges, "linewidths": 0.8}
            axis.scatter(own["visits"], own["per_visit"], s=size, **look)
    bar = axis.figure.colorbar(colours, ax=axis, label="robust accuracy, %")
    tidy(bar.ax, grid=None)
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        scale.set_major_formatter("{x:g}")
        scale.set_minor_locator(NullLocator())
    tidy(axis, grid=None)


def kinds(found: pd.DataFrame) -> np.ndarray:
    """All the data, a part of it, or a shorter run on all of it for comparison."""
    return np.where(
        found["control"].notna(), "control", np.where(found["fraction"] < 1, "part of the data", "all the data")
    )
