"""Ways of training beside each other: what tells them apart in a table, what each costs, and which pays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from advprune_core.analysis.cells import (
    checked,
    component_name,
    setting_names,
    setting_numbers,
    settings,
    with_accuracies,
)
from advprune_core.analysis.estimates import accuracy
from advprune_core.analysis.seeds import planned_seeds, well_covered

#: Runs within this share of each other's cost cost the same.
SAME_COST = 0.05
#: Budgets of the same size end with a whole batch: by so much a run may cost less than another by rounding.
ROUNDING = 0.01


def way_of(table: pd.DataFrame) -> pd.Series:
    """Which way of training a row is of, where there are several; a table that was read from its CSV has gaps."""
    known = table["variant"].astype(object) if "variant" in table else pd.Series("", index=table.index, dtype=object)
    return known.where(known.notna(), "")


def ways(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each way of training with its rows, the arms named as if there were no other."""
    for way, rows in table.groupby(way_of(table), sort=False):
        yield str(way), rows.assign(arm=rows["arm"].str.removeprefix(f"{way}: ")) if way else rows


def way_labels(table: pd.DataFrame) -> pd.Series:
    """The way of training of each row; with several pruners or controls of one, the arm."""
    several = table.groupby(way_of(table))["arm"].nunique().max() > 1
    return table["arm"] if several or not way_of(table).any() else way_of(table)


def variants(table: pd.DataFrame) -> dict[str, str]:
    """The way of training of each of the `way_labels`, which may be arms."""
    return dict(zip(way_labels(table), way_of(table), strict=True))


def once(table: pd.DataFrame) -> pd.DataFrame:
    """Without the rows that repeat another arm's run on all the data: the first arm stands for all, controls too.

    For lists of arms, where it keeps its name. Where ways of training are judged beside each other, it is the way's:
    see `full_runs_once`.
    """
    return table[~((table["matched_fraction"] == 1) & table.duplicated("key"))]


def full_runs_once(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the runs on all the data that several arms of a way of training share once, as that way's.

    Where arms stand beside each other each of them would be judged against itself. Controls, which `once` drops as
    well, and what has no way of training stay.
    """
    of = way_of(table)
    full = (table["matched_fraction"] == 1) & table["control"].isna() & (of != "")
    runs = pd.DataFrame({"of": of, "key": table["key"]}).where(full)
    shared = full & runs.duplicated(keep=False)
    return table.assign(arm=table["arm"].mask(shared, of))[~(full & runs.duplicated())]


def full_costs(table: pd.DataFrame) -> pd.Series:
    """Forward-equivalents of the run on full data of each row's seed and way of training.

    What costs are shares of; where that run is missing, the mean of the others of its way; of a way of training that
    was not run on full data, the first one's that was. All of the row's own data set, threat model and network; NaN
    where there is none. Aligned with the table.
    """
    keys = pd.MultiIndex.from_arrays([setting_numbers(table), way_of(table), table["seed"]])
    full = pd.Series(table["cost"].to_numpy(), index=keys)[(table["matched_fraction"] == 1).to_numpy()]
    full = full[~full.index.duplicated()]
    own = pd.Series(full.reindex(keys).to_numpy(), index=table.index)
    for known, other in ((full.groupby(level=[0, 1]).mean(), 2), (full.groupby(level=[0, 2], sort=False).first(), 1)):
        own = own.fillna(pd.Series(known.reindex(keys.droplevel(other)).to_numpy(), index=table.index))
    return own


def whole_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs on all the data, no controls among them."""
    return table[(table["matched_fraction"] == 1) & table["control"].isna()]


def dearest_costs(table: pd.DataFrame) -> tuple[str, pd.Series] | None:
    """The way of training whose run on all the data costs most, and what that costs, for the seed of each row (where it
    has none, on average).

    By it costs of several ways can be compared, where by `full_costs` each is beside its own. None where all ways
    were run on all the data, and cost the same; and of more than one data set or threat model.
    """
    full = whole_runs(table)
    costs = full.groupby(way_of(full))["cost"].mean().dropna()
    if not len(costs):
        return None
    alone = costs.max() <= (1 + SAME_COST) * costs.min()
    if (alone and set(way_of(table)) <= set(way_of(full))) or len(settings(table)) > 1:
        return None
    runs = full[way_of(full) == costs.idxmax()].drop_duplicates("seed").set_index("seed")["cost"]
    return str(costs.idxmax()), table["seed"].map(runs).fillna(costs.max())


def frontier(table: pd.DataFrame, timings: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row for each way of training and fraction: accuracies, cost, and whether it pays.

    Parameters
    ----------
    table, timings : DataFrame
        From `collect` and `collect_timings` with a study.

    Returns
    -------
    DataFrame
        ``way`` (the variant; with several pruners or controls the arm), ``setting`` (data set and threat
        model, and the network where there are several), ``objective, start`` without their settings, ``steps`` of the
        attack, ``fraction, matched_fraction, control, seeds``, of those ``planned``; ``clean, robust`` in [0, 1],
        ``robust_low, robust_high`` (95 % t);
        ``cost_per_image`` in forward-equivalents per training image, ``cpu_seconds`` (median of
        the runs timed alone, else NaN); ``runs``: those that are known to have collapsed or not (see `checked`), and
        how many of them ``collapsed``, NaN where none is; ``on_frontier``: no mean of what costs as much (within
        1 %) or less in the same setting is as high (`well_covered` ones), which is no verdict.
    """
    table, rows = with_accuracies(table).assign(setting=setting_names(table)), []
    for (way, matched), group in table.groupby([way_labels(table), "matched_fraction"], sort=False):
        robust, known = accuracy(group["robust"].dropna()), group[checked(group)]
        alone = np.empty(0)
        if timings is not None and len(timings):
            alone = timings[timings["key"].isin(group["key"])]["cpu_seconds"].to_numpy()
        rows.append(
            {
                "way": way,
                "setting": group["setting"].iloc[0],
                "objective": component_name(group["objective"].iloc[0]),
                "start": component_name(group["start"].iloc[0]) if "start" in group else "",
                "steps": str(group["steps"].iloc[0]) if "steps" in group else "",
                "fraction": group["fraction"].iloc[0],
                "matched_fraction": matched,
                "control": bool(group["control"].notna().any()),
                "seeds": robust.seeds,
                "planned": planned_seeds(group, table),
                "clean": group["clean"].mean(),
                "robust": robust.mean,
                "robust_low": robust.low,
                "robust_high": robust.high,
                "cost_per_image": (group["cost"] / group["n"]).mean(),
                "cpu_seconds": float(np.median(alone)) if len(alone) else np.nan,
                "runs": len(known),
                "collapsed": int((known["status"] == "collapsed").sum()) if len(known) else np.nan,
            }
        )
    points = pd.DataFrame(rows)
    beaten, covered = [], well_covered(points["seeds"])
    for _, point in points.iterrows():
        rivals = points[(points["setting"] == point["setting"]) & covered]
        cost = rivals["cost_per_image"] / point["cost_per_image"]
        cheaper, dearer = cost < 1 / (1 + ROUNDING), cost > 1 + ROUNDING
        better, worse = (f(rivals["robust"], point["robust"]) for f in (np.greater, np.less))
        beaten.append(((~dearer & better) | (cheaper & ~worse & rivals["robust"].notna())).any())
    points["on_frontier"] = points["robust"].notna() & covered & ~np.array(beaten)
    return points
