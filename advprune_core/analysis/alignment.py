"""Whether the alignment of a single step's gradients warns of a collapse before the sentinel sees it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from advprune_core.analysis.labels import point_label, setting
from advprune_core.analysis.markup import escape, plain, with_names
from advprune_core.analysis.plots import panels
from advprune_core.analysis.seeds import points
from advprune_core.analysis.style import BLACK, COLLAPSED_MARK, GREY, caption, styled
from advprune_core.trainers.controls import matched_arm

NOT_MEASURED = (
    "No run has the alignment of its attack's gradients: it is measured where a training attack takes a single step, "
    "at the checks of `best_every`, in records of this version and later."
)


def measured(courses: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of courses that have an alignment, controls aside."""
    return courses[courses["pert_align"].notna() & (courses["arm"].map(matched_arm) == courses["arm"])]


def warned_at(course: pd.DataFrame, *, share: float = 0.5) -> float:
    """Optimiser steps at which a run's alignment had fallen; NaN: never.

    Fallen is below a share of its highest so far, if that was above 0, at two checks in a row, because it is measured
    on one batch.

    Parameters
    ----------
    course : DataFrame
        The checks of one run, in order, with ``steps`` and ``pert_align``.
    share : float
    """
    values, steps = (course[name].to_numpy(np.float64) for name in ("pert_align", "steps"))
    highest = np.maximum.accumulate(values) if len(values) else values
    low = (highest > 0) & (values < share * highest)
    twice = np.flatnonzero(low[1:] & low[:-1])
    return float(steps[twice[0] + 1]) if len(twice) else float("nan")


def early_warnings(courses: pd.DataFrame, lifetimes: pd.DataFrame, *, share: float = 0.5) -> pd.DataFrame:
    """How many collapses the alignment warned of, and how often it was wrong.

    Parameters
    ----------
    courses, lifetimes : DataFrame
        From `study.courses`.
    share : float
        See `warned_at`.

    Returns
    -------
    DataFrame
        ``arm, fraction, runs`` (measured), ``collapsed``; of these ``warned`` (before the check at which the sentinel
        saw it) and ``lead`` (by how many steps, median; NaN without any); ``false_alarms`` among the other runs.
    """
    ends = lifetimes.set_index("key")["collapse_steps"]
    ends = ends[~ends.index.duplicated()]
    rows = []
    for (arm, fraction), checks in points(measured(courses), by="fraction").items():
        found = [(warned_at(run, share=share), float(ends[key])) for key, run in checks.groupby("key")]
        leads = [end - alarm for alarm, end in found if alarm < end]
        rows.append(
            {
                "arm": arm,
                "fraction": fraction,
                "runs": len(found),
                "collapsed": sum(np.isfinite(end) for _, end in found),
                "warned": len(leads),
                "lead": float(np.median(leads)) if leads else float("nan"),
                "false_alarms": sum(np.isfinite(alarm) and np.isnan(end) for alarm, end in found),
            }
        )
    return pd.DataFrame(rows, columns=["arm", "fraction", "runs", "collapsed", "warned", "lead", "false_alarms"])


def alignment_findings(courses: pd.DataFrame, lifetimes: pd.DataFrame, *, share: float = 0.5) -> str:
    """Markdown: how many collapses were warned of, by how many steps, and the false alarms."""
    lines = []
    for _, row in early_warnings(with_names(courses, escape), lifetimes, share=share).iterrows():
        fine = row["runs"] - row["collapsed"]
        parts = []
        if row["collapsed"]:
            lead = f", {row['lead']:,.0f} steps before the sentinel saw it (median)" if row["warned"] else ""
            parts.append(f"warned of {row['warned']} of {row['collapsed']} collapses{lead}")
        if fine:
            parts.append(f"false alarm in {row['false_alarms']} of {fine} runs that did not collapse")
        lines.append(f"- **{point_label(row['arm'], row['fraction'], whole=True)}**: {'; '.join(parts)}.")
    head = f"A warning: alignment below {100 * share:g} % of its highest so far, at two checks in a row."
    return "\n".join([head, "", *lines]) if lines else NOT_MEASURED


@styled
def alignment_figure(courses: pd.DataFrame, lifetimes: pd.DataFrame) -> Figure:
    """Alignment against optimiser steps: a panel for each arm, a line for each run, a cross where it collapsed."""
    ends = lifetimes.drop_duplicates("key").set_index("key")["collapse_steps"]
    courses = with_names(measured(courses), plain)
    found = points(courses, by="fraction")
    figure, axes, lines = panels(found, xlabel="optimiser steps", ylabel="alignment of the step's gradients")
    for (arm, fraction), rows in found.items():
        drawn, axis = lines[arm, fraction], axes[arm]
        for key, run in rows.groupby("key"):
            line = {"color": drawn["color"], "linestyle": drawn["linestyle"], "linewidth": 0.5, "alpha": 0.5}
            axis.plot(run["steps"], run["pert_align"], **line)
            at = run[run["steps"] >= ends[key]].head(1)
            face = {"markerfacecolor": drawn["color"], "markeredgecolor": BLACK, "markeredgewidth": 0.5}
            axis.plot(at["steps"], at["pert_align"], COLLAPSED_MARK, **face, zorder=3)
    for axis in axes.values():
        axis.axhline(0, color=GREY, linewidth=0.8)
    seeds = courses["seed"].nunique() if len(courses) else 0
    caption(figure, setting(courses), f"a line for each run of {seeds} seeds; cross: collapsed")
    return figure
