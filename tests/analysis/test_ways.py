"""Ways of training beside each other, by hand."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.against_cost import robust_vs_cost
from advprune_core.analysis.cells import settings
from advprune_core.analysis.decomposition import decomposition
from advprune_core.analysis.dots import accuracy_dots
from advprune_core.analysis.findings import accuracy_findings
from advprune_core.analysis.labels import settings_told
from advprune_core.analysis.rivals import equal_cost_findings
from advprune_core.analysis.summaries import printable
from advprune_core.analysis.ways import dearest_costs, frontier, full_costs, full_runs_once, once, ways
from advprune_core.explore.curves import threats_of
from tests.analysis.figure_checks import texts
from tests.made_up import TRAINERS, WAYS, study_table, trainers_table


def test_a_shared_run_stands_once_by_its_arm_or_by_its_way_of_training() -> None:
    """Of two pruners, and the control of one, the run on all the data is the same."""
    arms = ["PGD-AT: random", "PGD-AT: redraw", "PGD-AT: same_cost(random)"]
    table = study_table({(arm, fraction): [(0.9, 0.6)] for arm in arms for fraction in (1.0, 0.5)})
    table = table.assign(variant="PGD-AT", control=[None] * 4 + ["same_cost"] * 2)
    of_a_part = [(arm, 0.5) for arm in arms]

    def points(rows: pd.DataFrame) -> list[tuple[str, float]]:
        return list(zip(rows["arm"], rows["matched_fraction"], strict=True))

    assert points(once(table)) == [(arms[0], 1.0), *of_a_part]
    assert sorted(points(full_runs_once(table))) == sorted([("PGD-AT", 1.0), (arms[2], 1.0), *of_a_part])
    alone = table.assign(variant="")
    assert points(full_runs_once(alone)) == points(alone)


def test_the_frontier_by_hand() -> None:
    table = trainers_table(TRAINERS)
    table.loc[(table["variant"] == "PGD-AT") & (table["seed"] == 1), "status"] = "collapsed"
    points = frontier(table).set_index(["way", "matched_fraction"])
    assert list(points.index) == [(way, f) for way, _, f in TRAINERS]
    assert points["cost_per_image"].tolist() == [cost for cost, _ in TRAINERS.values()]
    assert points["robust"].tolist() == pytest.approx([0.12, 0.72, 0.60, 0.72, 0.52, 0.76])
    assert points["objective"].tolist() == ["standard", *["pgd_at"] * 4, "trades"]
    assert points["collapsed"].tolist() == [0, 1, 1, 0, 0, 0]
    assert points["runs"].tolist() == [2] * 6
    # PGD-AT is matched by what is cheaper; 40 % of it is beaten; standard costs more than carried at 40 %.
    assert points["on_frontier"].tolist() == [False, False, False, True, True, True]
    assert points["robust_low"].iloc[1] == pytest.approx(0.72 - 12.7062 * 0.02, rel=1e-4)


def test_a_seed_without_its_full_run_is_held_against_the_others_of_its_way() -> None:
    table = trainers_table(TRAINERS)
    table.loc[(table["variant"] == "carried") & (table["fraction"] == 1) & (table["seed"] == 1), "cost"] = np.nan
    pruned = (table["variant"] == "carried") & (table["fraction"] < 1)
    assert (table["cost"] / full_costs(table))[pruned].tolist() == pytest.approx([0.4, 0.4])
    wider = trainers_table(WAYS)
    of_its_way = (wider["variant"] == "carried") & (wider["fraction"] == 1)
    wider["cost"] = wider["cost"].astype(float)
    wider.loc[of_its_way, "cost"] = [400, 800, np.nan]
    pruned = (wider["variant"] == "carried") & (wider["fraction"] < 1)
    assert full_costs(wider)[pruned].tolist() == [400, 800, 600], "the mean of the others, whichever comes first"


def test_only_runs_that_were_checked_are_known_to_have_collapsed_or_not() -> None:
    table = trainers_table(TRAINERS)
    table.loc[table["variant"].isin(["standard", "PGD-AT"]), "val_pgd_best"] = np.nan
    table.loc[(table["variant"] == "carried") & (table["seed"] == 1), ["status"]] = "collapsed"
    table.loc[(table["variant"] == "carried") & (table["seed"] == 0), ["val_pgd_best"]] = np.nan
    points = frontier(table).set_index(["way", "matched_fraction"])
    known = {way: (row["runs"], row["collapsed"]) for way, row in points.xs(1.0, level=1).iterrows()}
    assert known == {
        "standard": (2, 0),  # without an attack there is nothing to collapse
        "PGD-AT": (0, pytest.approx(np.nan, nan_ok=True)),
        "carried": (1, 1),
        "TRADES": (2, 0),
    }
    told = {text.get_text() for text in texts(robust_vs_cost(table[table["variant"] != "carried"]))}
    assert "with a collapsed run" not in told
    assert "with a collapsed run" in {text.get_text() for text in texts(robust_vs_cost(table))}


def test_what_costs_as_much_but_for_rounding_is_not_cheaper() -> None:
    table = trainers_table(TRAINERS)
    carried = (table["variant"] == "carried") & (table["fraction"] == 1)
    table["cost"] = table["cost"].astype(float)
    table.loc[carried, "cost"] *= 1.0001
    worse = table[carried].assign(variant="worse", arm="worse: random", robust=table[carried]["robust"] - 0.1)
    worse = worse.assign(cost=worse["cost"] / 1.0002)
    points = frontier(pd.concat([table, worse], ignore_index=True)).set_index(["way", "matched_fraction"])
    assert points.loc["carried", 1.0]["on_frontier"]
    assert not points.loc["worse", 1.0]["on_frontier"], "it costs 0.02 % less"


def test_costs_of_several_ways_are_shares_of_the_dearest() -> None:
    table = trainers_table(TRAINERS)
    table["key"] = [str(row) for row in range(len(table))]
    dearest = dearest_costs(table)
    assert dearest is not None
    assert dearest[0] == "TRADES"
    assert (table["cost"] / dearest[1]).round(4).tolist() == [
        round(cost / 27, 4) for cost, robust in TRAINERS.values() for _ in robust
    ]
    assert set(printable(table)["cost / full run of TRADES"]) >= {"0.630", "0.252", "1.000"}
    assert "(0.11)" in " ".join(text.get_text() for text in texts(accuracy_dots(table)))
    lost = table[~((table["variant"] == "TRADES") & (table["seed"] == 1))]
    found = dearest_costs(lost)
    assert found is not None
    assert found[1].notna().all()
    some = table[table["variant"].isin(["PGD-AT", "TRADES"])]
    alike = some.assign(cost=some["cost"].where(some["variant"] == "PGD-AT", 1700))
    assert dearest_costs(alike) is None, "all ways cost the same"
    assert dearest_costs(table[table["variant"] == "TRADES"]) is None, "one way"
    parts = alike[(alike["variant"] == "TRADES") | (alike["matched_fraction"] < 1)]
    of_trades = dearest_costs(parts)
    assert of_trades is not None, "one way was not run on all the data"
    assert of_trades[0] == "TRADES"
    shown = printable(parts).set_index("arm")["cost / its full run"]
    assert {arm: share != "" for arm, share in shown.items()} == {
        arm: arm.startswith("TRADES") for arm in parts["arm"]
    }, "it has no full run of its own"
    assert dearest_costs(pd.concat([table, table.assign(eps=0.5)], ignore_index=True)) is None, "two threat models"


def test_costs_are_shares_of_the_same_way_of_training() -> None:
    table = trainers_table(TRAINERS)
    shares = (table["cost"] / full_costs(table)).round(6).tolist()
    assert shares == [1, 1, 1, 1, 0.4, 0.4, 1, 1, 0.4, 0.4, 1, 1]
    assert {way: rows["arm"].unique().tolist() for way, rows in ways(table)} == {
        name: ["random"] for name in ("standard", "PGD-AT", "carried", "TRADES")
    }


def test_a_table_that_was_read_from_its_csv_says_the_same() -> None:
    """An empty variant is a gap there."""
    values = [(0.9, 0.70), (0.9, 0.72), (0.9, 0.71)]
    lower = [(0.9, 0.60), (0.9, 0.64), (0.9, 0.62)]
    arms = {("random", 1.0): values, ("dual", 1.0): values, ("random", 0.5): lower}
    arms |= {("dual", 0.5): values, ("same_cost(dual)", 0.5): lower}
    table = study_table(arms).assign(variant="", n=100, kept=50, images_visited=500)
    table["pruner"] = table["arm"].where(table["fraction"] < 1, "full")
    again = pd.read_csv(StringIO(table.to_csv(index=False)))
    assert again["variant"].isna().all()
    assert "Full data reaches" in accuracy_findings(again)
    for told in (accuracy_findings, equal_cost_findings, lambda rows: printable(rows).to_string()):
        assert told(again) == told(table)
    assert "against *static random subset, 50 %*" in equal_cost_findings(again)
    pd.testing.assert_frame_equal(decomposition(again), decomposition(table))
    assert len(decomposition(again))


def test_costs_are_no_shares_of_another_data_sets_or_networks_full_run() -> None:
    table = trainers_table({key: TRAINERS[key] for key in TRAINERS if key[0] in ("PGD-AT", "carried")})
    part = (table["variant"] == "carried") & (table["fraction"] < 1)
    some = table[(table["variant"] == "PGD-AT") | part]
    assert (some["cost"] / full_costs(some))[part].tolist() == pytest.approx([2 / 17] * 2), "the first one's"
    for column, other in (("dataset", "fashion_mnist"), ("eps", 0.25), ("model", "preact_resnet")):
        apart = some.assign(**{column: some[column].where(~part, other)})
        assert full_costs(apart).isna().tolist() == part[apart.index].tolist()


def test_networks_are_named_where_a_table_has_several() -> None:
    """What costs as much in forwards of one of them costs something else in another's."""
    table = trainers_table(TRAINERS)
    assert {name for name, _ in settings(table)} == {""}
    assert set(frontier(table)["setting"]) == {"digits, L-inf 2/16"}
    apart = table.assign(model=table["model"].where(table["variant"] != "TRADES", "preact_resnet"))
    names = ["digits, L-inf 2/16, small_cnn", "digits, L-inf 2/16, preact_resnet"]
    assert [name for name, _ in settings(apart)] == names
    points = frontier(apart).set_index(["way", "matched_fraction"])
    assert points.loc["TRADES", 1.0]["setting"] == names[1]
    assert not frontier(table).set_index(["way", "matched_fraction"]).loc["PGD-AT", 1.0]["on_frontier"]
    big = table.assign(model=table["model"].where(table["variant"] != "PGD-AT", "preact_resnet"))
    assert frontier(big).set_index(["way", "matched_fraction"]).loc["PGD-AT", 1.0]["on_frontier"]
    assert {threats: len(rows) for threats, rows in threats_of(apart).items()} == dict(zip(names, (10, 2), strict=True))
    assert settings_told(apart.assign(test_images=497)).startswith("digits, L-inf 2/16. Network: small_cnn, preact_res")
