"""Two arms, or two lists of outcomes, beside each other: by hand and against scipy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from advprune_core.analysis.comparisons import compare, compare_outcomes, on_one_seed
from advprune_core.analysis.estimates import crossed_bootstrap, crossed_error
from advprune_core.analysis.seeds import was_run
from advprune_core.analysis.verdicts import (
    BETTER,
    BETTER_HERE,
    judge,
)
from advprune_core.attacks.evaluate import Outcome
from advprune_core.base.settings import ConfigError
from tests.made_up import outcome_table, outcomes_of, study_table

NAN = float("nan")


def of(**arms: list[float]) -> pd.DataFrame:
    """A study's table at 50 % from the robust accuracies of each arm, seed by seed."""
    return study_table({(arm, 0.5): [(1.0, value) for value in values] for arm, values in arms.items()})


def test_differences_are_paired_by_seed() -> None:
    table = of(a=[0.55, 0.56], b=[0.50, 0.54])
    got = compare(table, "a", "b", fraction=0.5)
    # 0.05 and 0.02: mean 0.035, standard error 0.015, t(0.975, 1) = 12.7062.
    assert got.difference.mean == pytest.approx(0.035)
    assert got.difference.high - 0.035 == pytest.approx(12.7062 * 0.015, rel=1e-4)
    assert (got.difference.seeds, got.planned, got.left_out) == (2, 2, ())
    other = compare(table, "b", "a", fraction=0.5).difference
    assert (other.mean, other.low, other.high) == pytest.approx((-0.035, -got.difference.high, -got.difference.low))
    shuffled = compare(table.sample(frac=1, random_state=0), "a", "b", fraction=0.5)
    assert shuffled.difference.mean == pytest.approx(0.035)


def test_a_part_of_the_data_against_all_of_it() -> None:
    table = study_table({("a", 1.0): [(1.0, 0.7), (1.0, 0.8)], ("a", 0.5): [(1.0, 0.6), (1.0, 0.75)]})
    assert compare(table, "a", "a", fraction=0.5, reference_fraction=1.0).difference.mean == pytest.approx(-0.075)


def test_the_test_is_the_paired_t_test() -> None:
    a, b = [0.55, 0.56, 0.61, 0.58], [0.50, 0.54, 0.57, 0.57]
    assert compare(of(a=a, b=b), "a", "b", fraction=0.5).p == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_images_are_crossed_with_seeds_where_their_outcomes_are_known() -> None:
    a, b = outcomes_of(0.5, arms=2, seeds=4, images=60, seed=2)
    got = compare(outcome_table({"a": a, "b": b}), "a", "b", fraction=0.5)
    error, freedom = crossed_error(a, b)
    assert got.p_images == pytest.approx(2 * stats.t.sf(abs(a.mean() - b.mean()) / error, freedom))
    assert got.p_images > got.p
    assert got.other_images == crossed_bootstrap(a, b)
    assert "; other images [" in got.text()
    unknown = outcome_table({"a": a, "b": b}).assign(outcomes=None)
    for table in (unknown, unknown.drop(columns="outcomes")):
        without = compare(table, "a", "b", fraction=0.5)
        assert without.p == pytest.approx(got.p)
        assert math.isnan(without.p_images)
        assert without.other_images is None
        assert "other images" not in without.text()


@pytest.mark.parametrize(
    ("status", "lost", "told"),
    [
        ("diverged", True, "2 of 3 seeds, 1 diverged left out"),
        ("failed", True, "2 of 3 seeds, 1 failed left out"),
        ("ok", True, "2 of 3 seeds, 1 not evaluated left out"),
        ("collapsed", False, "3 of 3 seeds"),
        (None, True, "2 of 3 seeds, 1 not run left out"),
    ],
)
@pytest.mark.parametrize("arm", ["a", "b"])
def test_missing_partners_are_counted_aloud(arm: str, status: str | None, lost: bool, told: str) -> None:
    table = of(a=[0.50, 0.56, 0.53], b=[0.53, 0.59, 0.50])
    run = (table["arm"] == arm) & (table["seed"] == 2)
    if status is None:
        table = table[~run]
    else:
        table.loc[run, "status"] = status
        table.loc[run, "robust"] = np.nan if lost else 0.0
    verdict = judge({0: compare(table, "a", "b", fraction=0.5)})[0]
    assert f"robust ({told})" in verdict.text()
    if lost:  # Two seeds that say the same: neither an interval nor a verdict.
        assert verdict.text() == f"-3.0 points robust ({told}); no verdict: 2 seeds"


def test_each_reason_has_its_count() -> None:
    table = of(a=[0.5] * 6, b=[0.4] * 6)
    table.loc[(table["arm"] == "a") & table["seed"].isin([0, 1]), ["status", "robust"]] = ["diverged", np.nan]
    table.loc[(table["arm"] == "b") & table["seed"].isin([1, 2]), ["status", "robust"]] = ["diverged", np.nan]
    table = table[~((table["arm"] == "b") & (table["seed"] == 5))]
    got = compare(table, "a", "b", fraction=0.5)
    assert got.pairs() == "2 of 6 seeds, 3 diverged, 1 not run left out"


def test_seeds_that_a_study_has_and_nobody_has_run_are_counted() -> None:
    """Or a look at a study that is under way would say that it is complete."""
    table = of(a=[0.5, 0.6, 0.55], b=[0.4, 0.5, 0.5])
    looked = compare(table.assign(study_seeds=5), "a", "b", fraction=0.5)
    assert looked.pairs() == "3 of 5 seeds, 2 not run left out"
    assert compare(table.assign(study_seeds=3), "a", "b", fraction=0.5).pairs() == "3 of 3 seeds"
    assert compare(table, "a", "b", fraction=0.5).pairs() == "3 of 3 seeds"


def test_of_an_arm_that_has_fewer_seeds_in_a_study_no_others_are_missed() -> None:
    table = of(a=[0.5, 0.6, 0.55, 0.5, 0.6], b=[0.4, 0.5, 0.5, 0.4, 0.4])
    table = table[~((table["arm"] == "b") & (table["seed"] > 2))]
    planned = table.assign(study_seeds=np.where(table["arm"] == "a", 5, 3))
    assert compare(planned, "a", "b", fraction=0.5).pairs() == "3 of 3 seeds"
    assert compare(planned, "b", "a", fraction=0.5).pairs() == "3 of 3 seeds"
    lost = planned[~((planned["arm"] == "b") & (planned["seed"] == 1))]
    assert compare(lost, "a", "b", fraction=0.5).pairs() == "2 of 3 seeds, 1 not run left out"
    lost = planned[~((planned["arm"] == "a") & (planned["seed"] == 1))]
    assert compare(lost, "a", "b", fraction=0.5).pairs() == "2 of 3 seeds, 1 not run left out"
    assert compare(table.assign(study_seeds=5), "a", "b", fraction=0.5).pairs() == "3 of 5 seeds, 2 not run left out"


@pytest.mark.parametrize("other", [{"robust_pgd20": NAN, "robust_pgd1": 0.5}, {"test_images": 200}], ids=str)
def test_what_was_tested_differently_has_no_verdict(other: dict[str, float]) -> None:
    table = of(a=[0.60, 0.62, 0.61], b=[0.40, 0.43, 0.40]).assign(robust_pgd20=0.5, robust_pgd1=NAN, test_images=100)
    assert judge({0: compare(table, "a", "b", fraction=0.5)})[0].says in (BETTER, BETTER_HERE)
    table.loc[table["arm"] == "b", list(other)] = list(other.values())
    verdict = judge({0: compare(table, "a", "b", fraction=0.5)})[0]
    assert verdict.says == "no verdict: not tested by the same attacks, on the same images"
    assert math.isnan(verdict.p)
    assert "+20.0 points" in verdict.text()


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (("a", "redom", 0.5), "unknown arm 'redom' (did you mean 'random'?); allowed: a, random"),
        (("redom", "a", 0.5), "unknown arm 'redom'"),
        (("a", "random", 0.4), "'a' has no run at fraction 0.4; allowed: 1, 0.5"),
        (("a", "random", 1.0), "'random' has no run at fraction 1; allowed: 0.5"),
    ],
)
def test_what_the_table_lacks_is_refused(places: tuple[str, str, float], message: str) -> None:
    """Or a misspelt arm would read as one that no seed was run of."""
    table = study_table({("a", 1.0): [(1, 0.6)], ("a", 0.5): [(1, 0.5)], ("random", 0.5): [(1, 0.4)]})
    first, second, fraction = places
    with pytest.raises(ConfigError, match=re.escape(message)):
        compare(table, first, second, fraction=fraction)
    assert (was_run(table, first, fraction) and was_run(table, second, fraction)) is False
    with pytest.raises(ConfigError, match=r"no arms: those are of a study, `collect\(study=...\)`"):
        compare(table.drop(columns="arm"), first, second, fraction=fraction)


def test_what_was_not_tested_has_no_difference() -> None:
    table = of(a=[0.5, 0.6], b=[NAN, NAN])
    got = compare(table, "a", "b", fraction=0.5)
    assert (got.difference.seeds, math.isnan(got.difference.mean)) == (0, True)
    assert judge({0: got})[0].says == "no verdict: no seed has both"


def test_accuracies_in_per_cent_are_refused() -> None:
    with pytest.raises(ConfigError, match="fractions of all images, not per cent"):
        compare(of(a=[50, 60], b=[40, 41]), "a", "b", fraction=0.5)


def found_by(outcomes: np.ndarray, *attacks: str) -> list[Outcome]:
    """What `evaluate` returns of networks of some seeds, of whose images so many withstand all the attacks."""
    return [Outcome(np.ones_like(right), dict.fromkeys(attacks, right)) for right in outcomes]


def test_outcomes_are_compared_as_a_table_of_them_is() -> None:
    a, b = outcomes_of(0.5, arms=2, seeds=4, images=61, seed=2)
    got = compare_outcomes(found_by(a, "pgd40"), tuple(found_by(b, "pgd40")), confidence=0.9)
    assert got == compare(outcome_table({"a": a, "b": b}), "a", "b", fraction=0.5, confidence=0.9)
    assert got.p == pytest.approx(stats.ttest_rel(a.mean(1), b.mean(1)).pvalue)
    assert got.other_images == crossed_bootstrap(a, b, 0.9)
    one = compare_outcomes(found_by(a[:1], "pgd40"), found_by(b[:1], "pgd40"))
    assert one.difference.mean == pytest.approx(a[0].mean() - b[0].mean())
    assert judge({0: one})[0].says == "no verdict: 1 seed"


def test_outcomes_under_other_attacks_have_no_verdict() -> None:
    a, b = outcomes_of(0.5, arms=2, seeds=4, images=61, seed=2)
    for other in (["pgd20"], ["pgd40", "fgsm"]):
        got = compare_outcomes(found_by(a, "pgd40"), found_by(b, *other))
        assert judge({0: got})[0].says == "no verdict: not tested by the same attacks, on the same images"


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (lambda found: found[0], "theirs must be a list of what `evaluate` returns"),
        (lambda found: [], "theirs must be a list of what `evaluate` returns"),
        (lambda found: [one.accuracy for one in found], "theirs must be a list of what `evaluate` returns"),
        (lambda found: found[:3], "4 outcomes and 3 are no pairs"),
        (lambda found: [*found[:3], *found_by(np.ones((1, 30), bool), "pgd40")], "of 30 and 61 images"),
    ],
)
def test_outcomes_that_are_no_pairs_are_refused(theirs: Callable[[list[Outcome]], Any], message: str) -> None:
    a, b = (found_by(right, "pgd40") for right in outcomes_of(0.5, arms=2, seeds=4, images=61, seed=2))
    with pytest.raises(ConfigError, match=message):
        compare_outcomes(a, theirs(b))


def test_one_seed_is_paired_by_image_and_warns_of_other_seeds() -> None:
    ours = np.array([True] * 70 + [False] * 30)
    theirs = np.array([True] * 65 + [False] * 25 + [True] * 10)  # lacks 5 of ours, has 10 others
    low, high = stats.ttest_rel(ours.astype(float), theirs.astype(float)).confidence_interval()
    assert on_one_seed(ours, theirs, against="same_cost") == (
        f"-5.0 points [{100 * low:+.1f}, {100 * high:+.1f}] against same_cost over 100 test images, one seed: "
        "other seeds may differ by more"
    )
    assert on_one_seed(ours, ours, against="same_cost").startswith("+0.0 points against same_cost over 100")
