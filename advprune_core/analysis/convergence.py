"""What it costs to get near the robustness of a full run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from advprune_core.analysis.estimates import SAME, Signs, holm, p_told, sign_test
from advprune_core.analysis.labels import arm_label, point_label, setting
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.plots import panels
from advprune_core.analysis.seeds import Point, points
from advprune_core.analysis.style import caption, styled
from advprune_core.trainers.controls import control_arm, matched_arm

#: Why a seed has nothing to get near to.
_NO_BAR = "that was not checked, collapsed, or ended no more robust than a constant answer"
#: The checks of each run, by point and seed.
Runs = dict[Point, dict[Any, pd.DataFrame]]


def reached_at(run: pd.DataFrame, *, share: float = 0.95, looks: NDArray[np.float64] | None = None) -> float:
    """At which part of the full run's cost the checks of a run first reach a share of that one's last; infinite: never.

    Parameters
    ----------
    run : DataFrame
        Of `study.courses.collect_courses`, the checks of one run in their order.
    share : float
    looks : ndarray of float, optional
        Parts of the full run's cost: only then its latest check is looked at.
    """
    cost = (run["cost"] / run["full_cost"]).to_numpy()
    near = (run["val_pgd"] >= share * run["full_val_pgd"]).to_numpy()
    if looks is not None:
        latest = np.searchsorted(cost, looks + SAME, side="right") - 1
        cost, near = looks, near[latest] & (latest >= 0)
    return float(cost[near][0]) if near.any() else np.inf


def by_seed(courses: pd.DataFrame) -> Runs:
    """The runs of each point that have a full run to be compared with."""
    known = courses[courses["full_val_pgd"].notna()]
    return {point: dict(list(runs.groupby("seed"))) for point, runs in points(known, by="fraction").items()}


def sooner(runs: Runs, point: Point, other: Point, *, share: float = 0.95) -> Signs | None:
    """Whether the runs of a point get there sooner, *lower*, than those of another one of their seed, or later.

    Both are looked at as seldom as the one with fewer checks: who is looked at more often is over the bar sooner,
    and more often by chance. Runs that never get there are later than those that do, and no two of them differ.

    Parameters
    ----------
    runs : mapping of Point to mapping of seed to DataFrame
        From `by_seed`.
    point, other : Point
    share : float
        See `reached_at`.

    Returns
    -------
    Signs or None
        None without a seed of both.
    """
    others = runs.get(other, {})
    pairs = [(run, others[seed]) for seed, run in runs.get(point, {}).items() if seed in others]
    costs = []
    for pair in pairs:
        seldom = max(pair, key=lambda run: float((run["cost"] / run["full_cost"]).iloc[-1]) / len(run))
        looks = (seldom["cost"] / seldom["full_cost"]).to_numpy()
        costs.append([reached_at(run, share=share, looks=looks) for run in pair])
    return sign_test(*zip(*costs, strict=True)) if costs else None


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
    rows = []
    for (arm, fraction), runs in by_seed(courses).items():
        costs = np.array([reached_at(run, share=share) for run in runs.values()])
        there = int(np.isfinite(costs).sum())
        row = {"arm": arm, "fraction": fraction, "seeds": len(costs), "reached": there, "cost": np.median(costs)}
        rows.append(row)
    return pd.DataFrame(rows, columns=["arm", "fraction", "seeds", "reached", "cost"])


def convergence_findings(courses: pd.DataFrame, *, share: float = 0.95) -> str:
    """Markdown: at which part of the full run's cost each arm gets there, or that it does not.

    Seeds without a full run to get near to are counted. Every pruned point is compared with its run of equal cost on
    all the data, where there is one, by a sign test over seeds; all tests of the text together (Holm).
    """
    courses, lines = with_names(courses, escape), []
    rivals = {point: (control_arm("same_cost", point[0]), point[1]) for point in points(courses, by="fraction")}
    runs = by_seed(courses)
    beside = {point: sooner(runs, point, rival, share=share) for point, rival in rivals.items()}
    tests = {point: test for point, test in beside.items() if test is not None}
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    planned = {point: rows["seed"].nunique() for point, rows in points(courses, by="fraction").items()}
    for _, row in cost_to_reach(courses, share=share).iterrows():
        when = (
            f"at {100 * row['cost']:.0f} % of the full run's cost (median)"
            if np.isfinite(row["cost"])
            else "not in most runs"
        )
        text = f"{when}; {row['reached']} of {row['seeds']} runs get there"
        point = (row["arm"], row["fraction"])
        if lost := planned[point] - row["seeds"]:
            text += f" ({lost} seed{'s' * (lost > 1)} without a bar)"
        if point in tests:
            test, rival = tests[point], arm_label(rivals[point][0].rpartition(": ")[2])
            text += f"; beside *{rival}*: sooner in {test.lower} of {test.pairs} seeds, later in {test.higher}"
            text += f" {p_told(corrected[point])}"
        lines.append(f"- **{point_label(*point, whole=True)}**: {text}.")
    if lines and len(runs) < len(planned):
        barred = dict.fromkeys(f"**{point_label(*point, whole=True)}**" for point in planned if point not in runs)
        lines.append(f"- Without a bar in any seed: {'; '.join(barred)}.")
    head = f"{100 * share:g} % of the full run's last held-out robust accuracy (PGD-10 on val_stop):"
    tail = (
        "A check rises late, when the learning rate falls, and it falls over each run's own length: what is shorter, "
        "by fewer images or by fewer epochs, is sooner at its end. Whether pruning is the better way to be short, only "
        "the comparison at equal cost can tell (sign test over seeds, both looked at equally often; who never gets "
        "there is later). Each way of training has a bar of its own, set by its own full run"
    )
    tail += f": none where {_NO_BAR}." if courses["full_val_pgd"].isna().any() else "."
    if not lines:
        return _nothing_beside(courses)
    return "\n".join([head, "", *lines, "", tail])


def _nothing_beside(courses: pd.DataFrame) -> str:
    """Why no run can be held against a full one."""
    if not len(courses):
        return 'No run has checks: set `settings = {"best_every": 1}`.'
    if courses["full_cost"].isna().all():
        return "No run has a full run beside it: add 1.0 to `fractions`."
    return f"There is nothing to get near to: where a run has a full one beside it, {_NO_BAR}."


@styled
def convergence_figure(courses: pd.DataFrame) -> Figure:
    """Held-out robust accuracy against cost, in that of the full run: a panel for each arm, means and single runs.

    Controls, hollow, stand in the panel of the arm that they match. Marks stand where a line ends.
    """
    courses = with_names(courses, plain)
    found = points(courses, by="fraction")
    figure, axes, lines = panels(found, xlabel="cost so far / full run's", ylabel="held-out robust accuracy, %")
    for (arm, fraction), rows in found.items():
        axis, drawn = axes[arm], lines[arm, fraction]
        rows = rows.assign(share=rows["cost"] / rows["full_cost"])
        if matched_arm(arm) == arm:
            for _, run in rows.groupby("seed"):
                axis.plot(run["share"], 100 * run["val_pgd"], color=drawn["color"], alpha=0.15, linewidth=0.6)
        mean = rows.groupby("epoch")[["share", "val_pgd"]].mean()
        axis.plot(mean["share"], 100 * mean["val_pgd"], **drawn)
    seeds = courses["seed"].nunique()
    caption(figure, setting(courses), f"PGD-10 on val_stop, mean of {seeds} seeds; thin: single runs")
    return figure
