"""What it costs to get near the robustness of a full run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from advprune_core.analysis.estimates import holm, sign_test
from advprune_core.analysis.labels import arm_label, control_arm, matched_arm, point_label, setting
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.plots import panels
from advprune_core.analysis.style import GREY, caption, styled
from advprune_core.analysis.summaries import Point, points

#: How controls are drawn.
_HOLLOW: dict[str, Any] = {"markerfacecolor": "w", "linewidth": 0.8}


def costs_to_reach(courses: pd.DataFrame, *, share: float = 0.95) -> dict[Point, pd.Series]:
    """The same as `cost_to_reach` of each run: its cost, infinite if it never gets there, by point and seed."""
    found = {}
    for point, runs in points(courses[courses["full_val_pgd"].notna()], by="fraction").items():
        there = runs[runs["val_pgd"] >= share * runs["full_val_pgd"]]
        first = (there["cost"] / there["full_cost"]).groupby(there["seed"]).min()
        found[point] = first.reindex(runs["seed"].unique(), fill_value=np.inf)
    return found


def compared(costs: dict[Point, pd.Series], point: Point, other: Point) -> tuple[int, int, float] | None:
    """In how many seeds a point is sooner than another, in how many later, and the p value; None without both.

    Runs that never get there are later than those that do, and no two of them differ.
    """
    if point not in costs or other not in costs:
        return None
    first, second = costs[point].align(costs[other], join="inner")
    return sign_test(first.to_numpy(), second.to_numpy()) if len(first) else None


def cost_to_reach(courses: pd.DataFrame, *, share: float = 0.95) -> pd.DataFrame:
    """How much of the full run's cost each run needs until its checks reach a share of the full run's last one.

    Parameters
    ----------
    courses : DataFrame
        From `study.courses.collect_courses`.
    share : float
        Of the full run's robust accuracy on val_stop at its end.

    Returns
    -------
    DataFrame
        ``arm, fraction, seeds, reached`` (runs that got there), ``cost`` (median over all seeds, in that of
        the full run; infinite where half of them or more never got there).
    """
    rows = [
        {
            "arm": arm,
            "fraction": fraction,
            "seeds": len(costs),
            "reached": int(np.isfinite(costs).sum()),
            "cost": float(np.median(costs)),
        }
        for (arm, fraction), costs in costs_to_reach(courses, share=share).items()
    ]
    return pd.DataFrame(rows, columns=["arm", "fraction", "seeds", "reached", "cost"])


def convergence_findings(courses: pd.DataFrame, *, share: float = 0.95) -> str:
    """Markdown: at which part of the full run's cost each arm gets there, or that it does not.

    Every pruned point is compared with its run of equal cost on all the data, where there is one, by a sign test
    over seeds; all tests of the text together (Holm).
    """
    courses, lines = with_names(courses, escape), []
    costs = costs_to_reach(courses, share=share)
    rivals = {point: (control_arm("same_cost", point[0]), point[1]) for point in costs}
    tests = {point: test for point, rival in rivals.items() if (test := compared(costs, point, rival)) is not None}
    corrected = dict(zip(tests, holm([p for *_, p in tests.values()]), strict=True))
    for _, row in cost_to_reach(courses, share=share).iterrows():
        when = (
            f"at {100 * row['cost']:.0f} % of the full run's cost (median)"
            if np.isfinite(row["cost"])
            else "not in half of the runs"
        )
        text = f"{when}; {row['reached']} of {row['seeds']} runs get there"
        if (point := (row["arm"], row["fraction"])) in tests:
            sooner, later, _ = tests[point]
            rival = arm_label(rivals[point][0].rpartition(": ")[2])
            text += f"; beside *{rival}*: sooner in {sooner} of {row['seeds']} seeds, later in {later}"
            text += f" (Holm p = {corrected[point]:.3f})"
        lines.append(f"- **{point_label(*point, whole=True)}**: {text}.")
    head = f"{100 * share:g} % of the full run's last held-out robust accuracy (PGD-10 on val_stop):"
    tail = (
        "A check rises late, when the learning rate falls, and it falls over each run's own length: what is shorter, "
        "by fewer images or by fewer epochs, is sooner at its end. Whether pruning is the better way to be short, only "
        "the comparison at equal cost can tell (sign test over seeds; who never gets there is later). Each way of "
        "training has a bar of its own, set by its own full run."
    )
    return "\n".join([head, "", *lines, "", tail]) if lines else "No run has checks: set best_every."


@styled
def convergence_figure(courses: pd.DataFrame) -> Figure:
    """Held-out robust accuracy against cost, in that of the full run: a panel for each arm, means and single runs.

    Controls, hollow, stand in the panel of the arm that they match. Marks stand where a line ends.
    """
    courses = with_names(courses, plain)
    found = points(courses, by="fraction")
    own = [point for point in found if matched_arm(point[0]) == point[0]]
    controls = dict.fromkeys(arm_label(arm.rpartition(": ")[2]) for arm, _ in found if matched_arm(arm) != arm)
    figure, axes, shares = panels(
        own,
        xlabel="cost so far / full run's",
        ylabel="held-out robust accuracy, %",
        keys=[Line2D([], [], color=GREY, marker="o", label=name, **_HOLLOW) for name in controls],
    )
    for (arm, fraction), rows in found.items():
        look, axis = shares[fraction], axes[matched_arm(arm)]
        rows = rows.assign(share=rows["cost"] / rows["full_cost"])
        drawn: dict[str, Any] = {"color": look.colour, "linestyle": look.line, "marker": look.mark, "markevery": [-1]}
        if (arm, fraction) not in own:
            drawn |= _HOLLOW
        else:
            for _, run in rows.groupby("seed"):
                axis.plot(run["share"], 100 * run["val_pgd"], color=look.colour, alpha=0.15, linewidth=0.6)
        mean = rows.groupby("epoch")[["share", "val_pgd"]].mean()
        axis.plot(mean["share"], 100 * mean["val_pgd"], label=look.family, **drawn)
    seeds = courses["seed"].nunique()
    caption(figure, setting(courses), f"PGD-10 on val_stop, mean of {seeds} seeds; thin: single runs")
    return figure
