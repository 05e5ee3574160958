"""Runs by arm and seed: those of a point, whether two can be paired, and what is enough of them to say anything."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from advprune_core.analysis.cells import check_arms
from advprune_core.attacks.evaluate import as_constant, unpack_bits
from advprune_core.base.settings import ConfigError, check_names

#: An arm at a fraction.
Point = tuple[str, float]
#: Fewer allow no verdict, and no place among the best.
MIN_SEEDS = 3


def points(table: pd.DataFrame, *, by: str = "matched_fraction") -> dict[Point, pd.DataFrame]:
    """The rows of each arm at each of its fractions, in order of appearance; `by`: the column of fractions."""
    check_arms(table)
    found = dict.fromkeys(zip(table["arm"], table[by], strict=True))
    return {(arm, fraction): table[(table["arm"] == arm) & (table[by] == fraction)] for arm, fraction in found}


def runs_of(table: pd.DataFrame, arm: str, fraction: float) -> pd.DataFrame:
    """The runs of an arm at a (matched) fraction, one for each seed."""
    return by_seed(table[(table["arm"] == arm) & (table["matched_fraction"] == fraction)])


def known_runs(table: pd.DataFrame, arm: str, fraction: float) -> pd.DataFrame:
    """`runs_of` an arm at a fraction that the table must have: of a misspelt one all seeds would count as not run.

    Raises
    ------
    ConfigError
        A table of no study; an arm, or a fraction of it, without any run.
    """
    check_arms(table)
    check_names([arm], table["arm"].unique() if len(table) else [], what="arm")
    runs = runs_of(table, arm, fraction)
    if not len(runs):
        known = sorted(table.loc[table["arm"] == arm, "matched_fraction"].unique(), reverse=True)
        raise ConfigError(f"{arm!r} has no run at fraction {fraction:g}; allowed: {', '.join(f'{f:g}' for f in known)}")
    return runs


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table, one for each seed: a run that several arms share stands there more than once."""
    return rows.drop_duplicates("seed").set_index("seed")


def planned_seeds(runs: pd.DataFrame, table: pd.DataFrame) -> int:
    """How many seeds a study has of some runs, those without one so far too; where that is not known, of its table."""
    known = runs["study_seeds"].max() if "study_seeds" in runs else np.nan
    return table["seed"].nunique() if pd.isna(known) else int(known)


def was_run(table: pd.DataFrame, arm: str, fraction: float) -> bool:
    """Whether there is any run of an arm at a (matched) fraction, however it ended."""
    return bool(((table["arm"] == arm) & (table["matched_fraction"] == fraction)).any())


def well_covered(seeds: pd.Series) -> pd.Series:
    """Which points have seeds enough to be ranked: `MIN_SEEDS`, or as many as any of them where none has.

    A mean of one seed that is the highest by chance would stand for all, and have no verdict.
    """
    return seeds >= min(MIN_SEEDS, seeds.max()) if len(seeds) else seeds.astype(bool)


def as_a_constant(runs: pd.DataFrame) -> bool:
    """Whether runs are robust for no more images than one class has, to a tenth: a constant answer is robust there."""
    return "classes" in runs and as_constant(float(runs["robust"].mean()), float(runs["classes"].min()))


def both_outcomes(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Whether each image is right in the runs of two arms, of the same seeds: each of shape (seeds, images).

    None where that is not known of all of them, or not of the same images, two at least.
    """
    first, second = _outcomes(ours), _outcomes(theirs)
    if first is None or second is None or first.shape != second.shape or first.shape[1] < 2:
        return None
    return first, second


def _outcomes(rows: pd.DataFrame) -> NDArray[np.bool_] | None:
    """Whether each image is right, shape (seeds, images); None where that is not known of all."""
    if "outcomes" not in rows or rows["outcomes"].isna().any() or rows["test_images"].nunique() != 1:
        return None
    count = int(rows["test_images"].iloc[0])
    return np.stack([unpack_bits(text, count) for text in rows["outcomes"]])


def why_unpaired(ours: pd.DataFrame, theirs: pd.DataFrame, seed: int) -> str:
    """Why a seed has no pair: what became of the run, or of the first of the two that is lacking."""
    rows = theirs if seed in ours.index and pd.notna(ours["robust"][seed]) else ours
    if seed not in rows.index:
        return "not run"
    status = str(rows["status"][seed])
    return "not evaluated" if status in ("ok", "collapsed") else status
