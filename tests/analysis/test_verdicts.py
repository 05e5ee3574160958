"""Verdicts: by hand, against scipy, and how often they are false where nothing differs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from advprune_core.analysis.comparisons import Comparison, compare
from advprune_core.analysis.estimates import Estimate, detectable
from advprune_core.analysis.verdicts import (
    BETTER,
    BETTER_ALONE,
    BETTER_HERE,
    NO_VERDICT,
    UNDECIDED,
    WORSE,
    WORSE_ALONE,
    WORSE_HERE,
    how_judged,
    judge,
    method,
    planning,
)
from tests.analysis.test_comparisons import of
from tests.made_up import outcome_table, outcomes_of, seeded_runs, stacked

NAN = float("nan")


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
