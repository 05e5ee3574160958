"""Comparisons and verdicts: by hand, against scipy, and how often they are false where nothing differs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from advprune_core.analysis.estimates import Estimate, crossed_bootstrap, crossed_error, detectable
from advprune_core.analysis.seeds import was_run
from advprune_core.analysis.verdicts import (
    BETTER,
    BETTER_ALONE,
    BETTER_HERE,
    NO_VERDICT,
    UNDECIDED,
    WORSE,
    WORSE_ALONE,
    WORSE_HERE,
    Comparison,
    compare,
    compare_outcomes,
    how_judged,
    judge,
    method,
    on_one_seed,
    planning,
)
from advprune_core.attacks.evaluate import Outcome
from advprune_core.base.settings import ConfigError
from tests.made_up import outcome_table, outcomes_of, seeded_runs, stacked, study_table

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


@pytest.mark.parametrize(
    ("differences", "says"),
    [
        ([0.05], "no verdict: 1 seed"),
        ([0.01, 0.01], "no verdict: 2 seeds"),
        ([0.05, 0.06], "no verdict: 2 seeds"),
        ([0.03, 0.03, 0.03], "no verdict: no spread over 3 seeds"),
        ([0.0, 0.0, 0.0, 0.0], "no verdict: no spread over 4 seeds"),
        ([0.05, 0.06, 0.055], BETTER_HERE),
        ([-0.05, -0.06, -0.055], WORSE_HERE),
        ([0.05, -0.06, 0.02], UNDECIDED),
    ],
)
def test_verdicts_on_one_comparison(differences: list[float], says: str) -> None:
    b = [0.3, 0.41, 0.37, 0.52][: len(differences)]
    verdict = judge(
        {0: compare(of(a=[x + d for x, d in zip(b, differences, strict=True)], b=b), "a", "b", fraction=0.5)}
    )[0]
    assert verdict.says == says
    if says.startswith(NO_VERDICT):
        assert math.isnan(verdict.p)
        assert "Holm" not in verdict.text()
    else:
        assert verdict.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)
        assert (verdict.p <= 0.05) == (says != UNDECIDED)


def made(mean: float, p: float, p_images: float = NAN, seeds: int = 5) -> Comparison:
    return Comparison(Estimate(mean, mean - 0.01, mean + 0.01, seeds), 5, (), p, p_images)


@pytest.mark.parametrize(
    ("family", "says"),
    [
        # One alone at .02 is a finding, one of three is so by itself only: 3 x .02 = .06.
        ([made(0.1, 0.02, 0.02)], [BETTER]),
        ([made(0.1, 0.02, 0.02), made(0.1, 0.5, 0.5), made(0.1, 0.5, 0.5)], [BETTER_ALONE, UNDECIDED, UNDECIDED]),
        ([made(-0.1, 0.02, 0.03), made(0.1, 0.5, 0.5), made(0.1, 0.5, 0.5)], [WORSE_ALONE, UNDECIDED, UNDECIDED]),
        # By itself, too, it must hold over images, where they are known.
        ([made(0.1, 0.02, 0.06), made(0.1, 0.03), made(0.1, 0.5, 0.5)], [UNDECIDED, BETTER_ALONE, UNDECIDED]),
        # What allows no test does not count.
        ([made(-0.1, 0.02, 0.02), made(0.1, NAN, NAN, 2)], [WORSE, "no verdict: 2 seeds"]),
        # Over seeds 2 x .01; over images 2 x .03: here, and perhaps only here.
        ([made(0.1, 0.01, 0.03), made(-0.1, 0.01, 0.03)], [BETTER_HERE, WORSE_HERE]),
        # An outcome that is not known counts as one that shows nothing.
        ([made(0.1, 0.001, 0.03), made(-0.1, 0.001)], [BETTER_HERE, WORSE_HERE]),
    ],
)
def test_verdicts_of_a_family(family: list[Comparison], says: list[str]) -> None:
    assert [verdict.says for verdict in judge(dict(enumerate(family))).values()] == says


def test_the_p_value_is_that_of_the_test_which_the_verdict_rests_on() -> None:
    """Beside *on these images* a p value over images would speak against what it stands beside."""
    family = [made(0.1, 0.001, 0.002), made(0.1, 0.01, 0.9), made(-0.1, 0.02, 0.04), made(0.1, 0.3, 0.4)]
    told = [(verdict.says, verdict.p) for verdict in judge(dict(enumerate(family))).values()]
    over_seeds, over_images = ([0.004, 0.03, 0.04, 0.3], [0.008, 0.9, 0.12, 0.8])
    assert [says for says, _ in told] == [BETTER, BETTER_HERE, WORSE_HERE, UNDECIDED]
    expected = [over_images[0], over_seeds[1], over_seeds[2], over_images[3]]
    assert [p for _, p in told] == pytest.approx(expected)
    mirrored = [verdict.mirrored().says for verdict in judge(dict(enumerate(family))).values()]
    assert mirrored == [WORSE, WORSE_HERE, BETTER_HERE, UNDECIDED]


def test_the_text_of_a_verdict() -> None:
    verdicts = judge({"a": made(0.1, 0.01, 0.012), "b": made(-0.1, 1e-5, 1e-4)})
    assert verdicts["a"].text() == (
        "+10.0 points [+9.0, +11.0] robust (5 of 5 seeds); better beyond chance (Holm p = 0.012)"
    )
    assert verdicts["b"].text().endswith("; worse beyond chance (Holm p < 0.001)")
    assert "over 2 comparisons together (Holm)" in how_judged(verdict.says for verdict in verdicts.values())
    assert how_judged(["no verdict: 2 seeds"]) == "No verdict rests on fewer than 3 seeds, or on seeds without spread."
    assert how_judged([]) == ""


def test_how_much_the_seeds_can_show_is_said() -> None:
    found = compare(of(a=[0.51, 0.54, 0.52, 0.56, 0.53], b=[0.5] * 5), "a", "b", fraction=0.5)
    assert found.deviation == pytest.approx(np.std([1, 4, 2, 6, 3], ddof=1) / 100)
    least = 100 * detectable(found.deviation, 5)
    text = method(judge({0: found, 1: compare(of(a=[0.5, 0.6], b=[0.5, 0.5]), "a", "b", fraction=0.5)}).values())
    assert "What 5 seeds can show: on these test images, in a single test at 5 %, they find a true difference" in text
    assert f" of {least:.1f} points four times in five" in text
    assert "as differences deviate by 1.9 points from seed to seed; " in text
    wide = compare(of(a=[0.51, 0.64, 0.52, 0.66, 0.53], b=[0.5] * 5), "a", "b", fraction=0.5)
    both = planning([found, found, wide])
    assert "as differences deviate by 1.9 to 7.2 points from seed to seed (the median of these comparisons, the" in both
    assert f" of {least:.1f} to {100 * detectable(wide.deviation, 5):.1f} points four times in five" in both
    assert method([]) == planning([made(0.1, NAN, NAN, 2)]) == ""


def test_one_seed_is_paired_by_image_and_warns_of_other_seeds() -> None:
    ours = np.array([True] * 70 + [False] * 30)
    theirs = np.array([True] * 65 + [False] * 25 + [True] * 10)  # lacks 5 of ours, has 10 others
    low, high = stats.ttest_rel(ours.astype(float), theirs.astype(float)).confidence_interval()
    assert on_one_seed(ours, theirs, against="same_cost") == (
        f"-5.0 points [{100 * low:+.1f}, {100 * high:+.1f}] against same_cost over 100 test images, one seed: "
        "other seeds may differ by more"
    )
    assert on_one_seed(ours, ours, against="same_cost").startswith("+0.0 points against same_cost over 100")


def test_a_true_difference_is_found() -> None:
    a, b = outcomes_of(0.0, 0.05, arms=2, seeds=5, images=500, seed=0)
    b[:, :60] = False  # twelve points of a hundred, of each seed
    table = outcome_table({"a": a, "b": b, "c": b})
    verdicts = judge({pair: compare(table, *pair, fraction=0.5) for pair in [("a", "b"), ("b", "a"), ("b", "c")]})
    assert [verdict.says for verdict in verdicts.values()] == [BETTER, WORSE, "no verdict: no spread over 5 seeds"]


STUDIES = 400
AT_MOST = 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / STUDIES)


def false_verdicts(of_images: float, of_seeds: float, *, arms: int, seeds: int) -> tuple[float, float]:
    """Studies of equal arms and 100 images, in which any is called different: beyond chance, and at all."""
    found = []
    for study in range(STUDIES):
        outcomes = outcomes_of(of_images, of_seeds, arms=arms + 1, seeds=seeds, images=100, seed=study)
        table = outcome_table(dict(zip(map(str, range(arms + 1)), outcomes, strict=True)))
        verdicts = judge({n: compare(table, str(n), "0", fraction=0.5) for n in range(1, arms + 1)})
        said = {verdict.says for verdict in verdicts.values()}
        found.append([bool(said & {BETTER, WORSE}), bool(said & {BETTER, WORSE, BETTER_HERE, WORSE_HERE})])
    beyond_chance, at_all = np.mean(found, axis=0)
    return float(beyond_chance), float(at_all)


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "seeds"), [(1, 2), (1, 3), (5, 3)])
def test_false_verdicts_where_nothing_differs(arms: int, seeds: int) -> None:
    _, at_all = false_verdicts(0.0, 0.0, arms=arms, seeds=seeds)
    assert at_all <= (0 if seeds < 3 else AT_MOST)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "of_seeds"), [(3, 0.1), (3, 0.5), (5, 0.1), (10, 0.1)])
def test_false_verdicts_where_the_images_drawn_suit_some_arms(seeds: int, of_seeds: float) -> None:
    """Over other images the arms are equal; on these 100 they are not, and nothing more may be said."""
    beyond_chance, on_these = false_verdicts(0.6, of_seeds, arms=1 if seeds < 10 else 5, seeds=seeds)
    assert beyond_chance <= AT_MOST
    assert on_these > AT_MOST or seeds < 10


def test_three_seeds_suffice_for_a_difference_that_images_agree_on() -> None:
    """Ten points on 1,000 images, of every seed: images are many, and seeds hardly differ."""
    a, b = outcomes_of(0.6, 0.02, arms=2, seeds=3, images=1000, seed=1)
    b[:, :100] = False
    (verdict,) = judge({0: compare(outcome_table({"a": a, "b": b}), "a", "b", fraction=0.5)}).values()
    assert verdict.says == BETTER


@pytest.mark.parametrize(
    ("robust", "classes", "judged"),
    [((0.02, 0.09), 10, False), ((0.30, 0.09), 10, True), ((0.02, 0.09), 100, True), ((0.02, 0.09), None, True)],
)
def test_what_a_constant_answer_reaches_is_not_judged(
    robust: tuple[float, float], classes: int | None, judged: bool
) -> None:
    runs = [seeded_runs(arm, level) for arm, level in zip(("a", "b"), robust, strict=True)]
    table = stacked(*runs) if classes is None else stacked(*runs).assign(classes=classes)
    verdict = judge({0: compare(table, "a", "b", fraction=1.0)})[0]
    assert (verdict.says in {BETTER_HERE, WORSE_HERE}) == judged  # outcomes of images are not known
    assert ("constant answer" in verdict.text()) == (not judged)
    assert np.isnan(verdict.comparison.p) == (not judged)
