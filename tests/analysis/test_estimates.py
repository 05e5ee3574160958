"""Intervals, tests and corrections: against scipy, brute force, by hand and by simulation."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from advprune_core.analysis.estimates import (
    Estimate,
    accuracy,
    crossed_bootstrap,
    crossed_error,
    detectable,
    estimate,
    holm,
    power,
    seeds_for,
    sign_test,
    t_test,
)
from advprune_core.base.settings import ConfigError
from tests.made_up import outcomes_of

#: Pairs; how many are lower, higher; p by counting: of 2 ** n equally likely signs those as far from even.
PAIRS: list[tuple[list[float], list[float], tuple[int, int, float]]] = [
    ([1, 1, 1, 1, 1], [2, 2, 2, 2, 2], (5, 0, 2 / 2**5)),
    ([1, 1, 1, 3], [2, 2, 2, 2], (3, 1, 2 * (1 + 4) / 2**4)),
    ([1, 1, 3, 3], [2, 2, 2, 2], (2, 2, 1)),
    ([math.inf, 1, 1, math.inf], [math.inf, 2, math.inf, 5], (2, 1, 1)),  # never and never are equal
    ([7, 7], [7, 7], (0, 0, 1)),
    ([], [], (0, 0, 1)),
]


@pytest.mark.parametrize(("first", "second", "expected"), PAIRS)
def test_signs_of_pairs(first: list[float], second: list[float], expected: tuple[int, int, float]) -> None:
    found = sign_test(first, second)
    assert (found.lower, found.higher, found.pairs) == (*expected[:2], len(first))
    assert found.p == pytest.approx(expected[2])


VALUES = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=20)


@given(VALUES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_intervals_are_students(values: list[float], confidence: float) -> None:
    got = estimate(np.array(values), confidence)
    error = stats.sem(values)
    assert got.seeds == len(values)
    assert got.mean == pytest.approx(math.fsum(values) / len(values))
    if np.ptp(values) > 1e-6:
        low, high = stats.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=error)
        assert (got.low, got.high) == pytest.approx((low, high))
        # The interval says just which means a t test would not refuse.
        assert stats.ttest_1samp(values, got.high).pvalue == pytest.approx(1 - confidence, abs=1e-6)
        # And cut at 0 and 1, where a mean accuracy ends, it is that between them.
        within = accuracy(np.array(values))
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
        assert (within.low, within.high) == pytest.approx((max(low, 0), min(high, 1)))


@pytest.mark.parametrize(("difference", "seeds"), [(0.05, 3), (0.016, 10), (0.0, 5), (-0.02, 6)])
def test_power_is_how_often_students_test_shows_a_difference(difference: float, seeds: int) -> None:
    drawn = np.random.default_rng(0).normal(difference, 0.016, size=(20_000, seeds))
    found = stats.ttest_1samp(drawn, 0, axis=1)
    shown = ((found.pvalue <= 0.05) & (np.sign(found.statistic) == (np.sign(difference) or 1))).mean()
    assert power(difference, 0.016, seeds) == pytest.approx(shown, abs=0.01)


def test_what_seeds_show_and_how_many_it_takes() -> None:
    for seeds in (2, 3, 5, 20, 200):
        assert power(detectable(0.016, seeds), 0.016, seeds) == pytest.approx(0.8)
    needed = seeds_for(0.02, 0.016)
    assert power(0.02, 0.016, needed - 1) < 0.8 <= power(0.02, 0.016, needed)
    assert seeds_for(1e-6, 1.0, most=50) == 50


def test_an_interval_by_hand() -> None:
    # Mean 2, standard deviation 1, standard error 1 / sqrt(3), t(0.975, 2) = 4.302653.
    got = estimate(pd.Series([1.0, 2.0, 3.0]))
    assert got.mean == 2
    assert got.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert 2 - got.low == pytest.approx(got.high - 2)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.25], "25.0"),
        ([0.5, 0.5, 0.5], "50.0"),
        # The same difference three times, up to rounding: no spread either.
        ([0.65 - 0.60, 0.66 - 0.61, 0.75 - 0.70], "5.0"),
        ([0.97, 0.99], "98.0 [85.3, 100.0]"),
        ([0.01, 0.03], "2.0 [0.0, 14.7]"),
    ],
)
def test_no_interval_without_spread_and_none_beyond_all_or_nothing(values: list[float], text: str) -> None:
    assert accuracy(np.array(values)).text() == text
    assert math.isnan(estimate(np.array([])).mean)


TEXTS: list[tuple[Estimate, dict[str, Any], str]] = [
    (Estimate(0.751, 0.74, 0.762, 5), {}, "75.1 [74.0, 76.2]"),
    (Estimate(0.751, math.nan, math.nan, 1), {}, "75.1"),
    (Estimate(2.0, 1.5, 2.5, 3), {"scale": 1, "digits": 2}, "2.00 [1.50, 2.50]"),
    (Estimate(-0.01, -0.02, 0.0, 3), {}, "-1.0 [-2.0, 0.0]"),
]


@pytest.mark.parametrize(("value", "options", "text"), TEXTS)
def test_texts(value: Estimate, options: dict[str, Any], text: str) -> None:
    assert value.text(**options) == text


def test_an_estimate_of_a_tables_row() -> None:
    row = pd.Series({"robust": 0.5, "robust_low": 0.4, "robust_high": 0.6, "seeds": 3.0, "clean": 0.9})
    found = Estimate.of_row(row, "robust")
    assert found == Estimate(0.5, 0.4, 0.6, 3)
    assert found.counted() == "3 seeds"


def test_points() -> None:
    assert Estimate(-0.01, -0.02, 0.004, 3).points() == "-1.0 points [-2.0, +0.4]"
    assert Estimate(0.03, math.nan, math.nan, 2).points() == "+3.0 points"


@given(VALUES)
def test_p_values_are_those_of_the_t_test(values: list[float]) -> None:
    if np.ptp(values) > 1e-6:
        got = t_test(float(np.mean(values)), float(stats.sem(values)), len(values) - 1)
        assert got == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6)


def holm_by_closed_testing(p: list[float]) -> list[float]:
    """The largest Bonferroni p value of all the sets of hypotheses that one is in (Marcus et al. 1976)."""
    sets = [s for size in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), size)]
    return [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(len(p))]


@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.01, 0.025, 0.05])), min_size=1, max_size=7))
def test_holm_is_closed_testing_with_bonferroni(p: list[float]) -> None:
    assert holm(p).tolist() == pytest.approx(holm_by_closed_testing(p))


def test_holm_by_hand() -> None:
    # 4 x .005, 3 x .011 = .033, 2 x .02 = .04, and .04, which is no less.
    assert holm([0.02, 0.005, 0.04, 0.011]).tolist() == pytest.approx([0.04, 0.02, 0.04, 0.033])
    assert holm([]).tolist() == []


def test_what_was_not_tested_is_not_counted() -> None:
    nan = float("nan")
    assert holm([nan, 0.02, nan, 0.04]).tolist() == pytest.approx([nan, 0.04, nan, 0.04], nan_ok=True)
    assert np.isnan(holm([nan, nan])).all()


def unbiased_variance(d: np.ndarray) -> float:
    """Of the grand mean: its square less the mean product of cells that share neither row nor column."""
    rows, columns = d.shape
    products = [
        d[i, j] * d[k, m]
        for i, k in itertools.permutations(range(rows), 2)
        for j, m in itertools.permutations(range(columns), 2)
    ]
    return float(d.mean() ** 2 - np.mean(products))


@pytest.mark.parametrize("seed", range(8))
def test_the_crossed_error_is_that_of_drawing_rows_and_columns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    easy = rng.random(9) < 0.5  # images that the first gets right and the second mostly not
    first = (rng.random((4, 9)) < 0.7) | easy
    second = (rng.random((4, 9)) < 0.6) & ~easy
    d = first.astype(float) - second
    alone = d.mean(1).std(ddof=1) / 2
    expected = max(unbiased_variance(d), alone**2)
    error, freedom = crossed_error(first, second)
    assert error == pytest.approx(math.sqrt(expected))
    assert 0 < freedom < 3 + 8 + 24, "fewer than those of all mean squares"
    assert expected > alone**2, "a case in which images matter"
    assert crossed_error(second, first) == pytest.approx((error, freedom))


def test_the_crossed_error_is_never_below_that_over_seeds() -> None:
    # Each image once right and once wrong in turn: images do not differ at all.
    first = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1]], bool)
    second = np.zeros_like(first)
    assert crossed_error(first, second) == pytest.approx((stats.sem(first.mean(1)), 3))


def test_degrees_of_freedom_make_the_crossed_error_a_chi_squares() -> None:
    """Satterthwaite's are those of the chi square whose variance the squared error has: here over many layouts."""
    rng, seeds, images = np.random.default_rng(0), 6, 80
    found = []
    for suits in rng.random((1500, images)) < 0.5:  # the first, and the second not
        first, second = (rng.random((seeds, images)) < chance for chance in (0.2 + 0.6 * suits, 0.5))
        found.append(crossed_error(first, second))
    squared, freedom = np.array(found)[:, 0] ** 2, np.array(found)[:, 1]
    assert 2 * squared.mean() ** 2 / squared.var() == pytest.approx(np.median(freedom), rel=0.35)


def test_the_bootstrap_draws_rows_and_columns() -> None:
    first, second = outcomes_of(0.4, arms=2, seeds=6, images=40, seed=5)
    d, rng = first.astype(float) - second, np.random.default_rng(3)
    means = [d[rng.integers(0, 6, 5)][:, rng.integers(0, 40, 40)].mean() for _ in range(6000)]
    low, high = np.quantile(means, [0.025, 0.975])
    student = estimate(d.mean(1))
    got = crossed_bootstrap(first, second, resamples=6000)
    assert got == pytest.approx((min(low, student.low), max(high, student.high)), abs=0.01)
    assert got == crossed_bootstrap(first, second, resamples=6000), "the same arrays, the same interval"
    assert got[0] < student.low < student.high < got[1], "a case in which images are few"


@pytest.mark.parametrize("broadcast", [(slice(None), 0), (slice(None), slice(1)), (0, 0)], ids=str)
@pytest.mark.parametrize("over_both", [crossed_error, crossed_bootstrap])
def test_outcomes_of_other_seeds_are_refused(over_both: Callable[..., Any], broadcast: tuple[Any, Any]) -> None:
    """One run of the second would stand beside every seed of the first, as if it had been trained as often."""
    first, second = outcomes_of(0.4, arms=2, seeds=3, images=40, seed=5)
    with pytest.raises(ConfigError, match=r"both must be \(seeds, images\), of the same seeds and images"):
        over_both(first[broadcast[0]], second[broadcast[1]])
    with pytest.raises(ConfigError, match="both must be"):
        over_both(first, second[:, :1])


def test_what_has_no_error_is_nan_without_a_warning() -> None:
    first, second = outcomes_of(0.4, arms=2, seeds=3, images=40, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ours, theirs in ((first[:1], second[:1]), (first[:0], second[:0]), (first[:, :0], second[:, :0])):
            assert np.isnan(crossed_error(ours, theirs)).all()
            assert np.isnan(crossed_bootstrap(ours, theirs)).all()
        assert crossed_error(first, first) == pytest.approx((0.0, math.nan), nan_ok=True)
    assert crossed_bootstrap(first.tolist(), second.tolist()) == crossed_bootstrap(first, second)


def test_a_share_of_nothing_is_refused() -> None:
    first, second = outcomes_of(0.4, arms=2, seeds=3, images=40, seed=5)
    second[1] = False
    with pytest.raises(ConfigError, match="no image in some seed"):
        crossed_bootstrap(first, second, relative=True)


@pytest.mark.parametrize("values", [[50.0, 60.0, 70.0], [0.5, 1.01], [-0.1], [0.5, math.nan, 2.0]], ids=str)
def test_accuracies_are_fractions(values: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"is not in \[0, 1\]: accuracies are fractions of all images, not per cent"):
        accuracy(np.array(values))


def test_values_at_the_bounds_are_within_them_but_for_rounding() -> None:
    assert accuracy(np.array([1.0, 1.0 + 1e-12, 0.0, -1e-12])).mean == pytest.approx(0.5)
    with pytest.raises(ConfigError, match=r"5 is not in \[-1, 1\]"):
        estimate(np.array([0.2, 5.0]), bounds=(-1.0, 1.0))
    assert estimate(np.array([20.0, 50.0])).mean == 35, "any number, where no bounds are named"


@pytest.mark.parametrize("confidence", [95, 0, 1])
def test_a_confidence_is_a_share(confidence: float) -> None:
    first, second = outcomes_of(0.4, arms=2, seeds=3, images=40, seed=5)
    for told in (partial(estimate, first.mean(1)), partial(crossed_bootstrap, first, second)):
        with pytest.raises(ConfigError, match=f"confidence = {confidence}: a share between 0 and 1"):
            told(confidence)


def test_a_sign_test_is_of_pairs() -> None:
    with pytest.raises(ConfigError, match="3 and 1 values are no pairs"):
        sign_test([1, 2, 3], [2])


def test_the_relative_bootstrap_is_of_the_ratio() -> None:
    first, second = outcomes_of(0.4, arms=2, seeds=6, images=40, seed=5)
    rng, ratios = np.random.default_rng(3), []
    for _ in range(6000):
        rows, columns = rng.integers(0, 6, 5), rng.integers(0, 40, 40)
        ratios.append(first[rows][:, columns].mean() / second[rows][:, columns].mean() - 1)
    student = estimate(first.mean(1) / second.mean(1) - 1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    got = crossed_bootstrap(first, second, relative=True, resamples=6000)
    assert got == pytest.approx((min(low, student.low), max(high, student.high)), abs=0.025)


def test_the_bootstrap_never_falls_short_of_the_seeds() -> None:
    # Seeds differ by everything, images by nothing.
    first = np.zeros((3, 50), bool)
    first[2] = True
    student = estimate(first.mean(1), bounds=(-1, 1))
    assert crossed_bootstrap(first, np.zeros_like(first)) == (student.low, 1.0)


@pytest.mark.parametrize(("of_images", "of_seeds"), [(0.0, 0.0), (0.6, 0.1), (0.6, 0.5), (0.0, 0.5)])
@pytest.mark.parametrize(("seeds", "images"), [(3, 100), (10, 100), (5, 500)])
def test_the_crossed_interval_covers(seeds: int, images: int, of_images: float, of_seeds: float) -> None:
    """Two arms alike but for what seeds and images do to each: the interval holds 0 in 95 % of studies."""
    studies, covered = 600, 0
    for study in range(studies):
        first, second = outcomes_of(of_images, of_seeds, arms=2, seeds=seeds, images=images, seed=study)
        low, high = crossed_bootstrap(first, second)
        covered += low <= 0 <= high
    assert covered / studies > 0.95 - 3 * math.sqrt(0.95 * 0.05 / studies)


def test_no_seed_has_no_number() -> None:
    nothing = Estimate(float("nan"), float("nan"), float("nan"), 0)
    assert (nothing.text(), nothing.points()) == ("", "not known")
