"""From a study's table to the tables that people read: a row for each arm, way of training or pruner."""

from __future__ import annotations

import numpy as np
import pandas as pd

from advprune_core.analysis.cells import with_accuracies
from advprune_core.analysis.comparisons import compare
from advprune_core.analysis.estimates import Estimate, accuracy
from advprune_core.analysis.markup import escape
from advprune_core.analysis.seeds import planned_seeds, runs_of, was_run
from advprune_core.analysis.tested import attacks_of
from advprune_core.analysis.verdicts import Verdict, judge
from advprune_core.analysis.ways import dearest_costs, frontier, full_costs, once, variants, way_of, whole_runs
from advprune_core.trainers.controls import control_arm


def printable_ways(
    table: pd.DataFrame, timings: pd.DataFrame | None = None, *, reference: str = "PGD-AT"
) -> pd.DataFrame:
    """Ways of training as people read them: one row each, robust accuracy at every fraction.

    Costs are shares of the reference's on all data, or for each training image where it was not run, in
    forward-equivalents; and processor seconds of the runs that were timed alone.
    """
    points = frontier(table, timings)
    of_reference = [way for way, variant in variants(table).items() if reference in (way, variant)]
    base = points[points["way"].isin(of_reference) & (points["matched_fraction"] == 1)]["cost_per_image"]
    rows = []
    for way, group in points.groupby("way", sort=False):
        full = group[group["matched_fraction"] == 1].iloc[0]
        row: dict[str, object] = {"way of training": way}
        row |= {"threat model": full["setting"]} if points["setting"].nunique() > 1 else {}
        if len(base):
            row |= {f"cost / {reference}": _number(full["cost_per_image"] / base.iloc[0], 2)}
        else:
            row |= {"cost / training image": _number(full["cost_per_image"], 0)}
        row |= {"seconds": _number(full["cpu_seconds"], 1), "clean, %": _number(100 * full["clean"], 1)}
        for _, point in group.sort_values("matched_fraction", ascending=False).iterrows():
            value = Estimate.of_row(point, "robust").text()
            if (seeds := _seeds(point)) != str(planned_seeds(table, table)):
                value = f"{value} ({seeds} seeds)".strip()
            row[f"robust at {100 * point['matched_fraction']:g} %"] = value
        rows.append(row)
    return _filled(rows)


def pruner_table(table: pd.DataFrame, *, random: str = "random") -> pd.DataFrame:
    """One row for each pruner and fraction below 1: what it reaches, beats, and costs to select.

    Returns
    -------
    DataFrame
        ``pruner`` (the arm), ``fraction, seeds``; ``clean, robust`` in [0, 1]; ``against_random`` and
        ``against_same_cost``: paired differences in robust accuracy from the pruner `random` of the same way of
        training at the fraction, and from all data at the cost of this pruner, with ``_low, _high``, ``_deviation``
        (of seeds), ``_pairs`` (``2 of 3 seeds, 1 diverged left out``), ``_p`` (Holm, over all differences
        of this table) and ``_verdict``; ``headroom``, the share of the way from the one mean to the other (of
        the seeds that all have);
        ``cost``, of the full run's, in passes, and ``cost_seconds``: the same with selection counted
        in processor seconds of the run's own training, so that it holds on a busy machine; what all
        selections cost in epochs of training on all data, in passes and in processor seconds;
        ``n_filled``; ``step_ratio``; ``keeps_more``: whether it trains on more images than
        the fraction, at last at least.
    """
    table, rows = with_accuracies(table), []
    shares = table["cost"] / full_costs(table)
    runs = table[table["control"].isna() & (table["fraction"] < 1)]
    verdicts = _against_rivals(table, runs, random)
    for (arm, fraction), group in runs.groupby(["arm", "fraction"], sort=False):
        at = float(group["fraction"].iloc[0])
        row: dict[str, object] = {"pruner": arm, "fraction": fraction}
        row |= {"seeds": int(group["robust"].notna().sum()), "clean": group["clean"].mean()}
        row |= {"robust": group["robust"].mean(), "headroom": np.nan}
        gain, rest = (verdicts.get((str(arm), at, name)) for name in ("against_random", "against_same_cost"))
        row |= _told("against_random", gain) | _told("against_same_cost", rest)
        if gain and rest:
            row["headroom"] = _headroom(table, str(arm), at, random)
        row["cost"] = shares[group.index].mean()
        if "cpu_seconds_train" in group:  # nowhere, if all runs failed
            training = shares[group.index] * group["passes_train"] / group["cost"]
            row["cost_seconds"] = (training * group["cost_seconds"] / group["cpu_seconds_train"]).mean()
        for unit, name in (("passes", "passes"), ("cpu_seconds", "seconds")):
            if f"{unit}_select" in group:
                epoch = group[f"{unit}_train"] / group["images_visited"] * group["n"]
                row[f"selection_{name}"] = (group[f"{unit}_select"].fillna(0) / epoch).mean()
        asked = 1.01 * group["fraction"] * group["n"]
        seen = group["images_visited"] > asked * group["epochs"]  # one that narrows batches sees no more
        row["keeps_more"] = bool(((group["kept"] > asked) & seen).any())
        row["n_filled"] = group["n_filled"].mean()
        row["step_ratio"] = group["step_ratio"].astype(float).mean()
        rows.append(row)
    return pd.DataFrame(rows)


def _against_rivals(table: pd.DataFrame, runs: pd.DataFrame, random: str) -> dict[tuple[str, float, str], Verdict]:
    """Each pruner at each fraction against its two rivals, where these were run."""
    asked = {}
    for arm, fraction in runs[["arm", "fraction"]].drop_duplicates().itertuples(index=False):
        for name, rival in zip(("against_random", "against_same_cost"), _rivals(arm, random), strict=True):
            if rival != arm and was_run(table, rival, fraction):
                asked[arm, fraction, name] = compare(table, arm, rival, fraction=fraction)
    return judge(asked)


def _rivals(arm: str, random: str) -> tuple[str, str]:
    """The arms that a pruner is held against: `random` of its way of training, and all the data at its cost."""
    return "".join([*arm.rpartition(": ")[:2], random]), control_arm("same_cost", arm)


def _headroom(table: pd.DataFrame, arm: str, fraction: float, random: str) -> float:
    """How far an arm is on the way from its one rival to the other, over the seeds that all three have."""
    own, *rivals = (runs_of(table, name, fraction)["robust"] for name in (arm, *_rivals(arm, random)))
    gain, rest = pd.concat([own - rival for rival in rivals], axis=1).dropna().to_numpy(np.float64).T.copy()
    room = gain.mean() - rest.mean() if len(gain) else 0.0
    return float(gain.mean() / room) if room > 0 else np.nan


def _told(name: str, verdict: Verdict | None) -> dict[str, object]:
    """The columns of one difference."""
    if verdict is None:  # no rival
        numbers = dict.fromkeys((name, *(f"{name}_{what}" for what in ("low", "high", "deviation", "p"))), np.nan)
        return numbers | {f"{name}_pairs": "", f"{name}_verdict": ""}
    found = verdict.comparison.difference
    return {
        name: found.mean,
        f"{name}_low": found.low,
        f"{name}_high": found.high,
        f"{name}_deviation": verdict.comparison.deviation,
        f"{name}_pairs": verdict.comparison.pairs(),
        f"{name}_p": verdict.p,
        f"{name}_verdict": verdict.says,
    }


def speed_ups(runs: pd.DataFrame, timings: pd.DataFrame) -> pd.DataFrame:
    """Speed-up against the full run of the same seed, in forward-equivalents and in seconds.

    Returns
    -------
    DataFrame
        ``arm, fraction, cost, speed_up_passes, cpu_seconds, seconds_ratio, speed_up_seconds``:
        `cost` and `seconds_ratio` relative to the full run; seconds are medians over the timings
        alone and NaN where there are none, or where device or threads differ. ``timings``: so many
        of the run and of the full one, the lesser number; ``speed_up_seconds_low, _high``: of the slowest
        against the fastest of them and the reverse, NaN with a single one and for the full run.
    """
    shares = runs["cost"] / full_costs(runs)
    rows = []
    for (arm, fraction), group in runs.groupby(["arm", "fraction"], sort=False):
        share = float(shares[group.index].mean())
        row: dict[str, object] = {"arm": arm, "fraction": fraction, "cost": share, "speed_up_passes": 1 / share}
        row |= dict.fromkeys(("cpu_seconds", "seconds_ratio", "speed_up_seconds"), np.nan)
        row |= {"speed_up_seconds_low": np.nan, "speed_up_seconds_high": np.nan, "timings": 0}
        if len(timings):
            own = timings[(timings["arm"] == arm) & (timings["fraction"] == fraction)]
            whole = timings[(timings["fraction"] == 1) & (way_of(timings) == way_of(group).iloc[0])]
            places = pd.concat([own, whole])[["device", "threads"]].drop_duplicates()
            if len(own) and len(whole) and len(places) == 1:
                seconds, reference = own["cpu_seconds"].median(), whole["cpu_seconds"].median()
                row |= {
                    "cpu_seconds": seconds,
                    "seconds_ratio": seconds / reference,
                    "speed_up_seconds": reference / seconds,
                    "timings": min(len(own), len(whole)),
                }
                if min(len(own), len(whole)) > 1 and fraction != 1:
                    row["speed_up_seconds_low"] = whole["cpu_seconds"].min() / own["cpu_seconds"].max()
                    row["speed_up_seconds_high"] = whole["cpu_seconds"].max() / own["cpu_seconds"].min()
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["arm", "fraction"], ascending=[True, False], ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per arm and matched fraction: clean and robust accuracy, and the share of the full run's cost.

    Returns
    -------
    DataFrame
        Columns ``arm, fraction, matched_fraction, control, seeds, planned, clean, clean_low, clean_high, robust, ...,
        cost, speed_up``: `seeds` that were tested, of those `planned`; accuracies in [0, 1]; `cost` is the share of the
        full run's forward-equivalents, `speed_up` its inverse.
    """
    table = with_accuracies(table)
    shares = table["cost"] / full_costs(table)
    rows = []
    for (arm, matched), group in table.groupby(["arm", "matched_fraction"], sort=False):
        row: dict[str, object] = {
            "arm": arm,
            "fraction": group["fraction"].iloc[0],
            "matched_fraction": matched,
            "control": bool(group["control"].notna().any()),
            "seeds": group[group["robust"].notna()]["seed"].nunique(),
            "planned": planned_seeds(group, table),
        }
        for name in ("clean", "robust"):
            value = accuracy(group[name].dropna())
            row |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
        row["cost"] = shares[group.index].mean()
        row["speed_up"] = 1 / row["cost"] if row["cost"] else np.nan  # type: ignore[operator]
        rows.append(row)
    ordered = pd.DataFrame(rows)
    return ordered.sort_values(["arm", "matched_fraction"], ascending=[True, False], ignore_index=True)


def printable(table: pd.DataFrame) -> pd.DataFrame:
    """`summary` as people read it: per cent with intervals, worst class, cost as a share of the full run.

    The run on all the data that several arms share stands there once. Where ways of training cost differently, or some
    were not run on all the data, the cost is also told as a share of the dearest's.
    """
    rows, places, table = [], ["arm", "matched_fraction"], once(with_accuracies(table))
    ways = dict(zip(table["arm"], way_of(table), strict=True))
    with_full = set(way_of(whole_runs(table)))
    dearest = dearest_costs(table)
    of_all = None if dearest is None else (table["cost"] / dearest[1]).groupby([table[name] for name in places]).mean()
    worst = table.groupby(places)["worst_class_robust"].mean() if "worst_class_robust" in table else None
    for _, row in summary(table).iterrows():
        shown = {"arm": row["arm"], **_kept(row, table), "seeds": _seeds(row)}
        for name in ("clean", "robust"):
            shown[f"{name} accuracy, %"] = Estimate.of_row(row, name).text()
        if worst is not None:
            lowest = worst[row["arm"], row["matched_fraction"]]
            shown["its worst class, %"] = _number(100 * lowest, 1)
        if dearest is None:
            shown["cost / full run"] = _number(row["cost"], 3)
        elif of_all is not None:
            shown["cost / its full run"] = _number(row["cost"], 3) if ways[row["arm"]] in with_full else ""
            shown[f"cost / full run of {dearest[0]}"] = _number(of_all[row["arm"], row["matched_fraction"]], 3)
        rows.append(shown)
    return _filled(rows)


def _number(value: float, digits: int) -> str:
    """With so many digits; what is not known leaves its cell empty."""
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def _filled(rows: list[dict[str, object]]) -> pd.DataFrame:
    """A table of text without columns in which nothing stands."""
    table = pd.DataFrame(rows).fillna("")
    return table.loc[:, (table != "").any()]


def _kept(row: pd.Series, table: pd.DataFrame) -> dict[str, str]:
    """The share of the data that an arm keeps; where there are controls, also that of the run that one matches."""
    kept, matched = (f"{100 * row[name]:g} %" for name in ("fraction", "matched_fraction"))
    controls = {"matched run keeps": matched if row["control"] else ""} if table["control"].notna().any() else {}
    return {"data kept": kept, **controls}


def _seeds(row: pd.Series) -> str:
    """``5``, or ``4 of 5`` where a seed that was planned is not in the mean."""
    tested, planned = int(row["seeds"]), int(row["planned"])
    return str(tested) if tested == planned else f"{tested} of {planned}"


def after_attacks(table: pd.DataFrame) -> pd.DataFrame:
    """Which attack breaks what: per cent that is right after each attack of the test and all before it.

    Returns
    -------
    DataFrame of str
        ``arm, data kept, clean``, of controls ``matched run keeps``, and a column for each attack, parts by
        themselves; means over seeds.
    """
    columns = {"clean": "clean"} | {f"robust_{name}": name for name in attacks_of(table, parts=True)}
    table, rows = once(with_accuracies(table)), []
    means = table.groupby(["arm", "matched_fraction"])[list(columns)].mean()
    for _, row in summary(table).iterrows():
        shown = {"arm": row["arm"], **_kept(row, table)}
        here = means.loc[(row["arm"], row["matched_fraction"])]
        known = {name: here[column] for column, name in columns.items()}
        rows.append(shown | {name: _number(100 * value, 1) for name, value in known.items()})
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown, whatever its names are."""
    values = (list(table.columns), *table.astype(object).to_numpy().tolist())
    cells = [["" if pd.isna(value) else escape(str(value)) for value in row] for row in values]
    rows = [cells[0], ["---"] * len(table.columns), *cells[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
