"""Processor seconds of runs, where they can be compared."""

from __future__ import annotations

import numpy as np
import pandas as pd

#: Runs of which one differs have seconds that are not to be compared.
_PLACE = ["run_device", "threads", "speed"]


def seconds_ratio(ours: pd.DataFrame, theirs: pd.DataFrame) -> float:
    """How many times the processor seconds of our runs theirs take: a mean over the seeds that one machine has both of.

    NaN where there is none: seconds of two processors, of a GPU and a CPU or at two speeds say nothing together.
    """
    return float(seconds_ratios(ours, theirs).mean())


def seconds_ratios(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.Series:
    """The same of each of these seeds."""
    place = [name for name in _PLACE if name in ours and name in theirs]
    seeds = ours.index.intersection(theirs.index)
    ours, theirs = ours.loc[seeds], theirs.loc[seeds]
    same = (ours[place] == theirs[place]).all(axis=1)
    return (theirs["cost_seconds"] / ours["cost_seconds"])[same]


def mean_seconds(runs: pd.DataFrame) -> float:
    """Mean processor seconds of runs, NaN where they were not all trained on one device at one speed."""
    apart = any(runs[name].nunique(dropna=False) > 1 for name in _PLACE if name in runs)
    return np.nan if apart else float(runs["cost_seconds"].mean())
