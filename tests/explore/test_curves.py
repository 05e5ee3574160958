"""What the study explorer shows, against the table's own rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from advprune_core.explore.curves import arms_of, axes_of, choices, curve, curve_figure, metrics_of, threats_of
from advprune_core.explore.sources import Source
from tests.made_up import study_table, timing_table
from tests.reference import REFERENCE

POINTS = {
    ("random", 1.0): [(0.9, 0.7), (0.9, 0.8), (0.8, 0.9)],
    ("random", 0.5): [(0.8, 0.5), (0.7, 0.6), (0.6, 0.4)],
    ("same_cost(random)", 0.5): [(0.8, 0.6), (0.9, 0.6), (0.7, 0.6)],
}


def made_up(timings: pd.DataFrame) -> tuple[Source, pd.DataFrame]:
    source = Source(Path("nowhere"), "mine")
    source.__dict__["timings"] = timings
    return source, study_table(POINTS).assign(n=10)


def test_a_curve_has_means_and_students_intervals() -> None:
    source, table = made_up(pd.DataFrame())
    found = curve(source, table, axis="cost", metric="robust").set_index(["arm", "fraction"])
    assert list(found.index) == list(POINTS)
    for point, values in POINTS.items():
        robust, row = [value for _, value in values], found.loc[point]
        assert row["mean"] == pytest.approx(np.mean(robust))
        assert row["x"] == pytest.approx(100 * point[1]), "1000 passes of 10 images, of the run on all data"
        if np.ptp(robust):
            ends = stats.t.interval(0.95, 2, np.mean(robust), stats.sem(robust))
            assert (row["low"], row["high"]) == pytest.approx((ends[0], min(1.0, ends[1])))
        else:
            assert np.isnan(row["low"])
    clean = curve(source, table, axis="fraction", metric="clean")
    assert clean["x"].tolist() == [100, 50, 50]
    assert clean["mean"].tolist() == pytest.approx([2.6 / 3, 0.7, 0.8])


def test_seconds_are_those_of_runs_timed_alone() -> None:
    timings = timing_table([("random", 1.0, 8.0), ("random", 1.0, 9.0), ("random", 1.0, 30.0)])
    source, table = made_up(timings)
    assert axes_of(source) == ["fraction", "cost", "seconds"]
    found = curve(source, table, axis="seconds", metric="robust")["x"]
    assert found.iloc[0] == 9.0, "the median"
    assert found.isna().tolist() == [False, True, True], "what was not timed has no place"
    assert axes_of(made_up(pd.DataFrame())[0]) == ["fraction", "cost"]


def test_the_figure_draws_what_is_chosen() -> None:
    source, table = made_up(pd.DataFrame())
    figure = curve_figure(source, table, ["same_cost(random)"], axis="fraction", runs=True, chosen=("random", 0.5))
    (axis,) = figure.axes
    drawn = [line for line in axis.lines if line.get_marker() == "." and len(line.get_xdata())]
    assert sorted(np.concatenate([line.get_ydata() for line in drawn])) == pytest.approx([60, 60, 60])
    rings = [line for line in axis.lines if line.get_markersize() == 14 and len(line.get_xdata())]
    assert not rings, "the point that is chosen is of an arm that is not drawn"
    figure = curve_figure(source, table, ["random"], axis="fraction", chosen=("random", 0.5), intervals=False)
    (ring,) = [line for line in figure.axes[0].lines if line.get_markersize() == 14 and len(line.get_xdata())]
    assert (float(ring.get_xdata()[0]), float(ring.get_ydata()[0])) == pytest.approx((50, 50))
    assert "intervals" not in figure.axes[0].get_title()
    assert curve_figure(source, table, []).axes


@pytest.mark.parametrize(("costs", "narrow"), [((1000, 999), True), ((1000, 500), False), ((1000, 1000), True)])
def test_what_costs_nearly_the_same_is_drawn_so(costs: tuple[int, int], narrow: bool) -> None:
    """Numbers as they are, not beside an offset; on an axis of 10 %, not of the 0.1 % by which they differ."""
    source = Source(Path("nowhere"), "mine")
    of_points = {(arm, 1.0): {"train": cost} for arm, cost in zip("ab", costs, strict=True)}
    table = study_table({point: [(0.9, 0.7), (0.9, 0.8)] for point in of_points}, costs=of_points).assign(n=10)
    figure = curve_figure(source, table, ["a", "b"], axis="cost")
    (axis,) = figure.axes
    figure.canvas.draw()
    assert axis.xaxis.get_offset_text().get_text() == ""
    low, high = axis.get_xlim()
    middle = sum(costs) / 20
    assert [float(tick.get_text()) for tick in axis.get_xticklabels()] == pytest.approx(axis.get_xticks())
    if narrow:
        assert (low, high) == pytest.approx((0.95 * middle, 1.05 * middle))
    else:
        assert high - low == pytest.approx(50 * 1.1), "Matplotlib's own margins"


@pytest.mark.parametrize(("length", "columns"), [(10, 3), (45, 2), (90, 1)])
def test_a_legend_is_no_wider_than_its_figure(length: int, columns: int) -> None:
    source, _ = made_up(pd.DataFrame())
    table = study_table({(name * length, 1.0): [(0.9, 0.7)] for name in "abcdef"}).assign(n=10)
    figure = curve_figure(source, table, list(table["arm"]))
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    rows = {round(text.get_window_extent().y0) for text in legend.get_texts()}
    assert len(rows) == 6 / columns


def test_legends_of_committed_studies_fit() -> None:
    """The one that was worst: six arms with long names."""
    source = Source(REFERENCE / "cifar10_cpu_lr_pgd", "cifar10_cpu_lr_pgd")
    figure = curve_figure(source, source.table, list(arms_of(source.table).values())[:6])
    figure.canvas.draw()
    assert figure.legends[0].get_window_extent().width <= figure.bbox.width
    assert "; 1 seed," in figure.axes[0].get_title()


def test_names_of_what_there_is_to_choose() -> None:
    _, table = made_up(pd.DataFrame())
    assert metrics_of(table) == {
        "robust: right under every attack": "robust",
        "clean": "clean",
        "after pgd40": "robust_pgd40",
    }
    assert list(threats_of(table)) == ["digits, L-inf 2/16"]
    assert arms_of(table)["static random subset"] == "random"
    assert list(choices(table, ["random"]).values()) == [("random", 1.0), ("random", 0.5)]
    noisy = Source(REFERENCE / "when_pruning_wins", "when_pruning_wins").table
    threats = threats_of(noisy)
    assert len(threats) == 3, "across amounts of noise nothing is comparable"
    assert sum(map(len, threats.values())) == len(noisy)
