"""The most robust network for a budget: the ranking, who is tested, what is said."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from advprune_core.analysis.speedrun import ranked, results, speedrun_figure, speedrun_findings, winners
from tests.analysis.figure_checks import faults
from tests.made_up import DEVIATIONS, seeded_runs, stacked

PLAIN = seeded_runs("textbook: random", 0.50, cost_seconds=120, val_pgd_last=0.55 + DEVIATIONS)
FULL = seeded_runs("ours: random", 0.60, cost_seconds=120, val_pgd_last=0.64 + DEVIATIONS)
PRUNED = seeded_runs("ours: random", 0.57, fraction=0.5, cost_seconds=120, val_pgd_last=0.66 + DEVIATIONS)


def test_the_ranking_is_that_of_the_held_out_images_alone() -> None:
    ranking = ranked(stacked(PLAIN, FULL, PRUNED, seeded_runs("unchecked: random", 0.9).assign(val_pgd_last=np.nan)))
    assert ranking[["arm", "fraction"]].values.tolist() == [
        ["ours: random", 0.5],
        ["ours: random", 1.0],
        ["textbook: random", 1.0],
    ]
    assert ranking["held_out"].tolist() == pytest.approx([0.66, 0.64, 0.55])
    assert (ranking["seconds"] == 120).all()


@pytest.mark.parametrize(
    ("top", "beside", "expected"),
    [
        (2, ["ours: random"], [("ours: random", 0.5), ("ours: random", 1.0)]),
        (9, [], [("ours: random", 0.5), ("ours: random", 1.0), ("textbook: random", 1.0)]),
        # Whether pruning pays can be told of two only: the first that prunes, the first that doesn't.
        (1, [], [("ours: random", 0.5), ("ours: random", 1.0)]),
        (0, ["textbook: random"], [("ours: random", 0.5), ("ours: random", 1.0), ("textbook: random", 1.0)]),
    ],
)
def test_the_first_places_and_the_textbook_are_tested(top: int, beside: list[str], expected: Any) -> None:
    assert winners(ranked(stacked(PLAIN, FULL, PRUNED)), top=top, beside=beside) == expected
    assert winners(ranked(stacked(PLAIN, FULL)), top=1) == [("ours: random", 1.0)]


@pytest.mark.parametrize(
    ("pruned", "leads"), [(0.57, "ours: all the data"), (0.65, "ours: static random subset, 50 %")]
)
@pytest.mark.parametrize(("held_out", "first"), [(0.66, "pruned"), (0.62, "full")])
def test_who_leads_is_the_most_robust_but_who_is_compared_was_chosen_on_held_out_images(
    pruned: float, leads: str, held_out: float, first: str
) -> None:
    part = seeded_runs("ours: random", pruned, fraction=0.5, cost_seconds=120, val_pgd_last=held_out + DEVIATIONS)
    table = stacked(PLAIN, FULL, part)
    text = speedrun_findings(table, ranked(table), textbook=["textbook: random"], goals=[0.58, 0.99])
    assert text.startswith(f"**{leads}** leads: {100 * max(pruned, 0.6):.1f} [")
    assert "in 2.0 minutes of one core" in text
    gain = re.search(r"The first pruned run of the ranking, .*?: ([+-][\d.]+) points", text)
    assert gain is not None
    assert float(gain[1]) == pytest.approx(100 * (pruned - 0.6), abs=0.06)
    best = re.search(r"The first of the ranking, .*?against \*textbook: .*?\*: ([+-][\d.]+) points", text)
    assert best is not None
    chosen = {"pruned": pruned, "full": 0.6}[first]
    assert float(best[1]) == pytest.approx(100 * (chosen - 0.5), abs=0.06)
    assert ("On held-out images" in text) == (chosen < max(pruned, 0.6))
    assert f"58 % robust: reached by *{leads}*" in text
    assert "99 % robust: not reached for sure by any arm" in text


def test_where_the_textbook_leads_nothing_is_held_against_it() -> None:
    table = stacked(seeded_runs("textbook: random", 0.7, val_pgd_last=0.7), FULL)
    text = speedrun_findings(table, ranked(table), textbook=["textbook: random"])
    assert text.startswith("**textbook: all the data** leads")
    assert "against" not in text
    apart = FULL.assign(run_device=["a GPU", *["a laptop"] * (len(FULL) - 1)])
    apart = speedrun_findings(apart, ranked(apart), textbook=[])
    assert f"in {FULL['cost'].mean():,.0f} forward-equivalents, on more than one device" in apart
    untested = FULL.assign(robust=np.nan)
    assert speedrun_findings(untested, ranked(untested), textbook=[]) == "No arm was tested, so nobody leads."


def test_the_figure_has_a_row_for_each_arm_the_best_on_top() -> None:
    table = stacked(PLAIN, FULL, PRUNED)
    figure = speedrun_figure(table)
    (axis,) = figure.axes
    names = ["ours: all the data", "ours: static random subset, 50 %", "textbook: all the data"]
    assert [label.get_text() for label in axis.get_yticklabels()] == names
    assert axis.yaxis_inverted()
    means = [bars.lines[0].get_xdata()[0] for bars in axis.containers]
    assert means == pytest.approx(100 * results(table)["robust"].to_numpy())
    assert faults(figure) == []
    plt.close(figure)
