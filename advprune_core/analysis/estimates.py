"""Means over seeds, their intervals and tests: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from advprune_core.base.settings import ConfigError

#: Values this close are the same: accuracies are whole images, and differences of floats are not exact.
SAME = 1e-9
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with a t interval.

    Attributes
    ----------
    mean, low, high : float
        `low` and `high` are NaN with fewer than two seeds, or where all seeds say the same: without
        spread there is nothing that an interval could be made of.
    seeds : int
    """

    mean: float
    low: float
    high: float
    seeds: int

    @classmethod
    def of_row(cls, row: pd.Series, name: str) -> Estimate:
        """That of a table's row, from its columns ``<name>, <name>_low, <name>_high`` and ``seeds``."""
        return cls(row[name], row[f"{name}_low"], row[f"{name}_high"], int(row["seeds"]))

    def text(self, scale: float = 100.0, digits: int = 1) -> str:
        """``75.1 [74.0, 76.2]``, or the mean alone; nothing of no seed."""
        if np.isnan(self.mean):
            return ""
        mean = f"{scale * self.mean:.{digits}f}"
        if np.isnan(self.low):
            return mean
        return f"{mean} [{scale * self.low:.{digits}f}, {scale * self.high:.{digits}f}]"

    def counted(self) -> str:
        """How many seeds: ``3 seeds``."""
        return f"{self.seeds} seed{'s' * (self.seeds != 1)}"

    def points(self) -> str:
        """A difference of accuracies in percentage points: ``+1.2 points [+0.2, +2.2]``."""
        if np.isnan(self.mean):
            return "not known"
        mean = f"{100 * self.mean:+.1f} points"
        return mean if np.isnan(self.low) else f"{mean} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def estimate(
    values: pd.Series | np.ndarray, confidence: float = 0.95, *, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate:
    """Mean of one value per seed, with Student's t interval.

    Parameters
    ----------
    values : Series or ndarray of shape (seeds,)
    confidence : float
        Between 0 and 1.
    bounds : (float, float)
        Of an accuracy or a difference of two, between which every value and so the true mean lies. The interval is
        cut there, which takes nothing from its coverage.

    Raises
    ------
    ConfigError
        A value beyond the bounds, as accuracies in per cent are; a confidence that is no share.
    """
    _check_confidence(confidence)
    x = np.asarray(values, dtype=np.float64)
    beyond = x[(x < bounds[0] - SAME) | (x > bounds[1] + SAME)]
    if len(beyond):
        low, high = bounds
        raise ConfigError(
            f"{beyond[0]:g} is not in [{low:g}, {high:g}]: accuracies are fractions of all images, not per cent"
        )
    nan = float("nan")
    if len(x) == 0:
        return Estimate(nan, nan, nan, 0)
    mean = float(x.mean())
    if not spread(x):
        return Estimate(mean, nan, nan, len(x))
    half = float(stats.t.ppf((1 + confidence) / 2, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Estimate(mean, max(mean - half, bounds[0]), min(mean + half, bounds[1]), len(x))


def accuracy(values: pd.Series | np.ndarray) -> Estimate:
    """Mean accuracy of one value in [0, 1] per seed; its 95 % interval stays within [0, 1].

    Raises
    ------
    ConfigError
        A value that is not in [0, 1].
    """
    return estimate(values, bounds=(0.0, 1.0))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence = {confidence:g}: a share between 0 and 1 is meant, as 0.95")


def spread(values: np.ndarray) -> bool:
    """Whether there are two seeds at least, and they do not all say the same."""
    return len(values) > 1 and float(np.ptp(values)) > SAME


def t_test(mean: float, error: float, freedom: float) -> float:
    """Two-sided p value of a mean against 0, with its standard error of so many degrees of freedom."""
    return float(2 * stats.t.sf(abs(mean) / error, freedom))


def power(difference: float, deviation: float, seeds: int) -> float:
    """How often a two-sided t test at 5 % over so many seeds shows a true difference, with its sign.

    Of the noncentral t distribution (Cohen 1988, chapter 2).

    Parameters
    ----------
    difference, deviation : float
        True mean of the differences of paired seeds, and their standard deviation.
    seeds : int
        At least two.
    """
    shift = abs(difference) / deviation * np.sqrt(seeds)
    return float(stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, shift))


def detectable(deviation: float, seeds: int, *, often: float = 0.8) -> float:
    """The true difference that a t test over so many seeds shows so often."""
    error = deviation / np.sqrt(seeds)  # the test of two seeds is nearly sure of 30 of them
    return float(optimize.brentq(lambda d: power(d, deviation, seeds) - often, 0, 30 * error))


def seeds_for(difference: float, deviation: float, *, often: float = 0.8, most: int = 1000) -> int:
    """The fewest seeds, from two to `most`, with which a t test shows a true difference so often."""
    return next((seeds for seeds in range(2, most) if power(difference, deviation, seeds) >= often), most)


def _crossed(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Outcomes of the same seeds and images: a single run of one would stand beside every seed of the other."""
    ours, theirs = np.asarray(first, dtype=np.float32), np.asarray(second, dtype=np.float32)
    if ours.ndim != 2 or ours.shape != theirs.shape:
        raise ConfigError(
            f"outcomes of shape {ours.shape} and {theirs.shape}: both must be (seeds, images), of the same seeds and "
            "images"
        )
    return ours, theirs


def crossed_error(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, float]:
    """Standard error of the difference of two mean accuracies over seeds and images, and its degrees of freedom.

    Both are drawn: the mean squares of a two-way layout without repetition give
    ``(MS_seeds + MS_images - MS_rest) / (seeds images)`` (Cornfield & Tukey 1956; Owen 2007, section 2),
    here never less than over the seeds alone, ``MS_seeds / (seeds images)``. The degrees of freedom of such a sum
    are Satterthwaite's (1946): those of the seeds where these differ most, many where images do.

    Parameters
    ----------
    first, second : ndarray of bool, shape (seeds, images)
        Whether each image is right, by seed; both have the same seeds and images.

    Returns
    -------
    error, freedom : float
        NaN with fewer than two seeds or images; only `freedom` where no outcome differs.

    Raises
    ------
    ConfigError
        Unequal shapes.
    """
    ours, theirs = _crossed(first, second)
    d = ours.astype(np.float64) - theirs
    seeds, images = d.shape
    if min(d.shape) < 2:
        return float("nan"), float("nan")
    by_seed, by_image = d.mean(1), d.mean(0)
    rest = d - by_seed[:, None] - by_image + d.mean()
    freedom = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    squares = np.array([images * by_seed.var(ddof=1), seeds * by_image.var(ddof=1), (rest**2).sum() / freedom[2]])
    if squares[1] <= squares[2]:  # no sign of images that differ
        squares[1:] = 0.0
    variance = squares[0] + squares[1] - squares[2]
    if variance == 0:
        return 0.0, float("nan")
    return float(np.sqrt(variance / d.size)), float(variance**2 / (squares**2 / freedom).sum())


def crossed_bootstrap(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    confidence: float = 0.95,
    *,
    relative: bool = False,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Percentile interval of the difference of two mean accuracies; seeds and images are drawn anew.

    Owen's pigeonhole bootstrap (2007): rows and columns of the layout are drawn independently of each
    other, here one seed fewer than there are, which takes the bias out of the variance between
    seeds. It counts the noise of single images thrice and so errs to the wide side; where seeds
    differ much and are few it is too narrow, as any bootstrap, and Student's interval over the
    seeds, which it never falls short of, takes over.

    Parameters
    ----------
    first, second : ndarray of bool, shape (seeds, images)
        Whether each image is right, by seed; both have the same seeds and images.
    confidence : float
        Between 0 and 1.
    relative : bool
        Of the difference as a share of the second accuracy, which must not be 0 in any seed.
    resamples : int
        From a generator with a fixed seed: the same arrays give the same interval.

    Returns
    -------
    low, high : float
        NaN with fewer than two seeds, as of `estimate`, or without images.

    Raises
    ------
    ConfigError
        Unequal shapes; a confidence that is no share; with `relative`, a seed whose second accuracy is 0.
    """
    _check_confidence(confidence)
    ours, theirs = _crossed(first, second)
    seeds, images = ours.shape
    if seeds < 2 or not images:
        return float("nan"), float("nan")
    if relative and not theirs.any(1).all():
        raise ConfigError("relative = True: the second is right on no image in some seed, so there is no share of it")
    drawn_seeds, drawn_images = _draws(seeds, seeds - 1, resamples), _draws(images, images, resamples).T

    def drawn(values: NDArray[np.float32]) -> NDArray[np.float64]:
        # Sums of whole numbers, exact in whatever order threads add them up: a page has the same digits everywhere.
        return np.einsum("bs,sb->b", drawn_seeds, values @ drawn_images).astype(np.float64)

    d = ours - theirs
    over, bound = (drawn(theirs), theirs.mean(1)) if relative else ((seeds - 1) * images, 1.0)
    low, high = np.quantile(drawn(d) / over, [(1 - confidence) / 2, (1 + confidence) / 2])
    student = estimate(d.mean(1) / bound, confidence, bounds=(-1.0, np.inf if relative else 1.0))
    return float(np.fmin(low, student.low)), float(np.fmax(high, student.high))


@lru_cache(maxsize=8)
def _draws(of: int, count: int, resamples: int) -> NDArray[np.float32]:
    """How often each `of` them is in `count` draws with replacement, shape (resamples, of)."""
    drawn = np.random.default_rng(0).multinomial(count, np.full(of, 1 / of), size=resamples)
    return drawn.astype(np.float32)


@dataclass(frozen=True)
class Signs:
    """What a sign test says of pairs.

    Attributes
    ----------
    lower, higher, pairs : int
        In how many the first is lower, in how many the second; how many there are, equal ones too.
    p : float
        Two-sided; 1 where all pairs are equal.
    """

    lower: int
    higher: int
    pairs: int
    p: float


def sign_test(first: Sequence[float] | pd.Series, second: Sequence[float] | pd.Series) -> Signs:
    """The exact sign test (Dixon & Mood 1946): it takes infinities, which mean *never*; equal pairs say nothing.

    Raises
    ------
    ConfigError
        Not as many of the one as of the other.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if a.shape != b.shape:
        raise ConfigError(f"{a.size} and {b.size} values are no pairs")
    lower, higher = int((a < b).sum()), int((a > b).sum())
    p = float(stats.binomtest(lower, lower + higher).pvalue) if lower + higher else 1.0
    return Signs(lower, higher, len(a), p)


def p_told(p: float, *, test: str = "Holm") -> str:
    """``(Holm p = 0.012)``, of a p value of this test, or so corrected."""
    return f"({test} p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})"


def holm(p: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """P values after Holm's step-down correction (1979); NaN stays NaN and counts for nothing."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)[: int(np.isfinite(values).sum())]  # NaN comes last
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
