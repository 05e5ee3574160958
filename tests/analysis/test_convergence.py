"""What it costs to get near the full run, from courses made up by hand."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.convergence import by_seed, convergence_figure, convergence_findings, cost_to_reach, sooner
from advprune_core.analysis.estimates import Signs


def course(arm: str, fraction: float, seed: int, checks: list[float], *, full: float = 0.8) -> pd.DataFrame:
    """Checks of a run that costs 10 times its fraction in each epoch; the full run costs 40 and ends at `full`."""
    epochs = np.arange(1, len(checks) + 1)
    return pd.DataFrame(
        {
            "arm": arm,
            "fraction": fraction,
            "seed": seed,
            "epoch": epochs,
            "cost": 10 * fraction * epochs,
            "val_pgd": checks,
            "full_cost": 40.0,
            "full_val_pgd": full,
        }
    )


COURSES = pd.concat(
    [
        *(course("random", 1.0, seed, [0.2, 0.5, 0.77, 0.8]) for seed in range(3)),
        course("random", 0.5, 0, [0.3, 0.76, 0.7, 0.7]),  # there in its second epoch, 10 of 40
        course("random", 0.5, 1, [0.3, 0.6, 0.7, 0.77]),  # in its last, 20 of 40
        course("random", 0.5, 2, [0.3, 0.4, 0.5, 0.6]),  # never
        *(course("random", 0.2, seed, [0.1, 0.2, 0.3, 0.4]) for seed in range(3)),
    ]
)


def test_costs_are_those_of_the_first_check_that_is_there() -> None:
    found = cost_to_reach(COURSES, share=0.95).set_index("fraction")
    assert found["reached"].to_dict() == {1.0: 3, 0.5: 2, 0.2: 0}
    assert found["cost"].to_dict() == {1.0: 0.75, 0.5: 0.5, 0.2: np.inf}
    assert cost_to_reach(COURSES, share=0.2).set_index("fraction")["cost"].to_dict() == pytest.approx(
        {1.0: 0.25, 0.5: 0.125, 0.2: 0.1}
    )


def test_seeds_are_compared_one_by_one() -> None:
    """Two runs that never get there are equal; a seed that one of them lacks says nothing."""
    # All are looked at when the full run is, after 10, 20, 30 and 40: seed 0 is there at 10, seed 1 at 20; 30 is it.
    assert sooner(by_seed(COURSES), ("random", 0.5), ("random", 1.0)) == Signs(2, 1, 3, 1.0)
    assert sooner(by_seed(COURSES), ("random", 0.2), ("random", 0.5)) == Signs(0, 2, 3, 0.5), "the third: both never"
    assert sooner(by_seed(COURSES), ("random", 0.5), ("keep_hard", 0.5)) is None
    assert sooner(by_seed(COURSES), ("keep_hard", 0.5), ("random", 0.5)) is None
    one = COURSES[(COURSES["fraction"] < 1) | (COURSES["seed"] == 2)]
    assert sooner(by_seed(one), ("random", 0.5), ("random", 1.0)) == Signs(0, 1, 1, 1.0)


def test_who_is_looked_at_more_often_is_not_sooner_for_that() -> None:
    """The same course, looked at four times as often, is over the bar at 0.3 and at 0.375 of the full run's cost."""
    steps = [0.1 * n for n in range(1, 13)]
    often = course("often", 0.25, 0, [0.8 if step > 1.15 else 0.2 for step in steps])
    seldom = course("seldom", 1.0, 0, [0.2, 0.8, 0.8])
    both = pd.concat([often, seldom])
    assert cost_to_reach(both)["cost"].tolist() == pytest.approx([12 * 2.5 / 40, 0.5])
    assert sooner(by_seed(both), ("often", 0.25), ("seldom", 1.0)) == Signs(0, 1, 1, 1.0), (
        "at 30, when the other was at 20"
    )
    early = course("often", 0.25, 0, [0.2] * 6 + [0.8] * 6)  # there after 7 * 2.5 = 17.5, seen at 20
    assert sooner(by_seed(pd.concat([early, seldom])), ("often", 0.25), ("seldom", 1.0)) == Signs(0, 0, 1, 1.0)
    bump = course("often", 0.25, 0, [0.2, 0.8, *[0.2] * 10])  # over the bar once, by chance, when the other is not seen
    assert sooner(by_seed(pd.concat([bump, seldom])), ("often", 0.25), ("seldom", 1.0)) == Signs(0, 1, 1, 1.0)


#: Fewer epochs on all the data, at the cost of half of it: there in its second epoch.
SHORTER = [course("same_cost(random)", 0.5, seed, [0.5, 0.77, 0.78, 0.8]) for seed in range(3)]


def test_a_control_of_equal_cost_is_compared_and_drawn_beside_its_run() -> None:
    both = pd.concat([COURSES, *SHORTER])
    text = convergence_findings(both)
    assert (
        "2 of 3 runs get there; beside *full data, same cost: fewer epochs*: sooner in 0 of 3 seeds, later in 2 ("
        in (text)
    )
    assert "**full data, same cost: fewer epochs (as 50 %)**: at 25 % of the full run's cost (median)" in text
    figure = convergence_figure(both)
    assert len(figure.axes) == 1, "in the panel of what it matches"
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "w"]
    (control,) = hollow
    np.testing.assert_allclose(control.get_xdata(), 10 * 0.5 * np.arange(1, 5) / 40)
    np.testing.assert_allclose(control.get_ydata(), [50, 77, 78, 80])
    assert "full data, same cost: fewer epochs" in [text.get_text() for text in figure.legends[0].get_texts()]
    plt.close(figure)


def test_findings_say_what_never_gets_there() -> None:
    text = convergence_findings(COURSES)
    assert text.startswith("95 % of the full run's last held-out robust accuracy")
    assert "**static random subset, 50 %**: at 50 % of the full run's cost (median); 2 of 3 runs get there." in text
    assert "**static random subset, 20 %**: not in most runs; 0 of 3 runs get there." in text


@pytest.mark.parametrize(
    ("courses", "told"),
    [
        (COURSES.iloc[:0], "best_every"),
        (COURSES.assign(full_cost=np.nan, full_val_pgd=np.nan), "add 1.0 to `fractions`"),
        (COURSES.assign(full_val_pgd=np.nan), "nothing to get near to"),
    ],
)
def test_what_is_missing_for_a_comparison_is_told_apart(courses: pd.DataFrame, told: str) -> None:
    reasons = ("best_every", "fractions", "nothing to get near to")
    text = convergence_findings(courses)
    assert told in text
    assert sum(reason in text for reason in reasons) == 1


def test_the_figure_has_a_line_for_each_point() -> None:
    figure = convergence_figure(COURSES)
    try:
        (legend,) = figure.legends
        assert len(legend.get_texts()) == 3
        figure.canvas.draw()
    finally:
        plt.close(figure)


RULES = [(100, ""), (20, ", static random subset"), (50, ", static random subset")]


def test_a_panel_for_each_way_where_all_keep_by_one_rule() -> None:
    both = pd.concat([COURSES.assign(arm=f"{way}: random") for way in ("PGD-AT", "N-FGSM")])
    figure = convergence_figure(both)
    assert [axis.get_title() for axis in figure.axes] == ["PGD-AT", "N-FGSM"]
    keys = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(keys) == [f"{share} % of the data{rule}" for share, rule in RULES]
    # Of two rules each panel says its own.
    other = pd.concat([both, COURSES.assign(arm="PGD-AT: keep_hard")])
    assert "PGD-AT: keep_hard" in [axis.get_title() for axis in convergence_figure(other).axes]
    plt.close("all")


def test_without_checks_there_is_an_empty_figure() -> None:
    figure = convergence_figure(COURSES[:0])
    assert not any(axis.lines for axis in figure.axes)
    plt.close(figure)


def test_seeds_without_a_bar_are_counted() -> None:
    """Full runs that collapsed are gone from both counts, which a reader must know."""
    lost = COURSES.assign(full_val_pgd=COURSES["full_val_pgd"].where(COURSES["seed"] != 1))
    text = convergence_findings(lost)
    assert "**static random subset, 50 %**: not in most runs; 1 of 2 runs get there (1 seed without a bar)." in text
    assert "set by its own full run: none where that was not checked, collapsed, or ended no more robust" in text
    assert "without a bar" not in convergence_findings(COURSES)
    other = pd.concat([COURSES, COURSES.assign(arm="other: random", full_val_pgd=np.nan)])
    assert "- Without a bar in any seed: **other: all the data**; **other: static random subset, 50 %**; " in (
        convergence_findings(other)
    )
