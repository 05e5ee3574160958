"""What it costs to get near the robustness of a full run."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from advprune_core.analysis.labels import point_label, setting
from advprune_core.analysis.markup import plain, with_names
from advprune_core.analysis.plots import panels
from advprune_core.analysis.style import caption, styled
from advprune_core.analysis.summaries import points


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
    known = courses[courses["full_val_pgd"].notna()]
    rows = []
    for (arm, fraction), runs in points(known, by="fraction").items():
        costs = []
        for _, run in runs.groupby("seed"):
            there = run[run["val_pgd"] >= share * run["full_val_pgd"]]
            costs.append(float((there["cost"] / there["full_cost"]).min()) if len(there) else np.inf)
        rows.append(
            {
                "arm": arm,
                "fraction": fraction,
                "seeds": len(costs),
                "reached": int(np.isfinite(costs).sum()),
                "cost": float(np.median(costs)),
            }
        )
    return pd.DataFrame(rows, columns=["arm", "fraction", "seeds", "reached", "cost"])


def convergence_findings(courses: pd.DataFrame, *, share: float = 0.95) -> str:
    """Markdown: at which part of the full run's cost each arm gets there, or that it does not."""
    lines = []
    for _, row in cost_to_reach(courses, share=share).iterrows():
        when = (
            f"at {100 * row['cost']:.0f} % of the full run's cost (median)"
            if np.isfinite(row["cost"])
            else "not in half of the runs"
        )
        runs = f"{row['reached']} of {row['seeds']} runs get there"
        lines.append(f"- **{point_label(row['arm'], row['fraction'], whole=True)}**: {when}; {runs}.")
    head = f"{100 * share:g} % of the full run's last held-out robust accuracy (PGD-10 on val_stop):"
    tail = (
        "A check rises late, when the learning rate falls, and it falls over each run's own length: what is shorter, "
        "by fewer images or by fewer epochs, is sooner at its end. Whether pruning is the better way to be short, only "
        "the comparison at equal cost can tell. Each way of training has a bar of its own, set by its own full run."
    )
    return "\n".join([head, "", *lines, "", tail]) if lines else "No run has checks: set best_every."


@styled
def convergence_figure(courses: pd.DataFrame) -> Figure:
    """Held-out robust accuracy against cost, in that of the full run: a panel for each arm, means and single runs."""
    courses = with_names(courses, plain)
    found = points(courses, by="fraction")
    figure, axes, shares = panels(found, xlabel="cost so far / full run's", ylabel="held-out robust accuracy, %")
    for (arm, fraction), rows in found.items():
        look, axis = shares[fraction], axes[arm]
        rows = rows.assign(share=rows["cost"] / rows["full_cost"])
        for _, run in rows.groupby("seed"):
            axis.plot(run["share"], 100 * run["val_pgd"], color=look.colour, alpha=0.15, linewidth=0.6)
        mean = rows.groupby("epoch")[["share", "val_pgd"]].mean()
        drawn = {"color": look.colour, "linestyle": look.line, "marker": look.mark, "markersize": 2.5}
        axis.plot(mean["share"], 100 * mean["val_pgd"], label=look.family, **drawn)
    seeds = courses["seed"].nunique()
    caption(figure, setting(courses), f"PGD-10 on val_stop, mean of {seeds} seeds; thin: single runs")
    return figure
