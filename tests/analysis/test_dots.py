"""A row for each arm at each share of the data: every mean, interval and run is read back from the figure."""

from __future__ import annotations

import re
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from scipy import stats

from advprune_core.analysis.dots import MANY, accuracy_dots
from advprune_core.analysis.plots import accuracy_vs_fraction
from tests.made_up import study_table

#: (clean, robust) of two or three seeds; the control is that of the random half.
POINTS: dict[tuple[str, float], list[tuple[float, float]]] = {
    ("random", 1.0): [(0.95, 0.75), (0.97, 0.71), (0.96, 0.77)],
    ("random", 0.5): [(0.90, 0.66), (0.92, 0.61), (0.89, 0.70)],
    ("keep_hard", 0.5): [(0.50, 0.20), (0.52, 0.22), (0.47, 0.21)],
    ("same_cost(random)", 0.5): [(0.93, 0.70), (0.94, 0.72), (0.95, 0.71)],
    ("random", 0.2): [(0.80, 0.40), (0.80, 0.40), (0.80, 0.40)],
    ("keep_hard", 0.2): [(0.30, 0.45), (0.31, 0.47), (0.35, 0.46)],
}
#: What stands at the rows, from the top: the most robust first.
ROWS: list[tuple[str, tuple[str, float] | None]] = [
    ("all the data", None),
    ("all the data (1.00)", ("random", 1.0)),
    ("50 % of the data", None),
    ("full data, same cost: fewer epochs (0.50)", ("same_cost(random)", 0.5)),
    ("static random subset (0.50)", ("random", 0.5)),
    ("keep_hard (0.50)", ("keep_hard", 0.5)),
    ("20 % of the data", None),
    ("keep_hard (0.20)", ("keep_hard", 0.2)),
    ("static random subset (0.20)", ("random", 0.2)),
]


def means(axis: Axes) -> dict[float, tuple[float, list[float]]]:
    """Mean and interval by the place of their row."""
    found = {}
    for bar in axis.containers:
        assert isinstance(bar, ErrorbarContainer)
        line, _, (whiskers,) = bar.lines
        assert line is not None
        (x,), (y,) = (np.asarray(values) for values in (line.get_xdata(), line.get_ydata()))
        found[float(y)] = (float(x), sorted(whiskers.get_segments()[0][:, 0].tolist()))
    return found


def test_every_row_is_its_points() -> None:
    figure = accuracy_dots(study_table(POINTS))
    axes = figure.axes
    places = axes[0].get_yticks()
    labels = [tick.get_text() for tick in axes[0].get_yticklabels()]
    assert labels == [name for name, _ in ROWS]
    assert list(places) == sorted(places)
    assert axes[0].get_ylim()[0] > axes[0].get_ylim()[1], "from the top"
    for axis, value in zip(axes, (0, 1), strict=True):
        drawn = means(axis)
        singles = {float(line.get_ydata()[0]): line for line in axis.lines if line.get_marker() == "."}
        for place, (_, point) in zip(places, ROWS, strict=True):
            assert (point is None) == (place not in drawn) == (place not in singles)
            if point is None:
                continue
            runs = 100 * np.array(POINTS[point])[:, value]
            mean, interval = drawn[place]
            assert mean == pytest.approx(runs.mean())
            assert singles[place].get_xdata() == pytest.approx(runs)
            low, high = (
                stats.t.interval(0.95, 2, loc=runs.mean(), scale=stats.sem(runs)) if np.ptp(runs) else (mean, mean)
            )
            assert interval == pytest.approx([low, high])
    assert "3 seeds" in figure.get_suptitle()
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {
        "all the data",
        "random subset",
        "control",
        "one score of a network",
    }
    plt.close(figure)


def many() -> pd.DataFrame:
    more: dict[Any, Any] = {(f"score kept={n}", 0.5): [(0.5, 0.3), (0.6, 0.4)] for n in range(MANY)}
    return study_table({**POINTS, **more})


def test_many_arms_have_rows_and_few_have_lines() -> None:
    few, rows = accuracy_vs_fraction(study_table(POINTS)), accuracy_vs_fraction(many())
    assert "data kept" in few.axes[0].get_xlabel()
    assert "accuracy" in rows.axes[0].get_xlabel()
    assert len(rows.axes[0].get_yticks()) == len(ROWS) + MANY
    plt.close("all")


def test_what_was_not_tested_has_a_row_without_a_point() -> None:
    table = many()
    lost = (table["arm"] == "keep_hard") & (table["matched_fraction"] == 0.2)
    table.loc[lost, ["clean", "robust"]] = np.nan
    figure = accuracy_dots(table)
    assert "keep_hard (0.20)" in [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert re.search(r"3 runs without a result left out", figure.get_suptitle())
    assert len(means(figure.axes[1])) == len(ROWS) + MANY - 3 - 1
    plt.close(figure)
