"""Whether a part of the data is sooner robust, and collapses less: claims that sign tests over seeds judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

import numpy as np
import pandas as pd

from advprune_core.analysis.convergence import by_seed, cost_to_reach, sooner
from advprune_core.analysis.estimates import Signs, holm, sign_test
from advprune_core.analysis.said import HELD, NOT_HELD, NOT_MEASURED, OPEN, Claim, together
from advprune_core.analysis.seeds import Point
from advprune_core.analysis.survival import lives_of, never_robust
from advprune_core.analysis.verdicts import LEVEL
from advprune_core.trainers.controls import control_arm

K = TypeVar("K")
#: What a sign test says of the first of its pairs, if it says anything.
Says = Literal["lower", "higher"] | None

#: Of a claim that holds beside the full run, and may be owed to the run's being shorter.
AS_FEWER_EPOCHS = f"{HELD}, but not known to be sooner than fewer epochs at its cost"
NOTHING_TO_LOSE = f"{OPEN}, as no run on all the data was ever robust either"
NEVER_ROBUST = f"{NOT_HELD}, as no run on the part was ever robust"
TOO_SHORT = f"{OPEN}: no run on the part was ever robust, but with as many steps they are not known to be worse"
FLAGGED_FROM_THE_START = f"{NOT_HELD}, as more runs on the part never were robust"
AS_FEWER_STEPS = f"{HELD} only as fewer steps: with as many, not known to collapse less"
AS_FEWER_STEPS_MORE = f"{OPEN}: more runs on the part, but not known to be more with as many steps"
#: A fall of robust accuracy on held-out images without which no run that collapsed had been robust before.
_FELL = 0.2


def sooner_claimed(claim: Claim, courses: pd.DataFrame) -> tuple[str, str]:
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

    full, short_says = (_says(tests, looks=claim.looks) for tests in (beside_full, beside_short))
    whole = told((claim.reference, 1.0))
    measured = [f"95 % of the full run's robustness reached, at a median share of its cost: {whole}"]
    verdicts = {}
    for f in fractions:
        shorter = f", fewer epochs at the same cost {told((short, f))}" if beside_short[f] is not None else ""
        measured.append(f"on {100 * f:g} % {told((claim.reference, f))}{shorter}")
        says = {"lower": HELD, "higher": NOT_HELD, None: OPEN}[full[f]]
        verdicts[f"{100 * f:g} %"] = AS_FEWER_EPOCHS if says == HELD and short_says[f] != "lower" else says
    return "; ".join(measured), together(verdicts)


def _says(tests: Mapping[K, Signs | None], *, looks: int) -> dict[K, Says]:
    """What sign tests say of the first of their pairs, together (Holm); nothing of a test that could not be made."""
    made = {name: test for name, test in tests.items() if test is not None}
    beyond = dict(zip(made, holm([test.p for test in made.values()]) <= LEVEL / looks, strict=True))
    says: dict[K, Says] = dict.fromkeys(tests)
    for name, test in made.items():
        if beyond[name]:
            says[name] = "lower" if test.lower > test.higher else "higher"
    return says


def fewer_claimed(claim: Claim, lifetimes: pd.DataFrame) -> tuple[str, str]:
    """How many runs end robust to their own attack alone, on a part of the data, on all of it, and with as many steps.

    After a fall (catastrophic overfitting), or from the start: robust against a stronger attack at no check.
    """
    assert claim.fraction is not None
    lives = lives_of(lifetimes)
    fell = {point: rows.set_index("seed")["collapse_steps"].notna() for point, rows in lives.items()}
    ways = {arm.rpartition(": ")[0]: arm for arm in claim.ways}
    told, tests, verdicts, deepest = [], dict[tuple[str, str], Signs | None](), dict.fromkeys(ways, OPEN), 0.0
    for way, arm in ways.items():
        places = [(arm, 1.0), *((each, claim.fraction) for each in _both(arm))]
        runs = [fell.get(place) for place in places]
        if any(found is None for found in runs):
            return NOT_MEASURED, OPEN
        shared = pd.concat(runs, axis=1, join="inner")  # seeds of all three
        full, pruned, as_long = (shared.iloc[:, place] for place in range(3))
        counts = " / ".join(str(int(found.sum())) for found in (full, pruned, as_long))
        deepest = max(deepest, *(lives[place]["collapse_depth"].max() for place in places))
        best = [f"{100 * lives[place]['val_pgd_best'].median():.0f}" for place in places]
        told.append(f"{way} {counts} of {len(shared)} ({' / '.join(best)} %)")
        if never_robust(lives[arm, 1.0]):
            verdicts[way] = NOTHING_TO_LOSE
            continue
        tests[way, "as long"] = sign_test(as_long, full)
        if not never_robust(lives[arm, claim.fraction]):
            tests[way, "pruned"] = sign_test(pruned, full)
    says = _says(tests, looks=claim.looks)
    for way, arm in ways.items():
        part, longer = (lives[point, claim.fraction] for point in _both(arm))
        if (way, "pruned") in tests:
            verdicts[way] = _of_way(says[way, "pruned"], says[way, "as long"])
            if verdicts[way] == NOT_HELD and never_robust(part[part["collapse_steps"].notna()]):
                verdicts[way] = FLAGGED_FROM_THE_START
        elif verdicts[way] != NOTHING_TO_LOSE:
            worse = says[way, "as long"] == "higher" or never_robust(longer)
            verdicts[way] = NEVER_ROBUST if worse else TOO_SHORT
    share = f"{100 * claim.fraction:g} %"
    where = f"on all the data / {share} of it / {share} with as many steps"
    height = "" if deepest > _FELL else f", from their start on: none falls by more than {100 * deepest:.0f} points"
    measured = f"runs that withstand their own attack alone, {where} (their best check, median)"
    return f"{measured}: {'; '.join(told)}{height}", together(verdicts)


def _both(arm: str) -> tuple[str, str]:
    """An arm, and its control with as many steps as the full run."""
    return arm, control_arm("same_steps", arm)


def _of_way(pruned: Says, as_long: Says) -> str:
    """Both ways the control with as many steps has to agree: a shorter run collapses less, and learns less."""
    if pruned == "lower":
        return HELD if as_long == "lower" else AS_FEWER_STEPS
    if pruned == "higher":
        return NOT_HELD if as_long == "higher" else AS_FEWER_STEPS_MORE
    return OPEN
