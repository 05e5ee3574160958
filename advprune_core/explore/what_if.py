"""What a budget buys: the best arm on a study's measured front, and how long it would take on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from advprune_core.analysis.budgets import best_within, budget_findings, costs, kinds
from advprune_core.analysis.markup import plain
from advprune_core.analysis.plots import point_label
from advprune_core.analysis.style import BLUE, GREEN, ORANGE
from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.explore.pictures import blank
from advprune_core.explore.sources import Source
from advprune_core.study.plans import duration, measured_pace

#: Seconds that may be spent on timing a few steps of training.
TIMING = 2.0


@dataclass(frozen=True)
class MachineTime:
    """Seconds that a run takes one worker of this machine, in all likelihood between these."""

    low: float
    high: float

    def text(self) -> str:
        """``One run takes between 20 and 30 seconds on one core of this machine.``"""
        return f"One run takes between {duration(self.low)} and {duration(self.high)} on one core of this machine."


def least_budget(table: pd.DataFrame) -> float:
    """The cheapest arm's cost, as a share of the most expensive one's."""
    found = costs(table)["cost"]
    return float(found.min() / found.max())


def advice(table: pd.DataFrame, budget: float) -> str:
    """Markdown: the best arm for a share of the most expensive arm's cost, and how it stands to the other kind."""
    return budget_findings(table, (budget,))


def machine_time(source: Source, table: pd.DataFrame, budget: float) -> MachineTime:
    """How long a run of the best arm takes here, by a few steps of training on this machine.

    Raises
    ------
    ConfigError
        No arm costs so little, or what does has learned nothing.
    DataError
        Data that are not here and cannot be downloaded.
    """
    found = best_within(table, (budget,))
    if not len(found):
        raise ConfigError(
            f"no arm that has learned anything costs as little as {100 * budget:g} % of the most expensive one's"
        )
    best = found.iloc[0]
    rows = table[(table["arm"] == best["arm"]) & (table["matched_fraction"] == best["matched_fraction"])]
    record = source.store.run(rows["key"].iloc[0])
    assert record is not None
    config = record.run_config
    pace = measured_pace(config.replace(device="cpu"), load_dataset(config.dataset), seconds=TIMING)
    passes = float(rows["cost"].mean())
    return MachineTime(passes * pace.low, passes * pace.high)


def front_figure(table: pd.DataFrame, budget: float) -> Figure:
    """Robust accuracy of every arm against its cost; the line is the best that each cost pays for."""
    found = costs(table).sort_values("cost")
    share, reached = 100 * found["cost"] / found["cost"].max(), 100 * found["robust"]
    spread = 100 * np.nan_to_num(np.array([found["robust"] - found["low"], found["high"] - found["robust"]]))
    figure = blank(width=9, height=3.8)
    axis = figure.subplots()
    kind = kinds(found)
    looks = {
        "all the data": ("all the data", "o", BLUE),
        "control": ("a shorter run on all the data", "s", GREEN),
        "part of the data": ("a part of the data", "^", ORANGE),
    }
    for name, (label, marker, colour) in looks.items():
        rows = kind == name
        if rows.any():
            bars = spread[:, rows]
            axis.errorbar(
                share[rows], reached[rows], bars, color=colour, marker=marker, linestyle="", capsize=2, label=label
            )
    axis.step(share, reached.cummax(), where="post", color="0.5", linewidth=1, zorder=0)
    axis.axvline(100 * budget, color="0.2", linestyle=":")
    best = best_within(table, (budget,))
    if len(best):
        row = best.iloc[0]
        place = (100 * row["cost"] / found["cost"].max(), 100 * row["robust"])
        axis.plot(*place, "o", ms=15, markerfacecolor="none", color="0.2")
        name = point_label(row["arm"], row["matched_fraction"], [row["arm"]], whole=row["fraction"] == 1)
        axis.set_title(f"best within {100 * budget:.0f} %: {plain(name)}", fontsize=10)
    axis.set_xlabel("cost, % of the most expensive arm's (forward-equivalents of training and selection)")
    axis.set_ylabel("robust accuracy, %")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
