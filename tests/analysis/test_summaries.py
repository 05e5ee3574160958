"""The tables that people read, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from advprune_core.analysis.seeds import points
from advprune_core.analysis.summaries import after_attacks, printable, printable_ways, pruner_table, speed_ups, summary
from advprune_core.base.settings import ConfigError
from tests.made_up import TRAINERS, pruners_table, timing_table, trainers_table


def table() -> pd.DataFrame:
    """Two arms at 40 %, three seeds; the full run costs 100 and 200."""
    rows = [
        ("random", 1.0, 0, 0.90, 0.60, 100.0),
        ("random", 1.0, 1, 0.92, 0.62, 200.0),
        ("random", 0.4, 0, 0.80, 0.50, 40.0),
        ("random", 0.4, 1, 0.82, 0.54, 80.0),
        ("same_cost(random)", 0.4, 0, 0.84, 0.55, 41.0),
        ("same_cost(random)", 0.4, 1, 0.85, 0.56, 78.0),
    ]
    found = pd.DataFrame(rows, columns=["arm", "matched_fraction", "seed", "clean", "robust", "cost"])
    control = found["arm"].map({"same_cost(random)": "same_cost"})
    fraction = found["matched_fraction"].where(control.isna(), 1.0)
    return found.assign(control=control, fraction=fraction, key=[f"run {n}" for n in range(len(found))])


def test_the_summary_by_hand() -> None:
    got = summary(table())
    assert got["arm"].tolist() == ["random", "random", "same_cost(random)"]
    assert got["fraction"].tolist() == [1.0, 0.4, 1.0], "the control trains on all data"
    assert got["matched_fraction"].tolist() == [1.0, 0.4, 0.4]
    assert got["seeds"].tolist() == [2, 2, 2]
    assert got["clean"].tolist() == pytest.approx([0.91, 0.81, 0.845])
    assert got["robust"].tolist() == pytest.approx([0.61, 0.52, 0.555])
    # Each seed's cost against its own full run: 41 / 100 and 78 / 200.
    assert got["cost"].tolist() == pytest.approx([1.0, 0.4, 0.4])
    assert got["speed_up"].tolist() == pytest.approx([1.0, 2.5, 2.5])
    assert got["robust_high"].tolist()[1] == pytest.approx(0.52 + 12.7062 * 0.02, rel=1e-4)


def test_seconds_of_speed_ups_are_medians_of_unequal_timings() -> None:
    """One that something else on the machine held up changes neither side; the range is of the extremes."""
    rows = [("random", 1.0, seconds) for seconds in (9.0, 30.0, 8.0)]
    rows += [("random", 0.4, seconds) for seconds in (3.0, 20.0, 4.5)]
    found = speed_ups(table(), timing_table(rows)).query("fraction == 0.4").iloc[0]
    assert (found["cpu_seconds"], found["seconds_ratio"], found["speed_up_seconds"]) == (4.5, 0.5, 2.0)
    assert (found["speed_up_seconds_low"], found["speed_up_seconds_high"]) == (8 / 20, 30 / 3)
    assert found["timings"] == 3


@pytest.mark.parametrize("told", [summary, printable, pruner_table, printable_ways, after_attacks, points])
def test_a_table_of_no_study_is_refused(told: Callable[[pd.DataFrame], object]) -> None:
    runs = table().drop(columns=["arm", "matched_fraction", "control"])
    with pytest.raises(ConfigError, match=r"no arms: those are of a study, `collect\(study=...\)`"):
        told(runs)


def test_runs_without_an_accuracy_stay_in_the_summary() -> None:
    data = table()
    data.loc[data["matched_fraction"] == 0.4, ["clean", "robust"]] = np.nan
    got = summary(data)
    assert len(got) == 3
    assert got["robust"].isna().tolist() == [False, True, True]
    assert got["cost"].notna().all()


def test_the_printed_ways_of_training() -> None:
    table = trainers_table(TRAINERS)
    table = table.assign(key=[f"run {number}" for number in range(len(table))])
    timed = table[(table["variant"] == "PGD-AT") & (table["fraction"] == 1)]["key"].tolist()
    timings = pd.DataFrame({"key": [timed[0], timed[0], timed[0]], "cpu_seconds": [4.0, 9.0, 3.0]})
    shown = printable_ways(table, timings).set_index("way of training")
    assert shown["cost / PGD-AT"].tolist() == ["0.18", "1.00", "0.29", "1.59"]
    assert shown.loc["PGD-AT", "robust at 40 %"] == "60.0", "no spread, no interval"
    assert shown["seconds"].tolist() == ["", "4.0", "", ""]
    assert shown.loc["TRADES", "robust at 100 %"].startswith("76.0 [")
    table.loc[(table["variant"] == "TRADES") & (table["seed"] == 1), ["status", "robust"]] = ["diverged", np.nan]
    shown = printable_ways(table).set_index("way of training")
    assert shown.loc["TRADES", "robust at 100 %"] == "75.0 (1 of 2 seeds)"
    others = printable_ways(table[table["variant"] != "PGD-AT"])
    costs = table[(table["variant"] != "PGD-AT") & (table["fraction"] == 1)].groupby("variant", sort=False)
    expected = [f"{(rows['cost'] / rows['n']).mean():.0f}" for _, rows in costs]
    assert others["cost / training image"].tolist() == expected, "without the reference nothing is a share of it"


PRUNERS = {
    ("random", 1.0): [(0.9, 0.80), (0.9, 0.78)],
    ("random", 0.5): [(0.8, 0.60), (0.8, 0.62)],
    ("score", 1.0): [(0.9, 0.80), (0.9, 0.78)],
    ("score", 0.5): [(0.7, 0.65), (0.9, 0.66)],
    ("same_cost(score)", 0.5): [(0.8, 0.70), (0.8, 0.70)],
}


def test_the_table_of_pruners_by_hand() -> None:
    rows = pruner_table(pruners_table(PRUNERS, {"score": (300, 0.5)})).set_index("pruner")
    assert list(rows.index) == ["random", "score"]
    score = rows.loc["score"]
    assert (score["fraction"], score["seeds"], score["clean"]) == (0.5, 2, pytest.approx(0.8))
    assert score["robust"] == pytest.approx(0.655)
    assert score["against_random"] == pytest.approx(0.045)
    assert score["against_random_low"] == pytest.approx(0.045 - 12.7062 * 0.005, rel=1e-4)
    assert score["against_same_cost"] == pytest.approx(-0.045)
    assert score["headroom"] == pytest.approx(0.5)
    assert score["cost"] == pytest.approx(0.8)
    # Training is half of the full run's passes; selection takes a tenth of its 5 seconds more.
    assert score["cost_seconds"] == pytest.approx(0.5 * 5.5 / 5)
    # 500 passes for 250 images: 2 each; an epoch of 100 images is 200 passes, and 4 seconds.
    assert score["selection_passes"] == pytest.approx(300 / 200)
    assert score["selection_seconds"] == pytest.approx(0.5 / 2)
    assert (score["against_random_pairs"], score["against_random_verdict"]) == ("2 of 2 seeds", "no verdict: 2 seeds")
    assert np.isnan(score["against_random_p"])
    assert rows.loc["random", "against_random_verdict"] == ""
    assert np.isnan(rows.loc["random", "against_random"])
    assert np.isnan(rows.loc["random", "against_same_cost"])
    assert rows.loc["random", "selection_passes"] == 0


def test_headroom_is_of_the_seeds_that_all_three_arms_have() -> None:
    """The fourth seed is no pair with the control, and would mix its gain with a room that it is not in."""
    arms = {("random", 1.0): [0.8] * 4, ("random", 0.5): [0.58] * 4, ("score", 0.5): [0.60, 0.60, 0.60, 0.50]}
    arms |= {("score", 1.0): [0.8] * 4, ("same_cost(score)", 0.5): [0.62] * 3}
    table = pruners_table({point: [(0.9, value) for value in values] for point, values in arms.items()}, {})
    score = pruner_table(table).set_index("pruner").loc["score"]
    assert score["against_random"] == pytest.approx(-0.005)
    assert score["headroom"] == pytest.approx(0.5)


def test_all_differences_of_the_table_of_pruners_are_judged_together() -> None:
    reached = {
        "random": [0.60, 0.62, 0.61],
        "good": [0.66, 0.68, 0.66],
        "bad": [0.51, 0.53, 0.50],
        "same_cost(good)": [0.70, 0.73, 0.71],
        "same_cost(bad)": [0.66, 0.69, 0.62],
    }
    points = {(arm, 0.5): [(0.9, value) for value in values] for arm, values in reached.items()}
    table = pruners_table({("random", 1.0): [(0.9, 0.8)] * 3, **points}, {})
    rows = pruner_table(table).set_index("pruner")
    pairs = {
        ("good", "against_random"): "random",
        ("bad", "against_random"): "random",
        ("good", "against_same_cost"): "same_cost(good)",
        ("bad", "against_same_cost"): "same_cost(bad)",
    }
    p = {pair: stats.ttest_rel(reached[pair[0]], reached[rival]).pvalue for pair, rival in pairs.items()}
    ordered = sorted(p, key=p.__getitem__)
    expected = np.maximum.accumulate([(4 - place) * p[pair] for place, pair in enumerate(ordered)])
    for (pruner, name), value in zip(ordered, expected, strict=True):
        assert rows.loc[pruner, f"{name}_p"] == pytest.approx(min(value, 1))
    says = [rows.loc[pruner, f"{name}_verdict"].split()[0] for pruner, name in pairs]
    assert says == ["better", "worse", "worse", "worse"]
    # One run of the rival diverged: two pairs are left, and a verdict less.
    lost = (table["arm"] == "same_cost(bad)") & (table["seed"] == 1)
    table.loc[lost, ["status", "robust"]] = ["diverged", np.nan]
    bad = pruner_table(table).set_index("pruner").loc["bad"]
    assert bad["against_same_cost_pairs"] == "2 of 3 seeds, 1 diverged left out"
    assert bad["against_same_cost_verdict"] == "no verdict: 2 seeds"


def test_the_printed_table() -> None:
    shown = printable(table())
    assert shown["data kept"].tolist() == ["100 %", "40 %", "100 %"]
    assert shown["matched run keeps"].tolist() == ["", "", "40 %"]
    assert shown["cost / full run"].tolist() == ["1.000", "0.400", "0.400"]
    assert shown["robust accuracy, %"][0].startswith("61.0 [")
    rows = table()
    rows.loc[(rows["matched_fraction"] == 1) & (rows["seed"] == 1), ["clean", "robust"]] = np.nan
    assert printable(rows)["seeds"].tolist() == ["1 of 2", "2", "2"]
    assert printable(rows)["robust accuracy, %"][0] == "60.0"
    one = printable(table()[table()["seed"] == 0])
    assert one["robust accuracy, %"].tolist() == ["60.0", "50.0", "55.0"]
    assert one["clean accuracy, %"].tolist() == ["90.0", "80.0", "84.0"]


def test_the_printed_table_has_a_run_that_arms_share_once_and_no_empty_column() -> None:
    rows = table()
    shared = rows[rows["matched_fraction"] == 1]
    again = [shared.assign(arm="redraw"), shared.assign(arm="same_cost(random)", control="same_cost")]
    doubled = pd.concat([rows, *again], ignore_index=True).assign(worst_class_robust=np.nan)
    pd.testing.assert_frame_equal(printable(doubled), printable(rows))
    assert "its worst class, %" in printable(rows.assign(worst_class_robust=0.1))
    assert "cost / full run" not in printable(rows[rows["matched_fraction"] < 1])
    # The same key below all the data is no run that all share: two arms happen to keep the same.
    twin = pd.concat([rows, rows[rows["matched_fraction"] < 1].assign(arm="twin", control=None)], ignore_index=True)
    assert "twin" in set(printable(twin)["arm"])


def test_what_is_left_after_each_attack() -> None:
    rows = table()
    rows = rows.assign(
        robust_fgsm=0.7, **{"robust_autoattack/apgd": rows["robust"] + 0.02, "robust_autoattack": rows["robust"]}
    )
    shown = after_attacks(rows)
    assert shown.columns.tolist() == ["arm", "data kept", "matched run keeps", "clean", "fgsm", "autoattack/apgd"]
    means = rows.groupby(["arm", "matched_fraction"])["robust"].mean()
    for row in shown.to_dict("records"):
        fraction = float((row["matched run keeps"] or row["data kept"]).split()[0]) / 100
        assert row["autoattack/apgd"] == f"{100 * means[row['arm'], fraction] + 2:.1f}"
        assert row["fgsm"] == "70.0"
    assert shown["data kept"].tolist() == ["100 %", "40 %", "100 %"]
    assert shown["matched run keeps"].tolist() == ["", "", "40 %"]
