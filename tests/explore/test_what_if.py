"""What a budget buys, and what it takes here."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from advprune_core.base.settings import AdvpruneError
from advprune_core.explore.sources import Source
from advprune_core.explore.what_if import advice, front_figure, least_budget, machine_time
from advprune_core.study.runner import run_study
from tests.made_up import study_table
from tests.tiny import tiny_study

POINTS = {
    ("random", 1.0): [(0.9, 0.7), (0.9, 0.8), (0.8, 0.9)],
    ("random", 0.5): [(0.8, 0.5), (0.7, 0.6), (0.6, 0.4)],
    ("random", 0.2): [(0.8, 0.2), (0.7, 0.3), (0.6, 0.4)],
    ("same_cost(random)", 0.5): [(0.8, 0.6), (0.9, 0.6), (0.7, 0.7)],
}


def table() -> pd.DataFrame:
    return study_table(POINTS).assign(n=10, images_visited=100, variant="", pruner="random")


def test_the_best_arm_is_the_one_that_the_budget_pays_for() -> None:
    rows = table()
    assert least_budget(rows) == pytest.approx(0.2)
    for budget, says in ((0.3, "static random subset, 20 %"), (0.6, "full data, same cost"), (1.0, "all the data")):
        assert f"**{says}" in advice(rows, budget)
        assert says in front_figure(rows, budget).axes[0].get_title()


def test_the_ring_is_on_the_best_arm_and_the_line_never_falls() -> None:
    (axis,) = front_figure(table(), 0.6).axes
    (ring,) = [line for line in axis.lines if line.get_markersize() == 15]
    assert (float(ring.get_xdata()[0]), float(ring.get_ydata()[0])) == pytest.approx((50, 100 * 1.9 / 3))
    (front,) = [line for line in axis.lines if line.get_drawstyle() == "steps-post"]
    heights = list(front.get_ydata())
    assert heights == sorted(heights)
    assert not [line for line in front_figure(table(), 0.1).axes[0].lines if line.get_markersize() == 15]


def test_time_on_this_machine_is_that_of_the_runs_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advprune_core.explore import what_if
    from advprune_core.study.plans import Pace

    run_study(tiny_study(tmp_path, fractions=[1.0], controls=[], epochs=4, eps=0.01), progress=False)
    source, asked = Source(tmp_path, "tiny"), []
    pace = Pace(2e-3, 3e-3, 2)
    monkeypatch.setattr(what_if, "measured_pace", lambda config, data, seconds: asked.append(config) or pace)
    found = machine_time(source, source.table, 1.0)
    passes = source.table["cost"].mean()
    assert (found.low, found.high) == pytest.approx((2e-3 * passes, 3e-3 * passes))
    assert asked[0].fraction == 1.0
    assert "on one core of this machine" in found.text()
    with pytest.raises(AdvpruneError, match="no arm"):
        machine_time(source, source.table, 0.01)
