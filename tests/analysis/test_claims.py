"""The papers' numbers beside tables made up by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from advprune_core.analysis.claims import CLAIMS, HELD, NOT_HELD, OPEN, claims_table
from advprune_core.study.archive import Missing
from tests.made_up import seeded_runs, stacked

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
    assert sorted(claim.number for claim in CLAIMS) == [2.02, 3, 3.07, 3.44, 3.67, 5.12, 5.66, 8, 14, 14]
    assert [claim.study for claim in CLAIMS if claim.number == 14] == ["cifar10_cpu", "cifar10_resnet18"]
    assert set(table["measured"]) == {"not measured"}
    assert set(table["verdict"]) == {OPEN}
    assert table["said"].tolist()[:5] == ["8 %", "14 %", "3x", "14 %", "3.44x"]


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
    assert table["measured"][2] == "5.00x in passes, 2.00x in processor seconds"
    assert table["verdict"][2] == OPEN


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
    assert found["verdict"][4] == expected
    if expected == HELD:
        assert found["measured"][4] == "4.00x (TRADES, warm start: grad_match every=7)"
    assert found["verdict"][6] == OPEN, "BulletTrain was not run"
    study = "gradient_matching_cifar10_cpu"
    elsewhere = claims_table({study: table}, missing={study: [missing("MART, warm start: random every=7")]})
    assert elsewhere["verdict"][4] == expected, "what is missing is of another claim"
    unfinished = claims_table({study: table}, missing={study: [missing("TRADES, warm start: random every=7")]})
    assert unfinished["verdict"][4] == (HELD if expected == HELD else OPEN), "another run may reach it"
    dear = claims_table({study: table}, missing={study: [missing("TRADES, warm start: random every=7", passes=30.0)]})
    assert dear["verdict"][4] == expected, "what is missing costs too much to reach it"
    assert unfinished["measured"][4].endswith(" so far") == (expected != HELD)
    assert unfinished["measured"][6] == "not measured"


def test_a_speed_up_in_passes_alone_is_no_verdict() -> None:
    """Seconds of a GPU and of a laptop together say nothing."""
    table = headline(0.2, 0.1)
    devices = table["fraction"].map({1.0: "a GPU"}).fillna("a laptop")
    (found,) = claims_table({"cifar10_cpu": table.assign(run_device=devices)}).iloc[[2]].to_dict("records")
    assert (found["measured"], found["verdict"]) == ("5.00x in passes", OPEN)
