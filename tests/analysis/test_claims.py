"""The papers' numbers beside tables made up by hand."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.claims import (
    AS_FEWER_EPOCHS,
    AS_FEWER_STEPS,
    CLAIMS,
    HELD,
    NOT_HELD,
    NOTHING_TO_LOSE,
    OPEN,
    claims_table,
)
from advprune_core.analysis.estimates import crossed_bootstrap
from advprune_core.attacks.evaluate import pack_bits
from advprune_core.study.archive import Missing
from tests.made_up import seeded_runs, stacked

#: Rows of the table.
_CONVERGENCE, _RELIABILITY, _PLAIN, _BULLET = 4, 5, 6, 8
FACTS = {"model": "preact_resnet", "epochs": 15}


def headline(at_60: float, at_20: float, cost_20: float = 20, **facts: Any) -> pd.DataFrame:
    parts = [(1.0, 0.30, 100.0), (0.6, at_60, 60.0), (0.2, at_20, cost_20)]
    tables = [seeded_runs("PGD-7: random", robust, fraction=f, cost=cost, **FACTS) for f, robust, cost in parts]
    return stacked(*tables).assign(robust_pgd20=0.4, robust_autoattack=0.3, **facts)


def missing(arm: str, *, fraction: float = 0.3, passes: float | None = None) -> Missing:
    return Missing(arm, fraction, 0, None, "not trained", passes)


def verdicts(tables: dict[str, pd.DataFrame]) -> list[str]:
    return claims_table(tables)["verdict"].tolist()


def test_all_nine_numbers_stand_there_and_nothing_is_said_of_what_was_not_measured() -> None:
    table = claims_table({})
    numbers = sorted(claim.number for claim in CLAIMS if claim.number is not None)
    assert numbers == [2.02, 3, 3.07, 3.44, 3.67, 5.12, 5.66, 8, 14, 14]
    assert [claim.study for claim in CLAIMS if claim.number == 14] == ["cifar10_cpu", "cifar10_resnet18"]
    assert set(table["measured"]) == {"not measured"}
    assert set(table["verdict"]) == {OPEN}
    assert table["said"].tolist()[:7] == ["8 %", "14 %", "3x", "14 %", "sooner", "fewer", "3.44x"]


@pytest.mark.parametrize(
    ("at_60", "at_20", "cost", "expected"),
    [
        (0.28, 0.27, 20, [HELD, HELD, HELD]),
        (0.20, 0.10, 40, [NOT_HELD, NOT_HELD, NOT_HELD]),
        # The intervals hold what was said in points; as shares these losses are 26 and 46 %.
        (0.2205, 0.1605, 20, [f"{OPEN} if points are meant, else {NOT_HELD}"] * 2 + [HELD]),
        # 4 and 10 points, 13 and 33 %; and 8 % of 30 % is 2.4 points, which the interval holds.
        (0.26, 0.20, 20, [f"{HELD} if points are meant, else {NOT_HELD}"] * 2 + [HELD]),
        (0.2762, 0.27, 20, [f"{HELD} if points are meant, else {OPEN}", HELD, HELD]),
    ],
)
def test_losses_and_costs_of_the_first_paper(at_60: float, at_20: float, cost: float, expected: list[str]) -> None:
    table = claims_table({"cifar10_cpu": headline(at_60, at_20, cost)})
    assert table["verdict"].tolist()[:3] == expected
    assert table["measured"][0].startswith(f"{100 * (0.30 - at_60):.1f}"[:3])
    assert table["setting"][0] == "preact_resnet (width 16, blocks 1, stem 4x4/2), 15 epochs, autoattack"


def test_a_speed_up_is_one_of_seconds_too() -> None:
    slow = headline(0.26, 0.20)
    slow.loc[slow["fraction"] == 0.2, "cost_seconds"] = 1.0
    table = claims_table({"cifar10_cpu": slow})
    seconds = "5.00x in passes, 2.00x in processor seconds"
    assert table["measured"][2] == f"{seconds} beside other work (pruned from the start)"
    assert table["verdict"][2] == OPEN
    alone = claims_table({"cifar10_cpu": slow.assign(timed_alone=True)})
    assert alone["measured"][2] == f"{seconds} (pruned from the start)"


def test_what_is_pruned_later_saves_less() -> None:
    """The first paper trains on all the data first."""
    later = seeded_runs("PGD-7: random warmup_epochs=5", 0.2, fraction=0.2, cost=50, **FACTS)
    later = later.assign(run_device="another", pruner='{"random": {"warmup_epochs": 5}}')
    table = stacked(headline(0.26, 0.20, run_device="a laptop"), later)
    found = claims_table({"cifar10_cpu": table}).iloc[2]
    assert found["measured"].endswith("; 2.00x in passes (pruned after 5 epochs)")
    assert found["verdict"] == f"{HELD} (from the start); {NOT_HELD} (after 5 epochs)"


def test_a_loss_is_one_of_other_images_too() -> None:
    """Every seed loses the same eight of forty images, a fifth of all and of what was right, and gains none."""
    seeds, images = 3, 40
    outcomes = {1.0: np.ones((seeds, images), bool), 0.2: np.ones((seeds, images), bool)}
    outcomes[0.2][:, :8] = False
    outcomes[0.2][0, 8] = False  # or seeds all say the same
    parts = []
    for fraction, found in outcomes.items():
        runs = seeded_runs("PGD-7: random", 0.0, fraction=fraction, **FACTS)[:seeds]
        parts.append(runs.assign(robust=found.mean(1), outcomes=list(map(pack_bits, found)), test_images=images))
    table = stacked(*parts).assign(robust_pgd20=0.4)
    found = claims_table({"cifar10_cpu": table}).iloc[1]
    points, share = map(_interval, found["measured"].split(" points, "))
    low, high = crossed_bootstrap(outcomes[1.0], outcomes[0.2])
    assert points == pytest.approx((100 * low, 100 * high), abs=0.06)
    assert points[0] < 14 < 18 < points[1], "of these images a fifth is lost, of others nobody knows"
    assert share == points, "all were right"
    assert found["verdict"] == OPEN


def _interval(text: str) -> tuple[float, ...]:
    return tuple(map(float, re.findall(r"-?[\d.]+(?=[,\]])", text)))


def test_one_seed_measures_and_does_not_judge() -> None:
    table = claims_table({"cifar10_cpu": headline(0.2, 0.1).query("seed == 0")})
    assert table["verdict"].tolist()[:2] == [OPEN, OPEN]
    assert "(1 seed)" in table["measured"][0]


@pytest.mark.parametrize(
    ("robust", "cost", "expected"),
    [
        (0.30, 25, HELD),  # 4x without loss
        (0.30, 50, NOT_HELD),  # without loss, but 2x
        (0.10, 25, NOT_HELD),  # 4x, with a loss
        (0.2805, 25, OPEN),  # 4x, and nobody can tell
    ],
)
def test_a_speed_up_counts_without_a_loss(robust: float, cost: float, expected: str) -> None:
    table = stacked(
        seeded_runs("TRADES: random", 0.30, **FACTS),
        seeded_runs("TRADES, warm start: grad_match every=7", robust, fraction=0.3, cost=cost, **FACTS),
    ).assign(robust_pgd20=0.4)
    found = claims_table({"gradient_matching_cifar10_cpu": table})
    assert found["verdict"][_PLAIN] == expected
    if expected == HELD:
        assert found["measured"][_PLAIN] == "4.00x (TRADES, warm start: grad_match every=7)"
    told, loss = found["measured"][_PLAIN], f"{100 * (robust - 0.30):+.1f} points ["
    assert (f"; at 4.00x {loss}" in told) == (expected in (NOT_HELD, OPEN) and cost == 25), "as cheap as was said"
    assert found["verdict"][_BULLET] == OPEN, "BulletTrain was not run"
    study = "gradient_matching_cifar10_cpu"
    elsewhere = claims_table({study: table}, missing={study: [missing("MART, warm start: random every=7")]})
    assert elsewhere["verdict"][_PLAIN] == expected, "what is missing is of another claim"
    unfinished = claims_table({study: table}, missing={study: [missing("TRADES, warm start: random every=7")]})
    assert unfinished["verdict"][_PLAIN] == (HELD if expected == HELD else OPEN), "another run may reach it"
    dear = claims_table({study: table}, missing={study: [missing("TRADES, warm start: random every=7", passes=30.0)]})
    assert dear["verdict"][_PLAIN] == expected, "what is missing costs too much to reach it"
    assert unfinished["measured"][_PLAIN].partition("; ")[0].endswith(" so far") == (expected != HELD)
    assert unfinished["measured"][_BULLET] == "not measured"


def test_a_speed_up_in_passes_alone_is_no_verdict() -> None:
    """Seconds of a GPU and of a laptop together say nothing."""
    table = headline(0.2, 0.1)
    devices = table["fraction"].map({1.0: "a GPU"}).fillna("a laptop")
    (found,) = claims_table({"cifar10_cpu": table.assign(run_device=devices)}).iloc[[2]].to_dict("records")
    assert (found["measured"], found["verdict"]) == ("5.00x in passes (pruned from the start)", OPEN)


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
    at_60: list[float], shorter: list[float] | None, expected: str
) -> None:
    costs = {("random", 1.0): _FULL, ("random", 0.6): at_60} | ({} if shorter is None else {_SHORTER: shorter})
    study = "convergence_reliability"
    found = claims_table({}, courses={study: courses(costs)}).iloc[_CONVERGENCE]
    assert found["verdict"] == expected
    reached = sum(cost < float("inf") for cost in at_60)
    assert found["measured"].startswith(
        "95 % of the full run's robustness, at which median part of its cost: 10 of 10 runs at 50 %; on 60 % "
        f"{reached} of {len(at_60)} runs"
    )
    assert ("fewer epochs at the same cost" in found["measured"]) == (shorter is not None)
    # Another part, as soon as all the data: a verdict for each.
    both = costs | {("random", 0.2): _FULL[: len(at_60)]}
    found = claims_table({}, courses={study: courses(both)}).iloc[_CONVERGENCE]
    assert found["verdict"] == (OPEN if expected == OPEN else f"{expected} (60 %); {OPEN} (20 %)")


def lifetimes(collapsed: dict[tuple[str, float], int], *, runs: int = 30) -> pd.DataFrame:
    """So many of the runs of each point collapse, the first seeds of all."""
    rows = [
        {"arm": arm, "fraction": fraction, "seed": seed, "key": f"{arm}{fraction}{seed}", "status": "ok"}
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
        ((0, 0, 0, 0), (30, 30, 30, 30), (0, 0, 0, 0), NOT_HELD),
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
    assert (
        f": FGSM {full[0]}, {pruned[0]}, {as_long[0]} of 30 (robust at best: 40, 40, 40 %); Fast AT"
        in (found["measured"])
    )
    lives = lifetimes(counts)
    some = lives[(lives["seed"] < 10) | (lives["fraction"] == 1)]
    found = claims_table({}, lifetimes={"collapse_by_fraction": some}).iloc[_RELIABILITY]
    assert f": FGSM {min(full[0], 10)}, " in found["measured"], "seeds that all three have"
    assert " of 10 (robust at best: 40, 40, 40 %); Fast AT" in found["measured"]
    unfinished = lives[~lives["arm"].str.startswith("PGD-2: same")]
    found = claims_table({}, lifetimes={"collapse_by_fraction": unfinished}).iloc[_RELIABILITY]
    assert (found["measured"], found["verdict"]) == ("not measured", OPEN)


def test_what_never_was_robust_is_not_reliable_for_collapsing_less() -> None:
    counts = {(f"{way}: random", 1.0): 30 for way in _WAYS} | {(f"{way}: random", 0.3): 0 for way in _WAYS}
    lives = lifetimes(counts | {(f"{way}: same_steps(random)", 0.3): 0 for way in _WAYS})
    lives.loc[lives["arm"].str.startswith("N-FGSM"), "val_pgd_best"] = 0.1
    found = claims_table({}, lifetimes={"collapse_by_fraction": lives}).iloc[_RELIABILITY]
    assert found["verdict"] == (f"{HELD} (FGSM and Fast AT and PGD-2); {NOTHING_TO_LOSE} (N-FGSM)")
