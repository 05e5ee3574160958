"""What the two papers' abstracts claim (`said`) beside what was measured here, and whether it held in this setting."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from advprune_core.analysis.cells import component_settings, specification, with_accuracies
from advprune_core.analysis.convergence import by_seed, cost_to_reach, sooner
from advprune_core.analysis.estimates import Estimate, Signs, crossed_bootstrap, estimate, holm, sign_test
from advprune_core.analysis.labels import setting, trainings
from advprune_core.analysis.rivals import at_equal_robustness, deciding
from advprune_core.analysis.said import CLAIMS, Claim
from advprune_core.analysis.summaries import Point, attacks_of, seconds_ratio
from advprune_core.analysis.survival import lives_of, never_robust
from advprune_core.analysis.verdicts import LEVEL, both_outcomes, compare, runs_of, was_run
from advprune_core.models.base import MODELS
from advprune_core.study.archive import Missing
from advprune_core.trainers.controls import control_arm

K = TypeVar("K")
#: What a sign test says of the first of its pairs, if it says anything.
Says = Literal["lower", "higher"] | None

HELD, NOT_HELD, OPEN = "held", "not held", "cannot tell"
#: Of a claim that holds beside the full run, and may be owed to the run's being shorter.
AS_FEWER_EPOCHS = f"{HELD}, but not known to be sooner than fewer epochs at its cost"
NOTHING_TO_LOSE = f"{OPEN}: never robust on all the data either"
AS_FEWER_STEPS = f"{HELD} only as fewer steps: with as many, not known to collapse less"
NOT_MEASURED = "not measured"
#: Robust accuracy in [0, 1] that a run may lose and still count as robust as another; stated before the runs.
MARGIN = 0.02
#: A fall of robust accuracy on held-out images without which no run that collapsed had been robust before.
_FELL = 0.2


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
        both in points and as a share of what the run on all the data reaches; a speed-up if it is as large, in
        forward-equivalents and in processor seconds. A speed-up
        without loss, in forward-equivalents, is that of the cheapest pruned run whose robust accuracy is known to be
        within `MARGIN` of the reference's; where a run as cheap as claimed may be, nobody can tell. Convergence and
        reliability are judged by sign tests over seeds, those of a claim that ask the same together (Holm, 5 %):
        whether a part of the data is better than all of it, and then, whether it is so beside the control that is as
        short, or with as many steps. A way of training whose runs on all the data were never robust is no answer.
    """
    rows = []
    for claim in CLAIMS:
        table = tables.get(claim.study)
        measured, verdict = NOT_MEASURED, OPEN
        if claim.kind == "convergence" and claim.study in courses:
            measured, verdict = _sooner(claim, courses[claim.study])
        elif claim.kind == "reliability" and claim.study in lifetimes:
            measured, verdict = _fewer(claim, lifetimes[claim.study])
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
    if not was_run(table, claim.reference, 1.0):
        return NOT_MEASURED, OPEN
    if claim.kind == "speed-up without loss":
        return _without_loss(claim, table, missing=missing)
    assert claim.fraction is not None
    if not was_run(table, claim.reference, claim.fraction):
        return NOT_MEASURED, OPEN
    return _cheaper(claim, table) if claim.kind == "speed-up" else _lost(claim, table)


def _cheaper(claim: Claim, table: pd.DataFrame) -> tuple[str, str]:
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
        alone = all("timed_alone" in runs and runs["timed_alone"].all() for runs in (full, pruned))
        timed = f", {seconds:.2f}x in processor seconds{'' if alone else ' beside other work'}"
        told.append(f"{times:.2f}x in passes{'' if np.isnan(seconds) else timed} (pruned {when})")
        verdicts[when] = NOT_HELD if times < claim.number else HELD if seconds >= claim.number else OPEN
    if not told:
        return NOT_MEASURED, OPEN
    return "; ".join(told), _together(verdicts)


def _lost(claim: Claim, table: pd.DataFrame) -> tuple[str, str]:
    """What a part of the data loses of the full run's robust accuracy, in points and as a share of it."""
    assert claim.number is not None
    assert claim.fraction is not None
    arm, tested = claim.reference, table[table["robust"].notna()]
    found = compare(table, arm, arm, fraction=1.0, reference_fraction=claim.fraction)
    if not found.difference.seeds:
        return NOT_MEASURED, OPEN
    full, pruned = (runs_of(tested, arm, fraction) for fraction in (1.0, claim.fraction))
    seeds = full.index.intersection(pruned.index)
    points, share = found.over_images, estimate((1 - pruned["robust"] / full["robust"]).loc[seeds])
    outcomes = both_outcomes(pruned.loc[seeds], full.loc[seeds])
    if found.other_images is not None and outcomes is not None:
        low, high = crossed_bootstrap(*outcomes, relative=True)
        share = replace(share, low=-high, high=-low)
    in_points, in_share = (_at_most(loss, claim.number / 100) for loss in (points, share))
    verdict = in_points if in_points == in_share else f"{in_points} if points are meant, else {in_share}"
    return f"{points.text()} points, {share.text()} % of what was robust ({points.counted()})", verdict


def _at_most(loss: Estimate, said: float) -> str:
    return HELD if loss.high <= said else NOT_HELD if loss.low > said else OPEN


def _without_loss(claim: Claim, table: pd.DataFrame, *, missing: Collection[Missing]) -> tuple[str, str]:
    held_out = at_equal_robustness(table, reference=claim.reference, margin=MARGIN)
    ways = held_out["arm"].str.rpartition(": ")[0]
    pruned = held_out[ways.isin(claim.ways) & (held_out["fraction"] < 1)].sort_values("speed_up", ascending=False)
    if not len(pruned):
        return NOT_MEASURED, OPEN
    sure = pruned[[value is True for value in pruned["as_robust"]]]
    maybe = pruned[[value is None for value in pruned["as_robust"]]]
    best = f"{sure['speed_up'].iloc[0]:.2f}x ({sure['arm'].iloc[0]})" if len(sure) else "none known to be as robust"
    assert claim.number is not None
    if len(sure) and sure["speed_up"].iloc[0] >= claim.number:
        return best, HELD
    awaited = [
        point
        for point in missing
        if point.arm.rpartition(": ")[0] in claim.ways and point.control is None and point.fraction < 1
    ]
    whole = float(runs_of(table, claim.reference, 1.0)["cost"].mean())
    cheap = any(point.passes is None or whole / point.passes >= claim.number for point in awaited)
    undecided = cheap or bool((maybe["speed_up"] >= claim.number).any())
    told = [f"{best} so far" if awaited else best]
    as_cheap = pruned[pruned["speed_up"] >= claim.number]
    if len(as_cheap) or not len(sure):
        told.append(_most_robust(as_cheap if len(as_cheap) else pruned))
    return "; ".join(told), OPEN if undecided else NOT_HELD


def _most_robust(pruned: pd.DataFrame) -> str:
    """How much cheaper the most robust of some pruned runs is, and what it loses."""
    row = pruned.sort_values("difference").iloc[-1]
    lost, kept = deciding(row), f"{row['arm']}, {100 * row['fraction']:g} %"
    return f"at {row['speed_up']:.2f}x {lost.points()} ({kept}; {lost.counted()})"


def _sooner(claim: Claim, courses: pd.DataFrame) -> tuple[str, str]:
    """What parts of the data cost until they are near the full run's robustness, beside it and fewer epochs."""
    rows = cost_to_reach(courses).set_index(["arm", "fraction"])
    short = control_arm("same_cost", claim.reference)
    fractions = [f for arm, f in rows.index if arm == claim.reference and f < 1]
    runs = by_seed(courses)
    beside_full = {f: sooner(runs, (claim.reference, f), (claim.reference, 1.0)) for f in fractions}
    beside_short = {f: sooner(runs, (claim.reference, f), (short, f)) for f in fractions}
    if not fractions:
        return NOT_MEASURED, OPEN

    def told(point: Point) -> str:
        row = rows.loc[[point]].iloc[0]
        at = f" at {100 * row['cost']:.0f} %" if np.isfinite(row["cost"]) else ""
        return f"{row['reached']:.0f} of {row['seeds']:.0f} runs{at}"

    full, short_says = _says(beside_full), _says(beside_short)
    measured = [f"95 % of the full run's robustness, at which median part of its cost: {told((claim.reference, 1.0))}"]
    verdicts = {}
    for f in fractions:
        shorter = f", fewer epochs at the same cost {told((short, f))}" if beside_short[f] is not None else ""
        measured.append(f"on {100 * f:g} % {told((claim.reference, f))}{shorter}")
        says = {"lower": HELD, "higher": NOT_HELD, None: OPEN}[full[f]]
        verdicts[f"{100 * f:g} %"] = AS_FEWER_EPOCHS if says == HELD and short_says[f] != "lower" else says
    return "; ".join(measured), _together(verdicts)


def _says(tests: Mapping[K, Signs | None]) -> dict[K, Says]:
    """What sign tests say of the first of their pairs, together (Holm); nothing of a test that could not be made."""
    made = {name: test for name, test in tests.items() if test is not None}
    beyond = dict(zip(made, holm([test.p for test in made.values()]) <= LEVEL, strict=True))
    says: dict[K, Says] = dict.fromkeys(tests)
    for name, test in made.items():
        if beyond[name]:
            says[name] = "lower" if test.lower > test.higher else "higher"
    return says


def _fewer(claim: Claim, lifetimes: pd.DataFrame) -> tuple[str, str]:
    """How many runs collapse on a part of the data, beside all of it, and if they take as many steps."""
    assert claim.fraction is not None
    lives = lives_of(lifetimes)
    fell = {point: rows.set_index("seed")["collapse_steps"].notna() for point, rows in lives.items()}
    told, tests, verdicts, deepest = [], dict[tuple[str, str], Signs | None](), dict[str, str](), 0.0
    for arm in claim.ways:
        way, longer = arm.rpartition(": ")[0], control_arm("same_steps", arm)
        places = [(arm, 1.0), (arm, claim.fraction), (longer, claim.fraction)]
        runs = [fell.get(place) for place in places]
        if any(found is None for found in runs):
            return NOT_MEASURED, OPEN
        together = pd.concat(runs, axis=1, join="inner")  # seeds of all three
        full, pruned, as_long = (together.iloc[:, place] for place in range(3))
        counts = ", ".join(str(int(found.sum())) for found in (full, pruned, as_long))
        deepest = max(deepest, *(lives[place]["collapse_depth"].max() for place in places))
        best = [f"{100 * lives[place]['val_pgd_best'].median():.0f}" for place in places]
        told.append(f"{way} {counts} of {len(together)} (robust at best: {', '.join(best)} %)")
        verdicts[way] = NOTHING_TO_LOSE
        if not never_robust(lives[arm, 1.0]):
            tests[way, "pruned"], tests[way, "as long"] = sign_test(pruned, full), sign_test(as_long, full)
    says = _says(tests)
    verdicts |= {way: _of_way(says[way, "pruned"], says[way, "as long"]) for way, of in tests if of == "pruned"}
    share = f"{100 * claim.fraction:g} %"
    where = f"on all the data, on {share} of it, on {share} with as many steps"
    what = "collapsed" if deepest > _FELL else "learned the training attack alone"
    measured = f"{what}, {where}: {'; '.join(told)}; no run fell by more than "
    return f"{measured}{100 * deepest:.0f} points", _together(verdicts)


def _of_way(pruned: Says, as_long: Says) -> str:
    if pruned == "lower":
        return HELD if as_long == "lower" else AS_FEWER_STEPS
    return NOT_HELD if pruned == "higher" else OPEN


def _together(verdicts: Mapping[str, str]) -> str:
    """One verdict, or whose verdict each is: ``held (60 %, 40 %); not held (20 %)``."""
    found = dict.fromkeys(verdicts.values())
    if len(found) == 1:
        return next(iter(found))
    names = {verdict: [name for name, own in verdicts.items() if own == verdict] for verdict in found}
    return "; ".join(f"{verdict} ({' and '.join(own)})" for verdict, own in names.items())


def _setting(table: pd.DataFrame, claim: Claim) -> str:
    """Network, training, epochs and attacks of a claim's run on all the data; of one without a number, data as well."""
    arms = claim.ways if claim.kind == "reliability" else [claim.reference]
    runs = table[table["arm"].isin(arms) & (table["fraction"] == 1)]
    if not len(runs):
        return ""
    if claim.number is None:
        epochs = ", ".join(f"{count:g}" for count in runs["epochs"].unique())
        return f"{setting(runs).partition(';')[0]}, {epochs} epochs, PGD-10 on held-out images"
    run = runs.iloc[0]
    model = MODELS.parse(specification(run["model"]))
    network = ", ".join(f"{name} {value}" for name, value in model.model_dump().items())
    training = "".join(f", {way}" for way in trainings(runs))
    tested = [name for name in attacks_of(table) if pd.notna(run.get(f"robust_{name}"))]
    return f"{model.name} ({network}){training}, {run['epochs']:g} epochs, {tested[-1] if tested else 'not tested'}"
