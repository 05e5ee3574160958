"""How many times cheaper pruned runs are than full ones: at a fraction, and without losing more than a margin."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from advprune_core.analysis.cells import component_settings
from advprune_core.analysis.comparisons import compare
from advprune_core.analysis.rivals import at_equal_robustness, deciding, known_as_robust
from advprune_core.analysis.said import HELD, NOT_HELD, NOT_MEASURED, OPEN, Claim, so_far, together
from advprune_core.analysis.seconds import seconds_ratio, seconds_ratios
from advprune_core.analysis.seeds import as_a_constant, runs_of, well_covered
from advprune_core.analysis.verdicts import LEVEL
from advprune_core.study.unfinished import Missing

#: Robust accuracy in [0, 1] that a run may lose and still count as robust as another; stated before the runs.
MARGIN = 0.02


def cheaper(claim: Claim, table: pd.DataFrame) -> tuple[str, str]:
    """How many times what the pruned runs cost the full ones do; pruned from the start, and later."""
    assert claim.number is not None
    assert claim.fraction is not None
    tested = table[table["robust"].notna()]
    full, told, verdicts = runs_of(tested, claim.reference, 1.0), [], {}
    for arm in (claim.reference, claim.later):
        pruned = runs_of(tested, arm, claim.fraction)
        if not len(pruned):
            continue
        epochs = component_settings(pruned["pruner"].iloc[0]).get("warmup_epochs", 0)
        when = f"after {epochs} epochs" if epochs else "from the start"
        times, seconds = float((full["cost"] / pruned["cost"]).mean()), seconds_ratio(pruned, full)
        told.append(f"{times:.2f}x in passes{_timed(seconds, pruned, full)} (pruned {when})")
        verdicts[when] = NOT_HELD if times < claim.number else HELD if seconds >= claim.number else OPEN
    if not told:
        return NOT_MEASURED, OPEN
    return "; ".join(told), together(verdicts)


def without_loss(claim: Claim, table: pd.DataFrame, *, missing: Collection[Missing]) -> tuple[str, str]:
    """The cheapest pruned run that is known to be as robust, to the margin; else the most robust as cheap as said."""
    held_out = at_equal_robustness(table, reference=claim.reference, margin=MARGIN)
    ways, full = held_out["arm"].str.rpartition(": ")[0], runs_of(table, claim.reference, 1.0)
    pruned = held_out[ways.isin(claim.ways) & (held_out["fraction"] < 1)].sort_values("speed_up", ascending=False)
    if not len(pruned):
        return NOT_MEASURED, OPEN
    if as_a_constant(full):
        return f"no more robust on all the data than a constant answer ({level(full)})", OPEN
    assert claim.number is not None
    as_cheap = pruned[pruned["speed_up"] >= claim.number]
    known = [_as_robust(row, claim, table, of=len(as_cheap)) is True for _, row in as_cheap.iterrows()]
    if any(known):
        row = as_cheap[known].iloc[0]
        return f"{_times(row, table, full)} ({row['arm']})", HELD
    sure = pruned[[value is True for value in pruned["as_robust"]]]
    best = f"{_times(sure.iloc[0], table, full)} ({sure['arm'].iloc[0]})" if len(sure) else "none known to be as robust"
    awaited = [
        point
        for point in missing
        if point.arm.rpartition(": ")[0] in claim.ways and point.control is None and point.fraction < 1
    ]
    whole = float(full["cost"].mean())
    cheap = [point for point in awaited if point.passes is None or whole / point.passes >= claim.number]
    told = [f"{best} so far" if awaited else best]
    if len(as_cheap) or not len(sure):
        rows = as_cheap if len(as_cheap) else pruned
        row = rows[well_covered(rows["seeds"])].sort_values("difference").iloc[-1]
        lost = deciding(row)
        beside = f"{lost.points()} beside {level(full)} ({_point(row)}; {lost.counted()})"
        told.append(f"at {_times(row, table, full)}: {beside}")
        told += [_of_method(name, pruned, but=row, number=claim.number) for name in claim.methods]
    unpruned = [f"{way}: {claim.reference.rpartition(': ')[2]}" for way in claim.ways]
    itself = held_out[held_out["arm"].isin(unpruned) & (held_out["matched_fraction"] == 1)]
    for _, row in itself[itself["arm"] != claim.reference].iterrows():  # what this way of training loses itself
        lost, way = deciding(row), row["arm"].rpartition(": ")[0]
        told.append(f"{way} on all the data: {lost.points()} at {_times(row, table, full)} ({lost.counted()})")
    measured = "; ".join(filter(None, told))
    undecided = [row for _, row in as_cheap.iterrows() if _as_robust(row, claim, table) is not False]
    if undecided or (cheap and not len(as_cheap)):
        some = 0 < len(undecided) < len(as_cheap)  # if not, it is plain which
        return measured, OPEN + f", as {' and '.join(map(_point, undecided))} may be as robust" * some
    untried = [name for name in claim.methods if not any(_chosen_by(name, row) for _, row in as_cheap.iterrows())]
    but = f"; {' and '.join(untried)} {'was' if len(untried) == 1 else 'were'} not run so cheaply"
    return measured, so_far(NOT_HELD + but * bool(untried and len(as_cheap)), len(cheap))


def _of_method(name: str, pruned: pd.DataFrame, *, but: pd.Series, number: float) -> str:
    """What a method of the paper itself loses, where another pruned run was told: the best as cheap, or the cheapest.

    With how many times cheaper it is, in forward-equivalents.
    """
    own = pruned[[_chosen_by(name, row) for _, row in pruned.iterrows()]]
    if not len(own):
        return f"{name} was not run"
    as_cheap = own[own["speed_up"] >= number]
    row = as_cheap.sort_values("difference").iloc[-1] if len(as_cheap) else own.iloc[0]
    if _chosen_by(name, but):
        return ""
    return f"{_point(row)}, at {row['speed_up']:.2f}x: {deciding(row).points()} ({deciding(row).counted()})"


def _chosen_by(method: str, row: pd.Series) -> bool:
    """Whether a row of `at_equal_robustness` is of a pruner."""
    return str(row["arm"]).rpartition(": ")[2].split(" ")[0] == method


def _point(row: pd.Series) -> str:
    """A row of `at_equal_robustness`: ``TRADES: random, 20 %``."""
    return f"{row['arm']}, {100 * row['fraction']:g} %"


def _as_robust(row: pd.Series, claim: Claim, table: pd.DataFrame, *, of: int = 1) -> bool | None:
    """Whether a row of `at_equal_robustness` loses no more than the margin, as one of so many; None if not known."""
    places = {"fraction": row["matched_fraction"], "reference_fraction": 1.0}
    found = compare(table, row["arm"], claim.reference, **places, confidence=1 - LEVEL / (of * claim.looks))
    return known_as_robust(found, margin=MARGIN)


def _times(row: pd.Series, table: pd.DataFrame, full: pd.DataFrame) -> str:
    """How many times cheaper the runs of a row of `at_equal_robustness` are than the full ones, in both units."""
    pruned = runs_of(table, row["arm"], row["matched_fraction"])
    return f"{row['speed_up']:.2f}x in passes{_timed(row['speed_up_seconds'], pruned, full)}"


def _timed(seconds: float, *timed: pd.DataFrame) -> str:
    """How many times cheaper runs are in processor seconds, and whether these were taken alone; or why nobody knows."""
    if np.isnan(seconds):
        processors = [set(runs["run_device"].dropna()) for runs in timed if "run_device" in runs]
        apart = len(processors) > 1 and all(processors) and not set.intersection(*processors)
        return ", trained on other processors" * apart
    alone = all("timed_alone" in runs and runs["timed_alone"].all() for runs in timed)
    ours, theirs = timed
    seeds, known = len(ours.index.intersection(theirs.index)), int(seconds_ratios(ours, theirs).notna().sum())
    of = f" of {known} seed{'s' * (known > 1)}" * (known < seeds)
    return f", {seconds:.2f}x in processor seconds{'' if alone else ' beside other work'}{of}"


def level(runs: pd.DataFrame) -> str:
    """How robust runs are: ``29.9 %``."""
    return f"{100 * runs['robust'].mean():.1f} %"
