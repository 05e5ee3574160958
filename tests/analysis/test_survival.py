"""Survival over optimiser steps, against the product-limit formula by hand."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.survival import NOT_CHECKED, survival, survival_figure, survival_findings, survivals


def runs(
    arm: str, ends: list[float | None], *, fraction: float = 1.0, length: float = 100, **facts: Any
) -> pd.DataFrame:
    """Runs that collapse at the steps given, or live to their `length` (None)."""
    return pd.DataFrame(
        {
            "key": [f"{arm}{fraction}{number}" for number in range(len(ends))],
            "arm": arm,
            "fraction": fraction,
            "status": ["ok" if end is None else "collapsed" for end in ends],
            "collapse_steps": [np.nan if end is None else end for end in ends],
            "optimiser_steps": length,
            "val_pgd_best": 0.5,
            "objective": "single_step",
            **facts,
        }
    )


def by_hand(deaths: list[float], censored: list[float]) -> dict[float, float]:
    """Kaplan and Meier 1958: the product of (1 - d / n) over the times of death."""
    share, result = 1.0, {}
    for time in sorted({*deaths, *censored}):
        at_risk = sum(end >= time for end in [*deaths, *censored])
        share *= 1 - deaths.count(time) / at_risk
        result[time] = share
    return result


@pytest.mark.parametrize("ends", [[10, 20, 20, None, None], [10, 30, 50], [None, None], [5]])
def test_shares_are_the_product_limit(ends: list[float | None]) -> None:
    found = survival(runs("a", ends))
    expected = by_hand([end for end in ends if end is not None], [100.0 for end in ends if end is None])
    assert dict(zip(found.steps[1:], found.share[1:], strict=True)) == pytest.approx(expected)
    assert (found.steps[0], found.share[0]) == (0, 1)
    assert (found.runs, found.collapsed) == (len(ends), sum(end is not None for end in ends))
    known = ~np.isnan(found.low)
    assert (found.low[known] <= found.share[known] + 1e-12).all()


def test_runs_that_two_points_share_count_once_and_failed_ones_not() -> None:
    table = pd.concat([runs("a", [10, None]), runs("a", [10, None]), runs("a", [None], status="failed")])
    assert survivals(table)["a", 1.0].runs == 2


def test_full_runs_of_several_pruners_are_told_once() -> None:
    def table(*ends: float | None) -> pd.DataFrame:
        full = [runs(arm, list(ends)).assign(key=["0", "1"]) for arm in ("random", "craig")]
        return pd.concat([*full, *(runs(arm, [None, None], fraction=0.5) for arm in ("random", "craig"))])

    assert survival_findings(table(None, None)).startswith("None of the 6 runs collapsed")
    assert survival_findings(table(10, None)).count("1 of 2 runs collapsed") == 1


def test_fewer_steps_alone_are_no_survival() -> None:
    """The subset ends before the step at which the full runs collapse: nothing is known of it there."""
    full = runs("fgsm", [40 + number for number in range(20)])
    short = runs("fgsm", [None] * 20, fraction=0.2, length=20)
    text = survival_findings(pd.concat([full, short]))
    assert "**fgsm, 20 %**: 0 of 20 runs collapsed (0 % [0, 16]), in at most 20 steps" in text
    assert "not known to be otherwise than on all the data (no collapse at a step that both reached)" in text
    longer = runs("fgsm", [None] * 20, fraction=0.2, length=100)
    later = survival_findings(pd.concat([full, longer]))
    assert "step for step later than on all the data" in later
    assert "different lengths have different learning rates" in later
    assert "learning rates" not in survival_findings(full), "nothing is compared"
    early = runs("fgsm", [10 + number for number in range(20)], fraction=0.2, length=100)
    text = survival_findings(pd.concat([full, early]))
    assert "step for step sooner than on all the data by a log-rank test (Holm p < 0.001)" in text


def test_a_control_is_held_against_the_full_runs_of_what_it_matches() -> None:
    full = runs("FGSM: random", [40 + number for number in range(20)])
    other = runs("Fast AT: random", [None] * 20)
    control = runs("FGSM: same_steps(random)", [None] * 20, fraction=0.2)
    text = survival_findings(pd.concat([full, other, control]))
    line = next(line for line in text.splitlines() if "as many steps" in line)
    assert line.startswith("- **FGSM: the same subset, as many steps as the full run, 20 %**: 0 of 20 runs collapsed")
    assert "step for step later than on all the data" in line


def test_the_figure_has_a_line_for_each_point() -> None:
    lives = [runs("a", [10, None]), runs("a", [None], fraction=0.5), runs("same_steps(a)", [5, 9], fraction=0.5)]
    figure = survival_figure(pd.concat(lives))
    try:
        (legend,) = figure.legends
        shares, control = ["100 % of the data", "50 % of the data"], "the same subset, as many steps as the full run"
        assert [text.get_text() for text in legend.get_texts()] == [*shares, control]
        title = " ".join(figure.axes[0].get_title().split())
        assert title == "a collapsed all: 1 of 2; 50 %: 0 of 1; its control: 2 of 2"
        figure.canvas.draw()
    finally:
        plt.close(figure)


def test_nothing_trained_is_said() -> None:
    assert survival_findings(runs("a", [None], status="failed")) == "No run was trained to its end."


def test_runs_that_were_never_checked_have_not_survived() -> None:
    """They would be "ok" whatever became of them; what is trained without an attack has nothing to collapse."""
    unchecked, plain = runs("a", [None] * 5, val_pgd_best=np.nan), runs("s", [None] * 4, val_pgd_best=np.nan)
    assert survival_findings(unchecked) == NOT_CHECKED
    assert "best_every" in NOT_CHECKED
    both = pd.concat([unchecked, runs("b", [10, None]), plain.assign(objective="standard")])
    assert {point: life.runs for point, life in survivals(both).items()} == {("b", 1.0): 2, ("s", 1.0): 4}
    assert "**b: " not in survival_findings(both)
    assert [line.partition(":")[2] for line in survival_findings(both).splitlines()][1].startswith(" 0 of 4 runs")
    some = pd.concat([unchecked.assign(arm="b", key=[f"more {n}" for n in range(5)]), runs("b", [None, None])])
    assert survival_findings(some).startswith("None of the 2 runs collapsed; where 2 did not")
    figure = survival_figure(unchecked)
    figure.canvas.draw()
    assert not any(axis.lines for axis in figure.axes)
    plt.close(figure)


def test_where_nothing_collapsed_one_sentence_says_so() -> None:
    lives = pd.concat([runs("a", [None] * 10), runs("b", [None] * 12)])
    # Wilson's upper end of 0 of n: z^2 / (n + z^2).
    assert f"up to {100 * 1.95996**2 / (10 + 1.95996**2):.0f} %" in survival_findings(lives)
    assert survival_findings(lives).startswith("None of the 22 runs collapsed; where 10 did not")


def test_what_never_was_robust_had_nothing_to_lose() -> None:
    """Less than a quarter of a perfect training accuracy, in the best run."""
    robust = survival_findings(runs("a", [10, None], val_pgd_best=[0.1, 0.3]))
    hollow = survival_findings(runs("a", [10, None], val_pgd_best=[0.1, 0.2]))
    assert "robust" not in robust
    assert hollow.endswith("; none ever was robust (at best 20 % of held-out images), so there was nothing to lose.")
    assert "robust" not in survival_findings(runs("a", [10, None], val_pgd_best=np.nan)), "nothing is known"
