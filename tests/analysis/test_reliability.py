"""Claims of convergence and reliability beside tables made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from advprune_core.analysis import claims
from advprune_core.analysis.claims import claims_table
from advprune_core.analysis.reliability import (
    AS_FEWER_EPOCHS,
    AS_FEWER_STEPS,
    AS_FEWER_STEPS_MORE,
    FLAGGED_FROM_THE_START,
    NEVER_ROBUST,
    NOTHING_TO_LOSE,
    TOO_SHORT,
)
from advprune_core.analysis.said import CLAIMS, HELD, NOT_HELD, OPEN

#: Rows of the table.
_CONVERGENCE, _RELIABILITY = ([claim.kind for claim in CLAIMS].index(kind) for kind in ("convergence", "reliability"))


def courses(costs: dict[tuple[str, float], list[float]]) -> pd.DataFrame:
    """Five checks of each seed, near the full run's robustness from such a part of its cost on (infinite: never)."""
    rows = [
        {"arm": f"PGD-AT: {arm}", "fraction": fraction, "seed": seed, "cost": at, "full_cost": 1.0, "full_val_pgd": 0.8}
        | {"val_pgd": 0.8 if at >= cost else 0.5}
        for (arm, fraction), found in costs.items()
        for seed, cost in enumerate(found)
        for at in (0.2, 0.3, 0.4, 0.5, 0.6)
    ]
    return pd.DataFrame(rows)


_FULL, _NEVER, _SHORTER = [0.5] * 10, [float("inf")] * 10, ("same_cost(random)", 0.6)


@pytest.mark.parametrize(
    ("at_60", "shorter", "expected"),
    [
        ([0.4] * 10, [0.5] * 10, HELD),
        ([0.4] * 10, None, AS_FEWER_EPOCHS),
        ([0.4] * 10, [0.4] * 10, AS_FEWER_EPOCHS),
        ([0.4] * 10, [0.3] * 10, AS_FEWER_EPOCHS),
        ([0.4] * 8 + [0.6] * 2, [0.5] * 10, OPEN),  # p = 0.11
        ([0.4] * 9 + [float("inf")], [0.5] * 10, HELD),  # p = 0.02; in two tests, that of equal runs being 1, 0.04
        ([0.6] * 10, [0.5] * 10, NOT_HELD),
        (_NEVER, _NEVER, NOT_HELD),
        ([0.4] * 5, [0.5] * 5, OPEN),  # five seeds are too few for any sign test
    ],
)
def test_convergence_is_judged_beside_the_full_run_and_fewer_epochs(
    monkeypatch: pytest.MonkeyPatch, at_60: list[float], shorter: list[float] | None, expected: str
) -> None:
    # As if all seeds had been there at the first look: the next test adds some.
    monkeypatch.setattr(claims, "CLAIMS", tuple(replace(claim, looks=1) for claim in CLAIMS))
    costs = {("random", 1.0): _FULL, ("random", 0.6): at_60} | ({} if shorter is None else {_SHORTER: shorter})
    study = "convergence_reliability"
    found = claims_table({}, courses={study: courses(costs)}).iloc[_CONVERGENCE]
    assert found["verdict"] == expected
    reached = sum(cost < float("inf") for cost in at_60)
    assert found["measured"].startswith(
        "95 % of the full run's robustness reached, at a median share of its cost: 10 of 10 runs at 50 %; on 60 % "
        f"{reached} of {len(at_60)} runs"
    )
    assert ("fewer epochs at the same cost" in found["measured"]) == (shorter is not None)
    # Another part, as soon as all the data: a verdict for each.
    both = costs | {("random", 0.2): _FULL[: len(at_60)]}
    found = claims_table({}, courses={study: courses(both)}).iloc[_CONVERGENCE]
    assert found["verdict"] == (OPEN if expected == OPEN else f"{expected} (60 %); {OPEN} (20 %)")


@pytest.mark.parametrize(("looks", "late", "expected"), [(1, 2, HELD), (2, 2, OPEN), (2, 1, HELD)])
def test_seeds_added_after_a_look_are_paid_for(
    monkeypatch: pytest.MonkeyPatch, looks: int, late: int, expected: str
) -> None:
    (claim,) = (replace(claim, looks=looks) for claim in CLAIMS if claim.kind == "convergence")
    monkeypatch.setattr(claims, "CLAIMS", (claim,))
    at_60 = [0.4] * (12 - late) + [float("inf")] * late  # p = 0.04 and 0.006; in two tests, that of equals being 1
    costs = {("random", 1.0): [0.5] * 12, ("random", 0.6): at_60, _SHORTER: [0.5] * 12}
    assert claims_table({}, courses={claim.study: courses(costs)})["verdict"].tolist() == [expected]


def lifetimes(collapsed: dict[tuple[str, float], int], *, runs: int = 30) -> pd.DataFrame:
    """So many of the runs of each point collapse, the first seeds of all."""
    rows = [
        {"arm": arm, "fraction": fraction, "seed": seed, "key": f"{arm}{fraction}{seed}", "status": "ok"}
        | {"objective": "single_step"}
        | {"optimiser_steps": 100, "collapse_steps": 50.0 if seed < count else float("nan"), "val_pgd_best": 0.4}
        | {"collapse_depth": 0.01 * seed}
        for (arm, fraction), count in collapsed.items()
        for seed in range(runs)
    ]
    return pd.DataFrame(rows)


_WAYS = ("FGSM", "Fast AT", "N-FGSM", "PGD-2")


@pytest.mark.parametrize(
    ("full", "pruned", "as_long", "expected"),
    [
        ((30, 30, 30, 30), (0, 0, 0, 0), (0, 0, 0, 0), HELD),
        ((30, 30, 30, 30), (0, 0, 0, 0), (30, 30, 30, 30), AS_FEWER_STEPS),
        ((30, 30, 30, 30), (30, 30, 30, 30), (0, 0, 0, 0), OPEN),
        ((0, 0, 0, 0), (30, 30, 30, 30), (30, 30, 30, 30), NOT_HELD),
        ((0, 0, 0, 0), (30, 30, 30, 30), (0, 0, 0, 0), AS_FEWER_STEPS_MORE),
        ((8, 0, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0), OPEN),  # p = 2 / 2 ** 7, times the 8 tests
        # Of each way what it shows; with as many steps the second collapses more.
        (
            (30, 0, 30, 0),
            (0, 30, 0, 0),
            (0, 30, 30, 0),
            f"{HELD} (FGSM); {NOT_HELD} (Fast AT); {AS_FEWER_STEPS} (N-FGSM); {OPEN} (PGD-2)",
        ),
        (
            (30, 0, 30, 0),
            (0, 0, 0, 0),
            (0, 0, 0, 0),
            f"{HELD} (FGSM and N-FGSM); {OPEN} (Fast AT and PGD-2)",
        ),
    ],
)
def test_reliability_is_judged_with_as_many_steps_too(
    full: tuple[int, ...], pruned: tuple[int, ...], as_long: tuple[int, ...], expected: str
) -> None:
    counts = {}
    for way, whole, part, longer in zip(_WAYS, full, pruned, as_long, strict=True):
        counts |= {(f"{way}: random", 1.0): whole, (f"{way}: random", 0.3): part}
        counts[f"{way}: same_steps(random)", 0.3] = longer
    found = claims_table({}, lifetimes={"collapse_by_fraction": lifetimes(counts)}).iloc[_RELIABILITY]
    assert found["verdict"] == expected
    assert f": FGSM {full[0]} / {pruned[0]} / {as_long[0]} of 30 (40 / 40 / 40 %); Fast AT" in (found["measured"])
    lives = lifetimes(counts)
    some = lives[(lives["seed"] < 10) | (lives["fraction"] == 1)]
    found = claims_table({}, lifetimes={"collapse_by_fraction": some}).iloc[_RELIABILITY]
    assert f": FGSM {min(full[0], 10)} / " in found["measured"], "seeds that all three have"
    assert " of 10 (40 / 40 / 40 %); Fast AT" in found["measured"]
    unfinished = lives[~lives["arm"].str.startswith("PGD-2: same")]
    found = claims_table({}, lifetimes={"collapse_by_fraction": unfinished}).iloc[_RELIABILITY]
    assert (found["measured"], found["verdict"]) == ("not measured", OPEN)


def test_what_is_flagged_from_the_start_lost_nothing() -> None:
    """More runs are flagged on the part, and of these none was ever robust: too short, not less reliable."""
    counts = {(f"{way}: {arm}", 0.3): 20 for way in _WAYS for arm in ("random", "same_steps(random)")}
    lives = lifetimes(counts | {(f"{way}: random", 1.0): 0 for way in _WAYS})
    part = (lives["arm"] == "Fast AT: random") & (lives["fraction"] == 0.3) & lives["collapse_steps"].notna()
    lives.loc[part, "val_pgd_best"] = 0.2
    found = claims_table({}, lifetimes={"collapse_by_fraction": lives}).iloc[_RELIABILITY]
    assert found["verdict"] == f"{NOT_HELD} (FGSM and N-FGSM and PGD-2); {FLAGGED_FROM_THE_START} (Fast AT)"


@pytest.mark.parametrize(
    ("never", "expected"),
    [
        ([("random", 1.0)], NOTHING_TO_LOSE),
        ([("random", 0.3)], TOO_SHORT),
        ([("random", 0.3), ("same_steps(random)", 0.3)], NEVER_ROBUST),
        ([("same_steps(random)", 0.3)], HELD),
    ],
)
def test_what_never_was_robust_is_not_reliable_for_collapsing_less(
    never: list[tuple[str, float]], expected: str
) -> None:
    counts = {(f"{way}: random", 1.0): 30 for way in _WAYS} | {(f"{way}: random", 0.3): 0 for way in _WAYS}
    lives = lifetimes(counts | {(f"{way}: same_steps(random)", 0.3): 0 for way in _WAYS})
    for arm, fraction in never:
        lives.loc[(lives["arm"] == f"N-FGSM: {arm}") & (lives["fraction"] == fraction), "val_pgd_best"] = 0.1
    found = claims_table({}, lifetimes={"collapse_by_fraction": lives}).iloc[_RELIABILITY]
    others = f"{HELD} (FGSM and Fast AT and PGD-2); {expected} (N-FGSM)"
    assert found["verdict"] == (HELD if expected == HELD else others)


def test_a_part_that_never_was_robust_is_worse_if_more_runs_are_with_as_many_steps() -> None:
    counts = {(f"{way}: {arm}", 0.3): 30 for way in _WAYS for arm in ("random", "same_steps(random)")}
    lives = lifetimes(counts | {(f"{way}: random", 1.0): 5 for way in _WAYS})
    lives.loc[(lives["arm"].str.endswith(": random")) & (lives["fraction"] == 0.3), "val_pgd_best"] = 0.1
    found = claims_table({}, lifetimes={"collapse_by_fraction": lives}).iloc[_RELIABILITY]
    assert found["verdict"] == NEVER_ROBUST
