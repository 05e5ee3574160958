"""Prose from tables: its numbers are worked out again here, and it claims nothing else."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import pruners_table, study_table, timing_table, trainers_table
from scipy import stats

from advprune_core.controls import CONTROLS
from advprune_core.datasets.digits import Digits
from advprune_core.findings import accuracy_findings, pair_findings, pruner_findings, runtime_findings, trainer_findings
from advprune_core.settings import ConfigError
from advprune_core.statistics import pruner_table

FULL = [(0.95, 0.75), (0.97, 0.71), (0.96, 0.77), (0.94, 0.74)]
HALF = [(0.90, 0.66), (0.92, 0.61), (0.89, 0.70), (0.91, 0.64)]
SHIFT = [0.051, 0.048, 0.055, 0.046]  # of a control against HALF, seed by seed


def points(**more: Any) -> dict[Any, Any]:
    return {("random", 1.0): FULL, ("random", 0.5): HALF, **{(name, 0.5): runs for name, runs in more.items()}}


def control(*shifts: float) -> dict[str, Any]:
    """A control that is better than HALF by so much."""
    return {"same_cost(random)": [(c, r + s) for (c, r), s in zip(HALF, shifts, strict=True)]}


def interval(values: Any) -> str:
    """``+1.2 points [+0.3, +2.1]`` by scipy's t test against zero."""
    x = 100 * np.asarray(values, float)
    low, high = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    return f"{x.mean():+.1f} points [{low:+.1f}, {high:+.1f}]"


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_numbers_are_those_of_the_table() -> None:
    text = accuracy_findings(study_table(points(**control(*SHIFT))))
    first, loss, against = lines(text)
    for name, place in (("clean images", 0), ("under attack", 1)):
        x = 100 * np.array(FULL)[:, place]
        low, high = stats.t.interval(0.95, 3, loc=x.mean(), scale=stats.sem(x))
        assert f"{x.mean():.1f} [{low:.1f}, {high:.1f}] % {'on ' if place == 0 else ''}{name}" in first
    assert "4 seeds" in first
    difference = np.array(HALF) - np.array(FULL)
    assert f"{interval(difference[:, 1])} robust and {interval(difference[:, 0])} clean" in loss
    assert "50 %" in loss
    assert "at 50 % of its cost" in loss
    assert f"{interval([-s for s in SHIFT])} robust" in against
    assert CONTROLS["same_cost"] in against


@pytest.mark.parametrize(
    ("shifts", "verdict"),
    [
        ([-0.05, -0.06, -0.055, -0.05], "more than chance"),
        (SHIFT, "less, beyond chance"),
        ([0.05, -0.06, 0.02, -0.03], "no difference that these seeds could see"),
    ],
)
def test_verdict_follows_the_paired_interval(shifts: list[float], verdict: str) -> None:
    against = lines(accuracy_findings(study_table(points(**control(*shifts)))))[-1]
    result = stats.ttest_1samp([-s for s in shifts], 0)
    assert (result.pvalue < 0.05) == (verdict != "no difference that these seeds could see")
    assert against.endswith(f"{verdict}.")


def test_pairing_is_by_seed() -> None:
    """Seeds differ much more than arms do: only a paired test can see it."""
    full = [(0.9, 0.5), (0.9, 0.6), (0.9, 0.7), (0.9, 0.8)]
    half = [(0.9, r - 0.02 - 0.001 * seed) for seed, (_, r) in enumerate(full)]
    rival = [(0.9, r + 0.02 + 0.001 * seed) for seed, (_, r) in enumerate(half)]
    table = study_table({("random", 1.0): full, ("random", 0.5): half, ("same_cost(random)", 0.5): rival})
    shuffled = table.sample(frac=1.0, random_state=1)
    last = lines(accuracy_findings(shuffled))[-1]
    assert "less, beyond chance" in last
    assert stats.ttest_ind([r for _, r in half], [r for _, r in rival]).pvalue > 0.5


def test_one_seed_has_no_interval() -> None:
    one = {key: runs[:1] for key, runs in points(**control(*SHIFT)).items()}
    text = accuracy_findings(study_table(one))
    assert "1 seed," in text
    assert "no interval" in text
    assert "one seed cannot tell" in lines(text)[-1]
    assert not re.search(r"\d \[", text)
    assert "beyond chance" not in text


def test_absent_controls_are_not_mentioned() -> None:
    text = accuracy_findings(study_table(points()))
    assert "against *" not in text
    assert len(lines(text)) == 2
    only_at_full = points() | {("same_cost(random)", 1.0): FULL}
    assert "against *" not in accuracy_findings(study_table(only_at_full))


def test_without_a_full_run_no_loss_is_claimed() -> None:
    text = accuracy_findings(study_table({("random", 0.5): HALF}))
    x = 100 * np.array(HALF)[:, 1]
    assert f"{x.mean():.1f}" in text
    assert "full data" not in text.lower()
    assert "nan" not in text


def test_unhappy_runs_are_counted_once_each() -> None:
    table = study_table(points())
    table.loc[(table["fraction"] == 0.5) & (table["seed"] < 2), "status"] = "collapsed"
    table.loc[(table["fraction"] == 0.5) & (table["seed"] == 3), "status"] = "diverged"
    last = lines(accuracy_findings(pd.concat([table, table[table["status"] == "collapsed"]])))[-1]
    assert "2 collapsed" in last
    assert "1 diverged" in last
    assert "Not every run" not in accuracy_findings(study_table(points()))


@pytest.mark.parametrize("where", [1.0, 0.5])
def test_a_run_without_a_test_does_not_hide_the_others(where: float) -> None:
    table = study_table(points())
    table.loc[(table["fraction"] == where) & (table["seed"] == 3), ["clean", "robust"]] = np.nan
    text = accuracy_findings(table)
    assert "nan" not in text
    difference = (np.array(HALF) - np.array(FULL))[:3]
    assert interval(difference[:, 1]) in text
    if where == 1.0:
        assert f"{100 * np.mean(FULL[:3], axis=0)[1]:.1f} [" in lines(text)[0]
        assert "mean of 3 seeds" in lines(text)[0]


WAYS = {
    ("standard", "standard", 1.0): (3.0, [0.10, 0.14, 0.12]),
    ("PGD-AT", "pgd_at", 1.0): (17.0, [0.70, 0.74, 0.72]),
    ("PGD-AT", "pgd_at", 0.4): (6.8, [0.60, 0.61, 0.59]),
    ("carried", "pgd_at", 1.0): (5.0, [0.71, 0.74, 0.74]),
    ("carried", "pgd_at", 0.4): (2.0, [0.50, 0.54, 0.52]),
    ("FGSM", "pgd_at", 1.0): (5.0, [0.30, 0.31, 0.20]),
}


def test_what_is_said_of_ways_of_training() -> None:
    table = trainers_table(WAYS)
    fgsm = table["variant"] == "FGSM"
    table.loc[fgsm & (table["seed"] == 2), ["status", "collapse_epoch"]] = "collapsed", 33
    table.loc[fgsm, "val_pgd_best"], table.loc[fgsm, "val_pgd_last"] = [0.50, 0.52, 0.49], [0.48, 0.44, 0.42]
    table.loc[fgsm, "collapse_depth"] = [0.04, 0.09, 0.11]
    text = lines(trainer_findings(table))
    assert "90.0 % on clean images and 12.0 [7.0, 17.0] % under attack" in text[0]
    assert "Of 5 others, all but FGSM at 100 % withstand at least 20 points more" in text[1]
    assert text[2] == (
        "- **FGSM** at 100 % of the data: 1 of 3 runs collapsed, from epoch 33 on. Held-out robust accuracy of all 3: "
        "49 to 52 % at best, then a fall of 4 to 11 points, 42 to 48 % at the end."
    )
    # The mean of 0.48, 0.44, 0.42, and of 0.30, 0.31, 0.20 on the test.
    assert Digits.held_out in text[3]
    assert "is 45 % on them and 27 % on the test images" in text[3]
    assert "nothing here that costs as much or less" in text[4]
    assert "**carried** withstands the attack on 73.0" in text[5]
    assert f"{interval([0.01, 0.0, 0.02])} against PGD-AT, at 0.29 of its cost" in text[5]
    # Carried on all data costs less than 40 % of PGD-AT; nothing costs less than 40 % of carried.
    assert "Of the 2 points with a part of the data, 1 are matched or beaten" in text[6]
    assert "by -21.0 (carried, 40 %) to -12.0 points (PGD-AT, 40 %)" in text[7]
    assert len(text) == 8
    # Nothing is known of other data, nor to be said where nothing collapsed.
    own = lines(trainer_findings(table.assign(dataset='{"npz": {"path": "a.npz"}}')))
    assert own == text[:3] + text[4:]
    assert len(lines(trainer_findings(trainers_table(WAYS)))) == 6


def test_what_is_said_of_pruners() -> None:
    half = {
        "random": [0.60, 0.62, 0.61],
        "good": [0.66, 0.68, 0.66],
        "bad": [0.50, 0.53, 0.52],
        "same_cost(good)": [0.70, 0.73, 0.71],
        "same_cost(bad)": [0.66, 0.69, 0.62],
    }
    points = {(arm, 0.5): [(0.9, value) for value in values] for arm, values in half.items()}
    table = pruners_table({("random", 1.0): [(0.9, 0.8)] * 3, **points}, {"bad": (300, 0.5)})
    text = lines(pruner_findings(pruner_table(table)))
    assert text == [
        "- **50 % of the data**, 2 pruners:",
        "  - better than a static random subset beyond chance: good (+5.7); worse beyond chance: 1.",
        "  - better than all data, same cost beyond chance: none; worse beyond chance: 2.",
        "  - selection takes more passes than one epoch of training: bad (1.50).",
        "- Each interval is for its comparison alone: of 4, some miss by chance.",
    ]


def test_pairs_by_seed() -> None:
    text = pair_findings(trainers_table(WAYS), [["carried: random", "PGD-AT: random"]])
    first, second = lines(text)
    assert f"at 100 %: {interval([0.01, 0.0, 0.02])} robust (3 seeds); no difference" in first
    assert f"at 40 %: {interval([-0.10, -0.07, -0.07])} robust (3 seeds); less, beyond chance" in second
    with pytest.raises(ConfigError, match=r"unknown arm 'carreid: random'.*did you mean 'carried: random'"):
        pair_findings(trainers_table(WAYS), [["carreid: random", "PGD-AT: random"]])


def test_findings_of_several_ways_stand_apart() -> None:
    text = accuracy_findings(trainers_table(WAYS))
    assert re.findall("### (.*)", text) == ["standard", "PGD-AT", "carried", "FGSM"]
    assert f"{interval([-0.10, -0.13, -0.13])} robust" in text
    assert "at 40 % of its cost" in text


def test_runtime_numbers_are_those_of_the_table() -> None:
    costs = {("random", 0.5): {"train": 500, "select": 40}}
    timings = timing_table([("random", 1.0, 8.0), ("random", 1.0, 10.0)] + [("random", 0.5, s) for s in (5.0, 4.0)])
    half, last = lines(runtime_findings(study_table(points(**control(*SHIFT)), costs=costs), timings))
    assert "50 %" in half
    assert "0.5400 of the full run's forward-equivalents" in half
    assert f"speed-up of {1 / 0.54:.2f}" in half
    assert "4.50 processor seconds" in half
    assert "0.500 of the full run's = 1.000 f" in half
    assert "speed-up of 2.00" in half
    assert "2 timings" in last


@pytest.mark.parametrize(
    "timings", [timing_table([]), timing_table([("random", 1.0, 8.0, "a", 1), ("random", 0.5, 4.0, "b", 1)])]
)
def test_nothing_is_claimed_about_seconds_that_were_not_taken(timings: pd.DataFrame) -> None:
    text = runtime_findings(study_table(points()), timings)
    assert "processor seconds" not in text
    assert ("No run was timed alone" in text) == (len(timings) == 0)
    assert "nan" not in text


def test_no_speed_up_without_a_full_run() -> None:
    text = runtime_findings(study_table({("random", 0.5): HALF}), timing_table([]))
    assert "nan" not in text
    assert "of the full run's" not in text
