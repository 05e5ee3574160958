"""Warnings of a collapse, from courses made up by hand."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.alignment import (
    NOT_MEASURED,
    alignment_figure,
    alignment_findings,
    early_warnings,
    warned_at,
)
from advprune_core.analysis.style import COLLAPSED_MARK

NAN = float("nan")
# (alignment at checks after 10, 20, ... steps, share, steps of the warning)
COURSES: list[tuple[list[float], float, float]] = [
    ([0.6, 0.8, 0.7, 0.3, 0.2, 0.1], 0.5, 50),  # known at the second low one
    ([0.6, 0.8, 0.3, 0.7, 0.3, 0.7], 0.5, NAN),  # never twice in a row
    ([0.2, 0.3, 0.4, 0.8, 0.5, 0.4], 0.5, NAN),  # a rise is none, half of the highest is none
    ([0.6, 0.8, 0.7, 0.7, 0.65, 0.6], 0.9, 40),
    ([0.8, 0.1], 0.5, NAN),
    ([0.8], 0.5, NAN),
    ([], 0.5, NAN),
    ([-0.04, -0.03, 0.3, 0.9], 0.5, NAN),  # it rises: below 0 nothing has fallen
    ([-0.1, -0.2, -0.2], 0.5, NAN),
    ([0.1, -0.2, -0.2], 0.5, 30),
]


@pytest.mark.parametrize(("values", "share", "expected"), COURSES)
def test_when_a_run_is_warned_of(values: list[float], share: float, expected: float) -> None:
    course = pd.DataFrame({"steps": 10.0 * np.arange(1, len(values) + 1), "pert_align": values})
    assert warned_at(course, share=share) == pytest.approx(expected, nan_ok=True)


def study(runs: dict[str, tuple[str, list[float], float]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Courses and lifetimes by key: arm, alignments after 10, 20, ... steps, and steps of the collapse."""
    courses = [
        {"key": key, "arm": arm, "fraction": 1.0, "seed": seed, "steps": 10.0 * (n + 1), "pert_align": value}
        for seed, (key, (arm, values, _)) in enumerate(runs.items())
        for n, value in enumerate(values)
    ]
    lives = [{"key": key, "arm": arm, "fraction": 1.0, "collapse_steps": end} for key, (arm, _, end) in runs.items()]
    return pd.DataFrame(courses), pd.DataFrame(lives)


FALLS, STAYS = [0.8, 0.8, 0.2, 0.2, 0.1, 0.1], [0.8] * 6
RUNS = {
    "a": ("FGSM: random", FALLS, 60.0),  # 20 steps before
    "b": ("FGSM: random", FALLS, 50.0),  # 10 before
    "c": ("FGSM: random", FALLS, 40.0),  # at the same check: no warning
    "d": ("FGSM: random", STAYS, 50.0),  # none at all
    "e": ("FGSM: random", STAYS, NAN),
    "f": ("FGSM: random", FALLS, NAN),  # a false alarm
    "g": ("N-FGSM: random", STAYS, NAN),
    "h": ("PGD-AT: random", [NAN] * 6, NAN),
    "i": ("FGSM: same_steps(random)", FALLS, NAN),  # a control: left aside
}


def test_warnings_come_before_the_sentinel_or_not_at_all() -> None:
    found = early_warnings(*study(RUNS)).set_index("arm")
    assert list(found.index) == ["FGSM: random", "N-FGSM: random"]
    numbers = ["runs", "collapsed", "warned", "lead", "false_alarms"]
    assert found.loc["FGSM: random", numbers].tolist() == [6, 4, 2, 15, 1]
    assert found.loc["N-FGSM: random", numbers].fillna(-1).tolist() == [1, 0, 0, -1, 0]


def test_findings() -> None:
    courses, lifetimes = study(RUNS)
    text = alignment_findings(courses, lifetimes)
    assert "warned of 2 of 4 collapses, 15 steps before the sentinel saw it (median)" in text
    assert "false alarm in 1 of 2 runs that did not collapse" in text
    assert "**N-FGSM: all the data**: false alarm in 0 of 1 runs" in text
    old = courses.assign(pert_align=NAN)
    assert alignment_findings(old, lifetimes) == NOT_MEASURED
    assert alignment_findings(courses.iloc[:0], lifetimes.iloc[:0]) == NOT_MEASURED


def test_the_figure_marks_collapses() -> None:
    figure = alignment_figure(*study(RUNS))
    try:
        crosses = [line for line in figure.axes[0].lines if line.get_marker() == COLLAPSED_MARK]
        marks = [line for line in crosses if len(line.get_xdata())]  # type: ignore[arg-type]
        assert [float(line.get_xdata()[0]) for line in marks] == [60, 50, 40, 50]  # type: ignore[index]
        assert len(figure.axes) == 2
        figure.canvas.draw()
    finally:
        plt.close(figure)
