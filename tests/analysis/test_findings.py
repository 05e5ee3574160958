"""Prose from tables: its numbers are worked out again here, and it claims nothing else."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from advprune_core.analysis.findings import accuracy_findings, pair_findings, pruner_findings, runtime_findings
from advprune_core.analysis.summaries import pruner_table
from advprune_core.base.settings import ConfigError
from advprune_core.trainers.controls import CONTROLS
from tests.analysis.prose import interval, lines, p_after_holm
from tests.made_up import WAYS, pruners_table, study_table, timing_table, trainers_table

FULL = [(0.95, 0.75), (0.97, 0.71), (0.96, 0.77), (0.94, 0.74)]
HALF = [(0.90, 0.66), (0.92, 0.61), (0.89, 0.70), (0.91, 0.64)]
SHIFT = [0.051, 0.048, 0.055, 0.046]  # of a control against HALF, seed by seed


def points(**more: Any) -> dict[Any, Any]:
    return {("random", 1.0): FULL, ("random", 0.5): HALF, **{(name, 0.5): runs for name, runs in more.items()}}


def control(*shifts: float) -> dict[str, Any]:
    """A control that is better than HALF by so much."""
    return {"same_cost(random)": [(c, r + s) for (c, r), s in zip(HALF, shifts, strict=True)]}


def test_numbers_are_those_of_the_table() -> None:
    text = accuracy_findings(study_table(points(**control(*SHIFT))))
    first, loss, against, _, method = lines(text)
    for name, place in (("clean images", 0), ("under attack", 1)):
        x = 100 * np.array(FULL)[:, place]
        low, high = stats.t.interval(0.95, 3, loc=x.mean(), scale=stats.sem(x))
        assert f"{x.mean():.1f} [{low:.1f}, {high:.1f}] % {'on ' if place == 0 else ''}{name}" in first
    assert "4 of 4 seeds" in first
    difference = np.array(HALF) - np.array(FULL)
    p = p_after_holm(difference[:, 1], [-s for s in SHIFT])
    assert f"at 50 % of its cost: {interval(difference[:, 0])} clean, {interval(difference[:, 1])} robust" in loss
    assert "**static random subset, 50 %**" in loss
    assert f"{interval([-s for s in SHIFT])} robust (4 of 4 seeds)" in against
    assert CONTROLS["same_cost"] in against
    assert [line.endswith(f"{told}.") for line, told in zip((loss, against), p, strict=True)] == [True, True]
    assert "over 2 comparisons together (Holm)" in method


@pytest.mark.parametrize(
    ("shifts", "verdict"),
    [
        ([-0.05, -0.06, -0.055, -0.05], "better on these images, open for others"),
        (SHIFT, "worse on these images, open for others"),
        ([0.05, -0.06, 0.02, -0.03], "not significant"),
    ],
)
def test_the_verdict_follows_the_paired_test(shifts: list[float], verdict: str) -> None:
    against = lines(accuracy_findings(study_table(points(**control(*shifts)))))[2]
    (told,) = p_after_holm([-s for s in shifts], np.array(HALF)[:, 1] - np.array(FULL)[:, 1])[:1]
    assert against.endswith(f"; {verdict} {told}.")


def test_all_comparisons_of_a_text_are_judged_together() -> None:
    """A difference that would stand alone does not among nine others, of other ways of training, too."""
    shifts = [-0.02, -0.05, -0.04, -0.03]
    p = stats.ttest_1samp(shifts, 0).pvalue
    assert 0.05 / 10 < p < 0.05
    alone = {key: runs for key, runs in points(**control(*shifts)).items() if key[1] == 0.5}
    assert "better on these images" in accuracy_findings(study_table(alone))
    rng = np.random.default_rng(0)
    more = {(f"same_cost{n}(random)", 0.5): [(0.9, r + rng.normal(0, 0.05)) for _, r in HALF] for n in range(9)}
    many = accuracy_findings(study_table(alone | more))
    assert "better on these images" not in many
    assert "over 10 comparisons together" in many
    tables = [study_table(alone), *(study_table({("random", 0.5): HALF, key: runs}) for key, runs in more.items())]
    apart = [t.assign(variant=f"way {n}", arm=f"way {n}: " + t["arm"]) for n, t in enumerate(tables)]
    for part in apart:
        part["arm"] = part["arm"].str.replace(r"same_cost\d", "same_cost", regex=True)
    across = accuracy_findings(pd.concat(apart, ignore_index=True))
    assert "better on these images" not in across
    assert across.count("over 10 comparisons together") == 1


def test_pairing_is_by_seed() -> None:
    """Seeds differ much more than arms do: only a paired test can see it."""
    full = [(0.9, 0.5), (0.9, 0.6), (0.9, 0.7), (0.9, 0.8)]
    half = [(0.9, r - 0.02 - 0.001 * seed) for seed, (_, r) in enumerate(full)]
    rival = [(0.9, r + 0.02 + 0.001 * seed) for seed, (_, r) in enumerate(half)]
    table = study_table({("random", 1.0): full, ("random", 0.5): half, ("same_cost(random)", 0.5): rival})
    shuffled = table.sample(frac=1.0, random_state=1)
    assert "worse on these images" in lines(accuracy_findings(shuffled))[2]
    assert stats.ttest_ind([r for _, r in half], [r for _, r in rival]).pvalue > 0.5


@pytest.mark.parametrize("seeds", [1, 2])
def test_no_verdict_with_few_seeds(seeds: int) -> None:
    few = {key: runs[:seeds] for key, runs in points(**control(0.01, 0.01, 0.01, 0.01)).items()}
    text = accuracy_findings(study_table(few))
    told = f"{seeds} of {seeds} seed{'s' * (seeds > 1)}"
    assert told in lines(text)[0]
    assert lines(text)[2].endswith(f"-1.0 points robust ({told}); no verdict: {seeds} seed{'s' * (seeds > 1)}.")
    assert "chance" not in text
    assert "Holm" not in text
    if seeds == 1:
        assert not re.search(r"\d \[", text)
        assert "interval" not in text


def test_a_diverged_run_is_counted_aloud() -> None:
    table = study_table({key: runs[:3] for key, runs in points(**control(0.03, 0.03, 0.05, 0.0)).items()})
    table.loc[(table["control"].notna()) & (table["seed"] == 2), ["status", "robust"]] = ["diverged", np.nan]
    text = lines(accuracy_findings(table))
    assert text[2].endswith("-3.0 points robust (2 of 3 seeds, 1 diverged left out); no verdict: 2 seeds.")
    # And if nothing is left, that is said as well.
    table.loc[table["control"].notna(), ["status", "robust"]] = ["diverged", np.nan]
    assert "0 of 3 seeds, 3 diverged left out); no verdict: no seed has both." in lines(accuracy_findings(table))[2]


def test_absent_controls_are_not_mentioned() -> None:
    text = accuracy_findings(study_table(points()))
    assert "against *" not in text
    assert len(lines(text)) == 4
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
    table.loc[(table["matched_fraction"] == 0.5) & (table["seed"] < 2), "status"] = "collapsed"
    table.loc[(table["matched_fraction"] == 0.5) & (table["seed"] == 3), "status"] = "diverged"
    last = lines(accuracy_findings(pd.concat([table, table[table["status"] == "collapsed"]])))[-3]
    assert "2 collapsed" in last
    assert "1 diverged" in last
    assert "Not every run" not in accuracy_findings(study_table(points()))


@pytest.mark.parametrize("where", [1.0, 0.5])
def test_a_run_without_a_test_does_not_hide_the_others(where: float) -> None:
    table = study_table(points())
    table.loc[(table["matched_fraction"] == where) & (table["seed"] == 3), ["clean", "robust"]] = np.nan
    text = accuracy_findings(table)
    assert "nan" not in text
    difference = (np.array(HALF) - np.array(FULL))[:3]
    assert interval(difference[:, 1]) in text
    if where == 1.0:
        assert f"{100 * np.mean(FULL[:3], axis=0)[1]:.1f} [" in lines(text)[0]
        assert "mean of 3 of 4 seeds" in lines(text)[0]
    assert "3 of 4 seeds, 1 not evaluated left out" in text


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
    here = "on these images, open for others"
    text = lines(pruner_findings(pruner_table(table)))
    assert text[:4] == [
        "- **50 % of the data**, 2 pruners:",
        f"  - against a static random subset: better beyond chance: none; better {here}: good (+5.7); "
        f"worse beyond chance: none; worse {here}: bad (-9.3 at 1.6x the cost); "
        "differences of means from -9.3 (bad) to +5.7 (good) points.",
        f"  - against all data, same cost: better beyond chance: none; worse beyond chance: none; worse {here}: "
        "good (-4.7), bad (-14.0); differences of means from -14.0 (bad) to -4.7 (good) points.",
        "  - choosing, or a first phase on all the data to choose by, takes more than 2 % of a full run's passes: "
        "bad (+0.30).",
    ]
    assert "over 4 comparisons together (Holm)" in text[-1]
    table.loc[(table["arm"] == "bad") & (table["seed"] == 2), ["status", "robust"]] = ["diverged", np.nan]
    against = lines(pruner_findings(pruner_table(table)))[1]
    assert "; no verdict: 2 seeds (1 pruner); " in against
    assert against.endswith("; bad: 2 of 3 seeds, 1 diverged left out.")
    two = lines(pruner_findings(pruner_table(table[table["seed"] < 2])))
    assert two[1] == (
        "  - against a static random subset: no verdict: 2 seeds (2 pruners); "
        "differences of means from -9.5 (bad) to +6.0 (good) points."
    )
    assert two[-1] == "No verdict rests on fewer than 3 seeds, or on seeds without spread."


def test_pruners_of_several_ways_are_held_against_the_random_subset_of_their_own() -> None:
    """As if each way had a table of its own, but for the correction over all comparisons."""
    reached = {"PGD": {"random": [0.60, 0.62, 0.61], "good": [0.66, 0.68, 0.66]}, "TRADES": {"random": [0.5] * 3}}
    reached["TRADES"]["good"] = [0.55, 0.59, 0.57]
    tables = []
    for way, arms in reached.items():
        points = {(f"{way}: {arm}", 0.5): [(0.9, value) for value in values] for arm, values in arms.items()}
        tables.append(pruners_table({(f"{way}: random", 1.0): [(0.9, 0.8)] * 3, **points}, {}).assign(variant=way))
    both = pruner_table(pd.concat(tables, ignore_index=True)).set_index("pruner")
    for way, arms in reached.items():
        assert both.loc[f"{way}: good", "against_random"] == pytest.approx(
            np.mean(arms["good"]) - np.mean(arms["random"])
        )
        assert both.loc[f"{way}: random", "against_random_verdict"] == ""
    text = pruner_findings(both.reset_index())
    assert re.findall("### (.*)", text) == list(reached)
    assert text.count("- **50 % of the data**, 1 pruner:") == 2
    assert re.findall(r"against a static random subset: .*?(\w+ \([+-][\d.]+\))[;.]", text) == [
        "good (+5.7)",
        "good (+7.0)",
    ]
    assert "over 2 comparisons together (Holm)" in text


def test_what_choosing_takes_is_not_known_without_a_full_run() -> None:
    points = {(arm, 0.5): [(0.9, 0.6), (0.9, 0.61), (0.9, 0.63)] for arm in ("random", "cheap", "dear")}
    whole = {("random", 1.0): [(0.9, 0.8)] * 3}
    table = pruners_table(whole | points, {"dear": (300, 0.5)})

    def told(table: pd.DataFrame) -> str:
        (line,) = (line for line in lines(pruner_findings(pruner_table(table))) if "of a full run's passes" in line)
        return line.rpartition(": ")[2]

    assert told(table) == "dear (+0.30)."
    looked = table.assign(kept=np.where(table["arm"] == "dear", 100, table["kept"]))
    assert told(looked) == "dear (+0.30).", "which looks at them all, and trains on a part"
    more = looked.assign(images_visited=np.where(table["arm"] == "dear", 350, table["images_visited"]))
    assert told(more) == "none; what dear (+0.30) takes beyond the fraction is for images, more of which it trains on."
    assert told(pruners_table(whole | points, {})) == "none."
    assert told(table[table["fraction"] < 1]) == "not known (there is no full run)."
    # A run that did not get to its end has no cost.
    lost = table.assign(cost=table["cost"].where(table["arm"] != "cheap"))
    assert told(lost) == "dear (+0.30); not known of cheap."
    ended = lost["arm"] == "random"
    assert told(lost.assign(cost=lost["cost"].where(ended), robust=lost["robust"].where(ended))) == "not known."


def test_nothing_is_said_of_what_there_is_not() -> None:
    only_full = pruners_table({("random", 1.0): [(0.9, 0.8)]}, {})
    assert pruner_findings(pruner_table(only_full)) == "- No run of this study keeps less than all the data."
    never_tested = study_table({("random", 0.5): HALF, ("same_cost(random)", 0.5): HALF}).drop(
        columns=["clean", "robust"]
    )
    first, against, _, _ = lines(accuracy_findings(never_tested))
    assert first == "- **static random subset, 50 %**: no seed was evaluated."
    assert against.endswith("(0 of 4 seeds, 4 not evaluated left out); no verdict: no seed has both.")


def test_pairs_by_seed() -> None:
    text = pair_findings(trainers_table(WAYS), [["carried: random", "PGD-AT: random"]])
    first, second = lines(text)[:2]
    p = p_after_holm([0.01, 0.0, 0.02], [-0.10, -0.07, -0.07])
    assert f"at 100 %: {interval([0.01, 0.0, 0.02])} robust (3 of 3 seeds); not significant" in first
    assert f"at 40 %: {interval([-0.10, -0.07, -0.07])} robust (3 of 3 seeds); worse on these images" in second
    assert (first.endswith(f"{p[0]}."), second.endswith(f"{p[1]}.")) == (True, True)
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
    # Slowest against fastest: 8 / 5 and 10 / 4.
    assert half.endswith("a speed-up of 2.00 (1.60 to 2.50).")
    assert "2 timings" in last
    once = timing_table([("random", 1.0, 8.0), ("random", 0.5, 5.0)])
    half, last = lines(runtime_findings(study_table(points(), costs=costs), once))
    assert half.endswith("a speed-up of 1.60.")
    assert "one timing of each run, which does not tell how far a second would lie from it" in last


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
