"""Figures, read back from their artists, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.made_up import study_table, timing_table, trainers_table

mpl.use("agg")

import matplotlib.pyplot as plt
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D

from advprune_core.analysis.plots import accuracy_vs_fraction, arm_label, robust_vs_cost, runtime
from advprune_core.analysis.summaries import speed_ups
from advprune_core.trainers.controls import CONTROLS

POINTS = {
    ("random", 1.0): [(0.95, 0.75), (0.97, 0.71), (0.96, 0.77)],
    ("same_cost(random)", 1.0): [(0.95, 0.75), (0.97, 0.71), (0.96, 0.77)],
    ("random", 0.4): [(0.90, 0.60), (0.92, 0.66), (0.85, 0.62)],
    ("same_cost(random)", 0.4): [(0.91, 0.68), (0.93, 0.69), (0.92, 0.61)],
}


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def errorbars(axis: Any) -> dict[str, ErrorbarContainer]:
    """Lines with intervals, by label."""
    return {c.get_label(): c for c in axis.containers if isinstance(c, ErrorbarContainer)}


def dots(axis: Any) -> list[Line2D]:
    return [line for line in axis.lines if line.get_marker() == "." and line.get_linestyle() in ("None", "none")]


def labelled(axis: Any, part: str) -> Line2D:
    (line,) = [line for line in axis.lines if part in str(line.get_label())]
    return line


@pytest.mark.parametrize("arm", ["random", "same_cost(random)"])
@pytest.mark.parametrize(("place", "value"), [(0, 0), (1, 1)])
def test_means_intervals_and_single_runs(arm: str, place: int, value: int) -> None:
    axis = accuracy_vs_fraction(study_table(POINTS)).axes[place]
    bar = errorbars(axis)[arm_label(arm)]
    line, _, (whiskers,) = bar.lines
    assert (line.get_linestyle() == "--") == (arm != "random"), "controls, and only they, are dashed"
    for x, y, whisker in zip(line.get_xdata(), line.get_ydata(), whiskers.get_segments(), strict=True):
        fraction = min((0.4, 1.0), key=lambda f: abs(f - x))
        assert abs(x - fraction) < 0.02
        runs = 100 * np.array(POINTS[arm, fraction])[:, value]
        low, high = stats.t.interval(0.95, len(runs) - 1, loc=runs.mean(), scale=stats.sem(runs))
        assert y == pytest.approx(runs.mean())
        assert sorted(whisker[:, 1]) == pytest.approx([low, high])
    single = [line for line in dots(axis) if line.get_color() == bar.lines[0].get_color()]
    shown = sorted(y for line in single for y in line.get_ydata())
    expected = sorted(100 * run[value] for f in (0.4, 1.0) for run in POINTS[arm, f])
    assert shown == pytest.approx(expected)


def test_intervals_end_at_all_or_nothing_and_need_spread() -> None:
    """Two seeds at .95 and .99 would reach 122 %; two that agree say nothing of a third."""
    points = {("random", 1.0): [(0.95, 0.01), (0.99, 0.03)], ("random", 0.4): [(0.9, 0.6), (0.9, 0.6)]}
    for axis in accuracy_vs_fraction(study_table(points)).axes:
        _, _, (whiskers,) = errorbars(axis)["static random subset"].lines
        none, wide = (sorted(segment[:, 1]) for segment in whiskers.get_segments())
        assert none[0] == none[1]
        assert 0 <= wide[0] < wide[1] <= 100
        assert wide[0] == 0 or wide[1] == 100


def test_runs_that_are_in_no_mean_are_counted() -> None:
    table = study_table(POINTS)
    lost = (table["matched_fraction"] == 0.4) & (table["seed"] == 2)
    table.loc[lost, ["status", "clean", "robust"]] = ["diverged", np.nan, np.nan]
    assert "mean of 3 seeds (2 runs without a result left out)" in accuracy_vs_fraction(table).get_suptitle()
    ways = trainers_table(WAYS)
    ways.loc[(ways["variant"] == "carried") & (ways["seed"] == 1), ["status", "robust"]] = ["diverged", np.nan]
    assert "mean of 2 seeds (1 run without a result left out)" in robust_vs_cost(ways).get_suptitle()
    assert "left out" not in robust_vs_cost(trainers_table(WAYS)).get_suptitle()


def test_arms_differ_in_colour_and_axes_say_what_they_are() -> None:
    figure = accuracy_vs_fraction(study_table(POINTS))
    clean, robust = figure.axes
    colours = {bar.lines[0].get_color() for bar in errorbars(robust).values()}
    assert len(colours) == 2
    assert {text.get_text() for text in robust.figure.legends[0].get_texts()} == set(errorbars(robust))
    assert "clean" in clean.get_title()
    assert "L-inf 2/16" in robust.get_title()
    assert "pgd40" in robust.get_title()

    assert "low" not in robust.get_title()
    assert "%" in clean.get_ylabel()
    assert "%" in clean.get_xlabel()
    assert [tick.get_text() for tick in robust.get_xticklabels()] == ["40", "100"]
    assert "3 seeds" in figure.get_suptitle()


@pytest.mark.parametrize("letters", [1, 16, 18, 20, 22, 24, 26, 28, 60])
def test_titles_fit_whatever_the_attacks_are_called(letters: int) -> None:
    figure = accuracy_vs_fraction(study_table(POINTS).assign(**{f"robust_{'e' * letters}": 0.5}))
    figure.canvas.draw()
    title = figure.axes[1].title.get_window_extent()
    assert figure.bbox.x0 <= title.x0 < title.x1 <= figure.bbox.x1


def test_labels_of_arms() -> None:
    for control, text in CONTROLS.items():
        assert arm_label(f"{control}(random)") == text
        several = arm_label(f"{control}(random)", ["random", f"{control}(random)", f"{control}(redraw)"])
        assert text in several
        assert "random" in several
    assert arm_label("my_pruner lam=0.5") == "my_pruner lam=0.5"


@pytest.mark.parametrize(
    "points",
    [
        {("random", 1.0): [(0.9, 0.7)], ("random", 0.5): [(0.8, 0.6)]},
        {("random", 0.5): [(0.9, 0.7), (0.8, 0.6)]},
        {("random", 1.0): [(0.9, 0.7)]},
        {(arm, f): [(0.9, 0.7), (0.8, 0.6)] for arm in ("random", "redraw", "own lam=1") for f in (1.0, 0.5, 0.25)},
        {("random", 1.0): [(0.9, 0.7), (0.9, 0.7)], ("random", 0.5): [(float("nan"), float("nan")), (0.8, 0.6)]},
        {("random", 1.0): [(0.9, 0.7)], ("redraw", 0.5): [(float("nan"), float("nan"))]},
    ],
    ids=[
        "one seed",
        "one fraction, no full run",
        "only full",
        "several pruners",
        "a run without test",
        "an arm without",
    ],
)
@pytest.mark.parametrize("timed", [False, True])
def test_any_study_can_be_drawn(points: Any, timed: bool) -> None:
    table = study_table(points)
    rows = [(arm, fraction, 2 * fraction) for arm, fraction in points] if timed else []
    figures = [accuracy_vs_fraction(table), runtime(table, timing_table(rows) if timed else pd.DataFrame())]
    for figure in figures:
        figure.canvas.draw()
    bars = errorbars(figures[0].axes[1])
    first = next(iter(points))
    runs = [robust for _, robust in points[first]]
    assert float(np.mean(runs)) * 100 in [pytest.approx(y) for y in bars[arm_label(first[0])].lines[0].get_ydata()]
    titles = " ".join(axis.get_title() for axis in figures[1].axes)
    assert ("processor seconds" in titles) == timed


COSTS = {
    ("scored", 1.0): {"train": 2000, "select": 0, "validate": 0},
    ("scored", 0.5): {"train": 1000, "select": 300, "validate": 50},
    ("random", 0.5): {"train": 1000},
    ("random", 1.0): {"train": 2000},
    ("same_cost(random)", 0.5): {"train": 77777},
}


def cost_table(*arms: str) -> pd.DataFrame:
    points = {(arm, f): [(0.9, 0.7), (0.9, 0.6)] for arm in arms for f in (1.0, 0.5) if (arm, f) in COSTS}
    return study_table(points, costs=COSTS)


@pytest.mark.parametrize("arms", [("scored",), ("random", "scored"), ("scored", "random", "same_cost(random)")])
def test_bars_by_phase_sum_to_the_cost(arms: tuple[str, ...]) -> None:
    axis = runtime(cost_table(*arms), pd.DataFrame()).axes[0]
    stacks: dict[float, float] = {}
    for patch in axis.patches:
        centre = round(patch.get_x() + patch.get_width() / 2, 6)
        assert patch.get_y() == pytest.approx(stacks.get(centre, 0.0)), "bars stand on each other"
        stacks[centre] = stacks.get(centre, 0.0) + patch.get_height()
    expected = [
        sum(passes.values()) / 2000 for (arm, _), passes in COSTS.items() if arm in arms and arm in ("random", "scored")
    ]
    assert sorted(stacks.values()) == pytest.approx(sorted(expected))


@pytest.mark.parametrize("partial", [np.nan, 30.0])
def test_runs_that_failed_or_diverged_make_no_bar_lower(partial: float) -> None:
    table = cost_table("random").astype({"cost": float, "passes_train": float})
    lost = (table["fraction"] == 0.5) & (table["seed"] == 1)
    table.loc[lost, ["clean", "robust", "cost"]] = np.nan
    table.loc[lost, "passes_train"] = partial
    heights = [patch.get_height() for patch in runtime(table, pd.DataFrame()).axes[0].patches]
    assert sorted(heights) == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("arms", [("scored", "random"), ("random", "scored")])
def test_every_phase_drawn_is_in_the_legend(arms: tuple[str, ...]) -> None:
    axis = runtime(cost_table(*arms), pd.DataFrame()).axes[0]
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert {"training", "selection", "validation attacks"} <= set(names)
    assert len(names) == len(set(names))


def test_of_many_arms_the_controls_stand_against_the_cost_alone() -> None:
    """With 12 arms of a cost of their own, each beside its control; a panel of 24 rows could not be read."""
    ways = {(f"score score={n}", "pgd_at", 0.4): (6.8 + n, [0.60, 0.60 + n / 100]) for n in range(12)}
    controls = {(f"same_cost(score score={n})", "pgd_at", 0.4): (6.8 + n, [0.70, 0.70 + n / 100]) for n in range(12)}
    whole = {("random", "pgd_at", 1.0): (17.0, [0.80, 0.84])}
    table = trainers_table(ways | controls | whole)
    table["arm"], table["variant"] = table["variant"], ""
    table.loc[table["arm"].str.startswith("same_cost"), "control"] = "same_cost"
    cost, ranks = robust_vs_cost(table).axes
    squares = [line for line in cost.lines if line.get_marker() == "s"]
    assert len(squares) == 12
    assert len(ranks.get_yticklabels()) == 12
    assert not any("same cost" in text.get_text() for text in [*cost.texts, *ranks.get_yticklabels()])
    (best,) = [line for line in cost.lines if line.get_marker() in ("None", None)]
    assert list(best.get_ydata()) == pytest.approx([70 + n / 2 for n in range(11)] + [82])  # 6.8 + 11 costs more


WAYS = {
    ("standard", "standard", 1.0): (3.0, [0.10, 0.14]),
    ("PGD-AT", "pgd_at", 1.0): (17.0, [0.70, 0.74]),
    ("PGD-AT", "pgd_at", 0.4): (6.8, [0.60, 0.60]),
    ("carried", "pgd_at", 1.0): (5.0, [0.71, 0.73]),
}


def test_panels_of_several_settings_are_told_apart() -> None:
    points = {("one", "pgd_at", f): (17 * f, [0.7 * f, 0.72 * f]) for f in (1.0, 0.5)}
    table = trainers_table(points)
    both = pd.concat([table, table.assign(dataset="fashion_mnist")], ignore_index=True)
    for drawn, expected in (
        (table, ["clean test images"]),
        (both, ["digits, L-inf 2/16: clean", "fashion_mnist, L-inf 2/16: clean"]),
    ):
        titles = [axis.get_title() for axis in accuracy_vs_fraction(drawn).axes if "clean" in axis.get_title()]
        assert len(titles) == len(expected)
        assert all(title.startswith(name) for title, name in zip(titles, expected, strict=True)), titles


def test_settings_with_other_fractions_share_ticks_and_fills() -> None:
    """One axis has the fractions of all, one legend the fills."""
    few = trainers_table({("few", "pgd_at", f): (17 * f, [0.7 * f, 0.72 * f]) for f in (1.0, 0.5)})
    many = trainers_table({("many", "pgd_at", f): (17 * f, [0.6 * f, 0.62 * f]) for f in (1.0, 0.5, 0.3, 0.1)})
    table = pd.concat([many, few.assign(dataset="fashion_mnist")], ignore_index=True)
    axes = accuracy_vs_fraction(table).axes
    assert [list(axis.get_xticks()) for axis in axes] == [[0.1, 0.3, 0.5, 1.0]] * 4
    assert [tick.get_text() for tick in axes[-1].get_xticklabels()] == ["10", "30", "50", "100"]

    def filled(line: Any) -> float:
        """The share of its edge's colour in a mark's fill."""
        face, edge = (np.array(mpl.colors.to_rgb(c)) for c in (line.get_markerfacecolor(), line.get_markeredgecolor()))
        return float(((1 - face) / (1 - edge)).mean())

    figure = robust_vs_cost(table)
    (legend,) = figure.legends
    keys = dict(zip([text.get_text() for text in legend.get_texts()], legend.legend_handles, strict=True))
    halves = [filled(line) for line in figure.findobj(Line2D) if list(line.get_xdata()) == [pytest.approx(8.5)]]
    assert halves == pytest.approx([filled(keys["50 % of it"])] * 2)


def test_robust_vs_cost() -> None:
    table = trainers_table(WAYS)
    table.loc[table["variant"] == "carried", "status"] = "collapsed"
    figure = robust_vs_cost(table)
    cost, whole = figure.axes
    drawn = {float(line.get_xdata()[0]): line for line in cost.lines if line.get_marker() not in ("None", None)}
    assert {x: float(line.get_ydata()[0]) for x, line in drawn.items()} == pytest.approx(
        {3.0: 12.0, 17.0: 72.0, 6.8: 60.0, 5.0: 72.0}
    )
    assert drawn[17.0].get_marker() == drawn[6.8].get_marker() != drawn[3.0].get_marker()
    assert [x for x, line in drawn.items() if line.get_marker() == "X"] == [5.0]
    pairs = [(line.get_markerfacecolor(), line.get_markeredgecolor()) for line in drawn.values()]
    filled = [bool(np.allclose(*map(mpl.colors.to_rgb, pair))) for pair in pairs]
    assert dict(zip(drawn, filled, strict=True)) == {3.0: True, 17.0: True, 6.8: False, 5.0: True}
    (best,) = [line for line in cost.lines if line.get_marker() in ("None", None)]
    assert list(best.get_xdata()) == [3.0, 5.0]
    assert {text.get_text() for text in cost.texts} == {"standard", "carried", "PGD-AT", "PGD-AT, 40 %"}
    assert cost.get_xscale() == "log"
    assert "line: no mean is as high" in " ".join(figure.get_suptitle().split())
    ranked = [label.get_text() for label in whole.get_yticklabels()]
    assert ranked == ["PGD-AT", "carried", "PGD-AT", "standard"], "the highest mean first"
    assert whole.get_title() == "40 % of the data, and all"
    # Intervals: t with two seeds.
    half = 12.7062 * 2
    bars = [bar for collection in whole.collections for bar in collection.get_segments()]
    ends = sorted({tuple(np.round(segment[:, 0], 1)) for segment in bars})
    assert (round(72 - half, 1), round(72 + half, 1)) in ends


def test_speed_up_and_its_limit() -> None:
    table = cost_table("random", "scored", "same_cost(random)")
    timings = timing_table([("random", 1.0, 8.0), ("random", 0.5, 5.0), ("random", 0.5, 3.0), ("random", 0.5, 4.5)])
    axis = runtime(table, timings).axes[2]
    limit = labelled(axis, "1/f")
    np.testing.assert_allclose(limit.get_ydata(), 1 / np.asarray(limit.get_xdata()))
    assert (min(limit.get_xdata()), max(limit.get_xdata())) == (0.5, 1.0)
    curves = {"scored, forward": 2000 / 1300, "subset, forward": 2.0, "subset, seconds": 8.0 / 4.5}
    for name, expected in curves.items():
        line = labelled(axis, name)
        assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == pytest.approx({1.0: 1.0, 0.5: expected})
    assert not any("seconds" in str(line.get_label()) for line in axis.lines if "scored" in str(line.get_label()))
    assert not any(len(segment) for segment in axis.collections[0].get_segments()), "one timing has no range"
    twice = pd.concat([timings, timing_table([("random", 1.0, 9.0)])])
    segments = runtime(table, twice).axes[2].collections[0].get_segments()
    (half,) = (segment for segment in segments if len(segment))
    # 8 / 5 to 9 / 3 at one half; the full run against itself has none.
    assert half.tolist() == [pytest.approx([0.5, 1.6]), pytest.approx([0.5, 3.0])]


def test_seconds_are_medians_of_the_timings_alone() -> None:
    table = cost_table("random").assign(seconds_train=1e6, cpu_seconds_train=1e6, timed_alone=False)
    timings = timing_table([("random", 1.0, 8.0), ("random", 0.5, 5.0), ("random", 0.5, 3.0), ("random", 0.5, 4.5)])
    axis = runtime(table, timings).axes[1]
    line = labelled(axis, "static random")
    assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == {1.0: 8.0, 0.5: 4.5}
    shown = sorted(y for line in dots(axis) for y in line.get_ydata())
    assert shown == [3.0, 4.5, 5.0, 8.0]


@pytest.mark.parametrize(
    ("own", "full", "comparable"),
    [
        (("cpu a", 1), ("cpu a", 1), True),
        (("cpu a", 1), ("cpu b", 1), False),
        (("cpu a", 1), ("cpu a", 2), False),
    ],
)
def test_seconds_are_compared_on_one_machine_only(own: Any, full: Any, comparable: bool) -> None:
    timings = timing_table([("random", 1.0, 8.0, *full), ("random", 0.5, 2.0, *own)])
    speeds = speed_ups(cost_table("random"), timings).set_index("fraction")
    seconds = speeds.loc[0.5, ["cpu_seconds", "seconds_ratio", "speed_up_seconds"]].astype(float)
    assert seconds.tolist() == ([2.0, 0.25, 4.0] if comparable else pytest.approx([np.nan] * 3, nan_ok=True))
    assert speeds.loc[0.5, "speed_up_passes"] == pytest.approx(2.0)


def test_speed_ups_pair_by_seed() -> None:
    """The share is the mean over seeds of own / full, not of the sums."""
    table = cost_table("scored")
    table.loc[(table["seed"] == 1) & (table["matched_fraction"] == 1), "cost"] = 2600
    speeds = speed_ups(table, pd.DataFrame()).set_index("fraction")
    share = (1300 / 2000 + 1300 / 2600) / 2
    assert speeds.loc[0.5, "cost"] == pytest.approx(share)
    assert speeds.loc[0.5, "speed_up_passes"] == pytest.approx(1 / share)
    assert speeds[["cpu_seconds", "seconds_ratio", "speed_up_seconds"]].isna().all(axis=None)


@pytest.mark.parametrize("draw", [accuracy_vs_fraction, robust_vs_cost])
def test_doubts_stand_above_the_figure(draw: Any) -> None:
    table = study_table(POINTS) if draw is accuracy_vs_fraction else trainers_table(WAYS)
    assert "in doubt" not in draw(table).get_suptitle()
    assert draw(table.assign(warnings="")).get_suptitle() == draw(table).get_suptitle()
    table["warnings"] = ["gradients are masked"] * 2 + [""] * (len(table) - 3) + [None]
    found = " ".join(draw(table).get_suptitle().split())
    assert found.endswith(f"2 of {len(table)} evaluations are in doubt: gradients are masked")
