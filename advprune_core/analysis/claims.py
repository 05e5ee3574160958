"""What the two papers' abstracts claim (`said`) beside what was measured here, and whether it held in this setting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from advprune_core.analysis.cells import specification, with_accuracies
from advprune_core.analysis.comparisons import compare
from advprune_core.analysis.estimates import Estimate, crossed_bootstrap, estimate
from advprune_core.analysis.labels import setting, trainings
from advprune_core.analysis.reliability import fewer_claimed, sooner_claimed
from advprune_core.analysis.said import CLAIMS, HELD, NOT_HELD, NOT_MEASURED, OPEN, Claim, so_far, together
from advprune_core.analysis.seeds import both_outcomes, points, runs_of, was_run
from advprune_core.analysis.speedups import cheaper, level, without_loss
from advprune_core.analysis.tested import attacks_of
from advprune_core.analysis.verdicts import (
    BETTER,
    BETTER_ALONE,
    BETTER_HERE,
    LEVEL,
    WORSE,
    WORSE_ALONE,
    WORSE_HERE,
    judge,
)
from advprune_core.analysis.ways import SAME_COST
from advprune_core.models.base import MODELS
from advprune_core.study.unfinished import Missing


def claims_table(
    tables: Mapping[str, pd.DataFrame],
    *,
    missing: Mapping[str, Collection[Missing]] = {},
    courses: Mapping[str, pd.DataFrame] = {},
    lifetimes: Mapping[str, pd.DataFrame] = {},
) -> pd.DataFrame:
    """Each claim with what was measured and a verdict in this setting.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        From `collect`, by name of the study; a claim whose study is not there is not measured.
    missing : mapping of str to collection of Missing
        Points without a result, by study: what none of the others reaches, one that is as cheap may.
    courses, lifetimes : mapping of str to DataFrame
        From `study.courses`, by study: what claims of convergence and of reliability are judged by.

    Returns
    -------
    DataFrame
        ``paper, claim, said, measured, verdict, setting``. A loss is *held* if the 95 % interval over seeds, and
        over test images where outcomes of these are known, lies at or below what was said, *not held* if above it,
        both in points and as a share of what the run on all the data reaches (where seeds were added after a look, by
        wider intervals, see `Claim`); a speed-up if it is as large, in
        forward-equivalents and in processor seconds. A speed-up
        without loss, in forward-equivalents, is that of the cheapest pruned run whose robust accuracy is known to be
        within `MARGIN` of the reference's, with an interval over all that are as cheap as claimed (Bonferroni); where
        one of these may be, nobody can tell, nor where the reference is never robust. Convergence and
        reliability are judged by sign tests over seeds, those of a claim that ask the same together (Holm, 5 %, or
        less where seeds were added):
        whether a part of the data is better than all of it, and then, whether it is so beside the control that is as
        short, or with as many steps. A way of training whose runs on all the data were never robust is no answer.
    """
    rows = []
    for claim in CLAIMS:
        table = tables.get(claim.study)
        measured, verdict = NOT_MEASURED, OPEN
        if claim.kind == "convergence" and claim.study in courses:
            measured, verdict = sooner_claimed(claim, courses[claim.study])
        elif claim.kind == "reliability" and claim.study in lifetimes:
            measured, verdict = fewer_claimed(claim, lifetimes[claim.study])
        elif table is not None:
            measured, verdict = _judged(claim, with_accuracies(table), missing=missing.get(claim.study, ()))
        rows.append(
            {
                "paper": claim.paper,
                "claim": claim.says,
                "said": claim.said,
                "measured": measured,
                "verdict": verdict,
                "setting": "" if table is None else _setting(table, claim),
            }
        )
    return pd.DataFrame(rows)


def _judged(claim: Claim, table: pd.DataFrame, *, missing: Collection[Missing]) -> tuple[str, str]:
    if claim.kind == "gain":
        return _gained(claim, table, missing=missing)
    if not was_run(table, claim.reference, 1.0):
        return NOT_MEASURED, OPEN
    if claim.kind == "speed-up without loss":
        return without_loss(claim, table, missing=missing)
    assert claim.fraction is not None
    if not was_run(table, claim.reference, claim.fraction):
        return NOT_MEASURED, OPEN
    return cheaper(claim, table) if claim.kind == "speed-up" else _lost(claim, table)


def _lost(claim: Claim, table: pd.DataFrame) -> tuple[str, str]:
    """What a part of the data loses of the full run's robust accuracy; with another schedule, too, if that was run."""
    assert claim.fraction is not None
    verdicts, told = dict[str, str](), list[str]()
    for arm, how in ((claim.reference, "its own schedule"), (claim.later, "the full run's schedule")):
        if was_run(table, arm, claim.fraction):
            text, verdicts[how] = _lost_by(claim, table, arm=arm)
            told.append(f"with {how} {text}" if told else text)
    return "; ".join(told), together(verdicts)


def _lost_by(claim: Claim, table: pd.DataFrame, *, arm: str) -> tuple[str, str]:
    """The loss of an arm, in points and as a share of what the full run reaches."""
    assert claim.number is not None
    assert claim.fraction is not None
    reference, tested = claim.reference, table[table["robust"].notna()]
    places = {"fraction": 1.0, "reference_fraction": claim.fraction}
    found, surer = (
        compare(table, reference, arm, **places, confidence=level) for level in (1 - LEVEL, 1 - LEVEL / claim.looks)
    )
    if not found.difference.seeds:
        return NOT_MEASURED, OPEN
    full, pruned = runs_of(tested, reference, 1.0), runs_of(tested, arm, claim.fraction)
    seeds = full.index.intersection(pruned.index)
    lost, of_all = found.over_images, level(full.loc[seeds])
    in_points = _at_most(surer.over_images, claim.number / 100)
    if not found.alike:
        return f"{lost.text()} points of {of_all} ({lost.counted()}), tested differently", OPEN
    if not full["robust"].loc[seeds].all():  # there is nothing to lose a share of
        never = "where a full run is not robust at all no share is known"
        return f"{lost.text()} points of {of_all} ({lost.counted()}; {never})", f"{in_points} if points are meant"
    shares = (1 - pruned["robust"] / full["robust"]).loc[seeds]
    outcomes = both_outcomes(pruned.loc[seeds], full.loc[seeds]) if found.other_images is not None else None
    share = _share(shares, outcomes, 1 - LEVEL)
    in_share = _at_most(_share(shares, outcomes, 1 - LEVEL / claim.looks), claim.number / 100)
    verdict = in_points if in_points == in_share else f"{in_points} if points are meant, else {in_share}"
    return f"{lost.text()} points of {of_all}, {share.text()} % of what was robust ({lost.counted()})", verdict


def _share(
    lost: pd.Series, outcomes: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None, confidence: float
) -> Estimate:
    """What is lost as a share of what was robust, over seeds, and over images where their outcomes are known."""
    share = estimate(lost, confidence)
    if outcomes is None:
        return share
    low, high = crossed_bootstrap(*outcomes, confidence, relative=True)
    return replace(share, low=-high, high=-low)


def _at_most(loss: Estimate, said: float) -> str:
    return HELD if loss.high <= said else NOT_HELD if loss.low > said else OPEN


def _gained(claim: Claim, table: pd.DataFrame, *, missing: Collection[Missing]) -> tuple[str, str]:
    """Whether any pruned run is more robust than the full one of its way of training, and cheaper."""
    tested = points(table[table["robust"].notna()])
    found, times = {}, {}
    for (arm, fraction), rows in tested.items():
        whole = _of_its_way(arm, claim.reference)
        if (whole, 1.0) not in tested or rows["control"].notna().any():
            continue
        times[arm, fraction] = float(tested[whole, 1.0]["cost"].mean() / rows["cost"].mean())
        if times[arm, fraction] > 1 + SAME_COST:
            found[arm, fraction] = compare(table, arm, whole, fraction=fraction, reference_fraction=1.0)
    verdicts = {point: verdict for point, verdict in judge(found).items() if not np.isnan(verdict.p)}
    if not verdicts:
        return NOT_MEASURED, OPEN
    # Of what is as robust, to a whole image, the cheapest.
    best = max(verdicts, key=lambda point: (round(verdicts[point].comparison.difference.mean, 9), times[point]))
    (arm, fraction), verdict = best, verdicts[best]
    said = Counter(other.says for other in verdicts.values())
    less = [said[BETTER_HERE] + said[BETTER_ALONE], said[WORSE_HERE] + said[WORSE_ALONE]]
    more = f", {less[0]} more better and {less[1]} more worse by themselves or on these images" * any(less)
    gain, full = verdict.comparison.over_images, tested[_of_its_way(arm, claim.reference), 1.0]
    told = (
        f"of {len(verdicts)} pruned and cheaper, beside the full run, {said[BETTER]} better and {said[WORSE]} worse "
        f"beyond chance{more}; the best {gain.points()} beside {level(full)} at {times[best]:.2f}x ({arm}, "
        f"{100 * fraction:g} %; {gain.counted()})"
    )
    if said[BETTER]:
        return told, HELD
    awaited = sum(point.control is None and point.fraction < 1 for point in missing)
    return told, so_far(NOT_HELD if said[WORSE] == len(verdicts) else OPEN, awaited)


def _of_its_way(arm: str, pruner: str) -> str:
    """The arm of a pruner in the way of training of another arm."""
    return "".join([*arm.rpartition(": ")[:2], pruner])


def _setting(table: pd.DataFrame, claim: Claim) -> str:
    """Network, training, epochs and attacks of a claim's runs on all the data; of one by checks, data as well."""
    arms = table["arm"].str.rpartition(": ")[2] if claim.kind == "gain" else table["arm"]
    runs = table[arms.isin(claim.ways if claim.kind == "reliability" else [claim.reference]) & (table["fraction"] == 1)]
    if not len(runs):
        return ""
    epochs = ", ".join(f"{count:g}" for count in runs["epochs"].unique())
    if claim.kind in ("convergence", "reliability"):
        return f"{setting(runs).partition(';')[0]}, {epochs} epochs, PGD-10 on held-out images"
    model = MODELS.parse(specification(runs["model"].iloc[0]))
    network = ", ".join(f"{name} {value}" for name, value in model.model_dump().items())
    training = "".join(f", {way}" for way in trainings(runs))
    # With another schedule some runs stood fewer attacks.
    tested = pd.concat([runs, table[(table["arm"] == claim.later) & (table["fraction"] == claim.fraction)]])
    last = [[name for name in attacks_of(table) if pd.notna(run.get(f"robust_{name}"))] for _, run in tested.iterrows()]
    attacks = " or ".join(dict.fromkeys(names[-1] for names in last if names)) or "not tested"
    sizes = sorted(tested["test_images"].dropna().unique()) if "test_images" in tested else []
    on = f" on {', '.join(f'{size:,.0f}' for size in sizes)} test images" * bool(len(sizes))
    return f"{model.name} ({network}){training}, {epochs} epochs, {attacks}{on}"
