"""The measured points that advice is read from: against the records, and against curves whose values are known."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from advprune_core.analysis.fronts import POINT, SETTING, Way, measured_points, read_points, ways_of
from advprune_core.study.store import RunStore
from advprune_core.trainers.config import RunConfig
from tests.made_up import evaluation_record, run_record, write_finished, write_manifest
from tests.reference import REFERENCE, STUDIES
from tests.tiny import TINY

SEEDS = np.array([-0.01, 0.0, 0.01])
#: Student's 95 % half-width of three seeds that are 0.01 apart.
HALF = float(stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3))


def points(rows: Sequence[tuple[str, object, float, float, float, float]]) -> pd.DataFrame:
    """Points from (trainer, pruner, fraction, epochs, cost, robust); clean is 0.1 more."""
    place = {"dataset": "digits", "wrong_labels": 0.0, "images": 1100, "shape": "1x8x8", "model": "small_cnn"}
    place |= {"norm": "linf", "eps": 0.125, "test": "pgd40"}
    return pd.DataFrame(
        [
            place
            | dict(zip(POINT, (trainer, json.dumps(pruner), fraction, epochs), strict=True))
            | {"cost": cost, "clean": json.dumps((robust + 0.1 + SEEDS).tolist())}
            | {"robust": json.dumps((robust + SEEDS).tolist())}
            for trainer, pruner, fraction, epochs, cost, robust in rows
        ]
    )


@pytest.mark.slow(seconds=15)
def test_the_package_carries_what_the_records_say() -> None:
    found = measured_points([REFERENCE / study for study in STUDIES])
    assert len(found) > 50
    again = pd.read_csv(io.StringIO(found.to_csv(index=False)))
    pd.testing.assert_frame_equal(read_points(), again)  # write it again: `python -m tests.front_page`


def test_a_seed_counts_once_and_two_seeds_are_no_point(tmp_path: Path) -> None:
    """Two studies with the same runs, of which one has another point with two seeds only."""
    right = np.arange(20) < 15
    for study in ("first", "second"):
        store, entries = RunStore(tmp_path / study), []
        for fraction, seeds in ((1.0, 3), (0.5, 2)):
            for seed in range(seeds):
                pruned = {} if fraction == 1 else {"pruner": "random", "fraction": fraction}
                config = RunConfig.flat(**{**TINY, "pruner": "full", "fraction": 1.0, **pruned, "seed": seed})
                key = f"{study}{fraction}{seed}".ljust(16, "0").replace(".", "")
                facts = {"name": "digits", "image_shape": (1, 8, 8)}
                record = run_record(key, config=config.model_dump(mode="json"), dataset=facts)
                robust = right & (np.arange(20) != seed)
                write_finished(store, record, evaluation_record("e" * 16, key, right, {"pgd": robust}))
                entries.append(("random", fraction, seed, None, key, "e" * 16))
        write_manifest(tmp_path / study, study, entries)
        (tmp_path / study / study / "manifest.json").rename(tmp_path / study / "manifest.json")
    (point,) = measured_points([tmp_path / "first", tmp_path / "second"]).to_dict("records")
    assert json.loads(point["robust"]) == [0.7, 0.7, 0.7]
    assert (point["fraction"], point["shape"], point["test"]) == (1.0, "1x8x8", "pgd")
    assert point["cost"] == pytest.approx(1000 / 21, abs=1e-4)  # training and selection, validation not


def test_a_point_was_tested_by_what_it_says() -> None:
    """Of `cifar10_cpu` some runs were tested by AutoAttack, others by its APGD alone: no run by both."""
    tests = {frozenset(test.split("+")) for test in read_points()["test"]}
    assert {name for test in tests for name in test} >= {"autoattack", "autoattack_apgd"}
    assert not [test for test in tests if {"autoattack", "autoattack_apgd"} <= test]


def test_no_setting_is_mixed_with_another() -> None:
    """Every point stands once in its setting, and its seeds are as many on clean as on attacked images."""
    found = read_points()
    assert not found.duplicated([*SETTING, *POINT]).any()
    assert (found["clean"].map(json.loads).map(len) == found["robust"].map(json.loads).map(len)).all()
    assert "oracle" not in " ".join(found["pruner"])


def line(*costs: float) -> Way:
    """A way whose robust accuracy is 0.1 log2(cost / 100) + 0.3, which is a straight line over the cost's logarithm."""
    rows = [("{}", "full", 1.0, cost / 10, cost, 0.1 * math.log2(cost / 100) + 0.3) for cost in costs]
    (way,) = ways_of(points(rows))
    return way


@pytest.mark.parametrize("cost", [100.0, 130.0, 200.0, 350.0, 400.0])
def test_a_straight_line_is_found_again(cost: float) -> None:
    plan = line(100, 200, 400).at(cost)
    assert plan is not None
    assert plan.robust.mean == pytest.approx(0.1 * math.log2(cost / 100) + 0.3)
    assert plan.robust.low == pytest.approx(plan.robust.mean - HALF)
    assert plan.robust.high == pytest.approx(plan.robust.mean + HALF)
    assert plan.clean.mean == pytest.approx(plan.robust.mean + 0.1)
    assert plan.epochs == pytest.approx(cost / 10)
    assert plan.spread == pytest.approx(0.01)
    measured = cost in (100.0, 200.0, 400.0)
    assert (plan.between[0] == plan.between[1]) == measured
    assert plan.between[0] <= cost <= plan.between[1]


def test_a_bend_widens_the_interval_and_never_overshoots() -> None:
    rows = [("{}", "full", 1.0, 1.0, cost, robust) for cost, robust in ((100, 0.3), (200, 0.5), (400, 0.5))]
    (way,) = ways_of(points(rows))
    inside = way.at(140.0)
    assert inside is not None
    straight = 0.3 + 0.2 * math.log2(1.4)
    assert inside.robust.mean > straight
    width = inside.robust.high - inside.robust.low
    assert width == pytest.approx(2 * (HALF + inside.robust.mean - straight))
    flat = way.at(300.0)
    assert flat is not None
    assert flat.robust.mean == pytest.approx(0.5)


def test_less_than_the_cheapest_point_is_not_known_and_more_than_the_dearest_not_spent() -> None:
    way = line(100, 200)
    assert way.at(99.0) is None
    dear = way.at(1e6)
    assert dear is not None
    assert (dear.cost, dear.epochs, dear.between) == (200, 20, (200, 200))


def test_a_pruned_way_ends_before_all_the_data() -> None:
    """Its curve goes on to the full run, so that shares in between are known; the full run itself is not pruned."""
    shares = [("{}", "random", 0.5, 30.0, 50.0, 0.5), ("{}", "full", 1.0, 30.0, 100.0, 0.6)]
    full, pruned = ways_of(points(shares))
    assert (full.pruner, pruned.pruner) == ("full", "random")
    half, between = (plan for budget in (100.0, 75.0) if (plan := pruned.at(budget)) is not None)
    assert (half.fraction, half.cost, half.pruned) == (0.5, 50.0, True)
    assert (between.fraction, between.epochs) == (0.75, 30.0)
