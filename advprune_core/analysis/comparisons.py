"""Two arms beside each other: robust accuracy by seed and by test image; a comparison knows no verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from advprune_core.analysis.estimates import Estimate, crossed_bootstrap, crossed_error, estimate, spread, t_test
from advprune_core.analysis.seeds import (
    MIN_SEEDS,
    as_a_constant,
    both_outcomes,
    known_runs,
    planned_seeds,
    why_unpaired,
)
from advprune_core.analysis.tested import equally_tested
from advprune_core.attacks.evaluate import Outcome, pack_bits
from advprune_core.base.settings import ConfigError


@dataclass(frozen=True)
class Comparison:
    """Robust accuracy of an arm minus its reference's, paired by seed.

    Attributes
    ----------
    difference : Estimate
        In the unit of the accuracy, with Student's interval: over seeds, on these test images.
    planned : int
        Seeds that the study has of both.
    left_out : tuple of (str, int)
        Why other seeds have no pair, and how many: ``("diverged", 1)``.
    p : float
        Of the paired t test over seeds; NaN where that is not possible.
    p_images : float
        The same with images drawn as seeds are, and never less: of few seeds the error is not well known. NaN, too,
        where outcomes of images are not known.
    other_images : (float, float), optional
        Interval of the crossed bootstrap, as that of the difference 95 % unless another one is asked for.
    deviation : float
        Standard deviation of the differences of seeds; NaN with fewer than `MIN_SEEDS`, or without spread.
    learned : bool
        Whether either is more robust than a constant answer; else the difference is judged by nobody.
    alike : bool
        Whether both were tested by the same attacks on as many images; else, too.
    """

    difference: Estimate
    planned: int
    left_out: tuple[tuple[str, int], ...] = ()
    p: float = float("nan")
    p_images: float = float("nan")
    other_images: tuple[float, float] | None = None
    deviation: float = float("nan")
    learned: bool = True
    alike: bool = True

    @property
    def over_images(self) -> Estimate:
        """The difference with the interval over seeds and test images, where outcomes of images are known."""
        if self.other_images is None:
            return self.difference
        low, high = self.other_images
        return replace(self.difference, low=low, high=high)

    def mirrored(self) -> Comparison:
        """The reference compared with the arm."""
        own, other = self.difference, self.other_images
        return replace(
            self,
            difference=Estimate(-own.mean, -own.high, -own.low, own.seeds),
            other_images=None if other is None else (-other[1], -other[0]),
        )

    def pairs(self) -> str:
        """``5 of 5 seeds``, or ``2 of 3 seeds, 1 diverged left out``."""
        seeds = f"{self.difference.seeds} of {self.planned} seed{'s' * (self.planned != 1)}"
        missing = ", ".join(f"{count} {reason}" for reason, count in self.left_out)
        return f"{seeds}, {missing} left out" if missing else seeds

    def text(self) -> str:
        """``+1.2 points [+0.2, +2.2] robust (5 of 5 seeds; other images [-0.1, +2.4])``."""
        images = ""
        if self.other_images is not None:
            low, high = self.other_images
            images = f"; other images [{100 * low:+.1f}, {100 * high:+.1f}]"
        return f"{self.difference.points()} robust ({self.pairs()}{images})"


def compare(
    table: pd.DataFrame,
    arm: str,
    reference: str,
    *,
    fraction: float,
    reference_fraction: float | None = None,
    confidence: float = 0.95,
) -> Comparison:
    """Compare the robust accuracy of two arms over the seeds that both have.

    Parameters
    ----------
    table : DataFrame
        From `collect` with a study; its seeds are those that every arm should have.
    arm, reference : str
    fraction, reference_fraction : float
        Share of the data that each keeps, a control: that the run it matches keeps; the reference's is the same
        unless given.
    confidence : float
        Of the intervals.

    Raises
    ------
    ConfigError
        A table of no study; an arm, or a fraction of it, without any run, with those that there are.
    """
    ours = known_runs(table, arm, fraction)
    theirs = known_runs(table, reference, fraction if reference_fraction is None else reference_fraction)
    tested = [set(rows["robust"].dropna().index) for rows in (ours, theirs)]
    paired = sorted(set.intersection(*tested))
    planned, asked = _planned(table, ours, theirs)
    left_out = Counter(why_unpaired(ours, theirs, seed) for seed in sorted(asked) if seed not in paired)
    if planned > len(asked):
        left_out["not run"] += planned - len(asked)
    differences = (ours.loc[paired, "robust"] - theirs.loc[paired, "robust"]).to_numpy(np.float64)
    difference = estimate(differences, confidence, bounds=(-1.0, 1.0))
    p, p_images, other_images, deviation = float("nan"), float("nan"), None, float("nan")
    learned = not (as_a_constant(ours.loc[paired]) and as_a_constant(theirs.loc[paired]))
    alike = equally_tested(ours.loc[paired], theirs.loc[paired])
    if len(paired) >= MIN_SEEDS and spread(differences) and learned and alike:
        deviation = float(differences.std(ddof=1))
        p = t_test(difference.mean, deviation / np.sqrt(len(paired)), len(paired) - 1)
        outcomes = both_outcomes(ours.loc[paired], theirs.loc[paired])
        if outcomes is not None:
            p_images = max(p, t_test(difference.mean, *crossed_error(*outcomes)))
            other_images = crossed_bootstrap(*outcomes, confidence)
    reasons = tuple(sorted(left_out.items()))
    return Comparison(difference, planned, reasons, p, p_images, other_images, deviation, learned, alike)


def compare_outcomes(ours: Sequence[Outcome], theirs: Sequence[Outcome], *, confidence: float = 0.95) -> Comparison:
    """Compare what `evaluate` found of networks that were trained in two ways, the first of each with one seed.

    Parameters
    ----------
    ours, theirs : sequence of Outcome
        One for each seed, in the same order of seeds; all of the same images, by the same attacks.
    confidence : float
        Of the intervals.

    Returns
    -------
    Comparison
        As of `compare`; ``judge({"pruned": comparison})`` gives the verdict. Of other attacks there is none.

    Raises
    ------
    ConfigError
        What is no list of outcomes; not as many of the one as of the other; other images.
    """
    runs = {"ours": ours, "theirs": theirs}
    for name, outcomes in runs.items():
        listed = isinstance(outcomes, list | tuple) and all(isinstance(outcome, Outcome) for outcome in outcomes)
        if not listed or not outcomes:
            raise ConfigError(f"{name} must be a list of what `evaluate` returns, an outcome for each seed")
    if len(ours) != len(theirs):
        raise ConfigError(f"{len(ours)} outcomes and {len(theirs)} are no pairs: one of each for every seed is wanted")
    if len(sizes := sorted({len(outcome.clean) for outcome in (*ours, *theirs)})) > 1:
        raise ConfigError(f"outcomes of {' and '.join(map(str, sizes))} images: all must be of the same ones")
    rows = [
        {"arm": name, "matched_fraction": 1.0, "seed": seed, "status": "ok", "robust": outcome.accuracy}
        | {f"robust_{label}": right.mean() for label, right in outcome.attacks.items()}
        | {"outcomes": pack_bits(outcome.robust), "test_images": len(outcome.clean)}
        for name, outcomes in runs.items()
        for seed, outcome in enumerate(outcomes)
    ]
    return compare(pd.DataFrame(rows), *runs, fraction=1.0, confidence=confidence)


def _planned(table: pd.DataFrame, ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[int, set[int]]:
    """How many seeds a study has of two points' runs, and which of them are known: of that which has fewer.

    A part of a study may have more seeds than another.
    """
    known = [(planned_seeds(runs, table), set(runs.index)) for runs in (ours, theirs)]
    fewest = min(count for count, _ in known)
    return fewest, set[int]().union(*(seeds for count, seeds in known if count == fewest))


def on_one_seed(ours: NDArray[np.bool_], theirs: NDArray[np.bool_], *, against: str) -> str:
    """What two runs of one seed show, where no test over seeds is possible: their difference, paired by test image.

    Parameters
    ----------
    ours, theirs : ndarray of bool, shape (images,)
        Whether each image is right; both have the same images.
    against : str
        What the other run is called.
    """
    difference = estimate(ours.astype(np.float64) - theirs, bounds=(-1.0, 1.0))
    on = f"over {len(ours):,} test images, one seed: other seeds may differ by more"
    return f"{difference.points()} against {against} {on}"
