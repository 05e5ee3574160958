"""Pruned runs against what costs as much, and against what is as robust."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.rivals import (
    at_equal_cost,
    at_equal_robustness,
    equal_cost_figure,
    equal_cost_findings,
    equal_robustness_findings,
)
from advprune_core.analysis.seconds import mean_seconds
from advprune_core.attacks.evaluate import pack_bits
from advprune_core.base.settings import ConfigError
from tests.made_up import seeded_runs, stacked

TABLE = stacked(
    seeded_runs("way: random", 0.60),
    seeded_runs("dear: random", 0.70, cost=120),
    seeded_runs("cheap: random", 0.50, cost=60),
    seeded_runs("way: random", 0.61, fraction=0.5),
    seeded_runs("way: aum", 0.65, fraction=0.5, pruner="aum", wrong_labels=0.1),
    seeded_runs("noise: random", 0.30, dataset="noisy"),
)


def test_rivals_cost_no_more_and_are_of_the_same_data() -> None:
    pairs = set(at_equal_cost(TABLE))
    everything = {((arm, 0.5), ("way: random", 1.0)) for arm in ("way: random", "way: aum")}
    assert pairs == everything | {(("way: aum", 0.5), ("way: random", 0.5))}, "what costs 0.6 of it is easy to beat"


def test_another_network_is_no_rival_as_its_forwards_cost_something_else() -> None:
    big = TABLE["arm"].isin(["cheap: random"])
    table = TABLE.assign(model=np.where(big, "preact_resnet", "small_cnn"))
    few = table[~((table["arm"] == "way: random") & (table["fraction"] == 1))]
    assert not [pair for pair in at_equal_cost(few) if ("cheap: random", 1.0) in pair]
    own = seeded_runs("cheap: aum", 0.50, fraction=0.5, cost=60, pruner="aum", model="preact_resnet")
    figure = equal_cost_figure(stacked(table, own))
    titles = [axis.get_title("left") for axis in figure.axes]
    plt.close(figure)
    assert titles == ["digits, L-inf 2/16, small_cnn", "digits, L-inf 2/16, preact_resnet"]


def test_what_costs_less_is_a_rival_where_nothing_costs_as_much_and_its_cost_is_told() -> None:
    table = TABLE[~((TABLE["arm"] == "way: random") & (TABLE["fraction"] == 1))]
    cheap = ("cheap: random", 1.0)
    assert {rival for ours, rival in at_equal_cost(table) if ours == ("way: random", 0.5)} == {cheap}
    text = equal_cost_findings(table)
    assert "against *cheap: all the data*, which costs 0.60 of it: " in text
    assert text.count("; no verdict, as it costs less.") == 2, "and is not judged with what costs as much"
    assert "5 % over 1 comparison together" in text
    figure = equal_cost_figure(table.assign(norm="linf", eps=0.125))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    plt.close(figure)
    assert labels.count("against cheap: all the data, which costs 0.60 of it") == 2


@pytest.mark.parametrize(
    ("cost", "rivals"),
    [(93, {"near", "cheap"}), (96, {"near"}), (104, {"near"}), (107, {"cheap"})],
)
def test_what_costs_as_much_is_within_five_per_cent(cost: float, rivals: set[str]) -> None:
    """Above that no rival; below that none that costs as much, so that all that costs less stand there."""
    table = stacked(
        seeded_runs("way: aum", 0.65, fraction=0.5, pruner="aum"),
        seeded_runs("near: random", 0.60, cost=cost),
        seeded_runs("cheap: random", 0.50, cost=60),
    )
    found = at_equal_cost(table)
    assert set(found) == {(("way: aum", 0.5), (f"{rival}: random", 1.0)) for rival in rivals}
    judged = [line for line in equal_cost_findings(table).splitlines() if "no verdict, as it costs less" not in line]
    assert any("against *near" in line for line in judged) == (rivals == {"near"})


@pytest.mark.parametrize(("cost", "listed"), [(93, True), (97, False)])
def test_what_costs_five_per_cent_less_is_not_yet_cheaper(cost: float, listed: bool) -> None:
    table = stacked(seeded_runs("full: random", 0.6), seeded_runs("full: half", 0.6, fraction=0.5, cost=cost))
    text = equal_robustness_findings(table, reference="full: random", margin=0.02)
    assert ("full: half" in text) == listed


def test_a_speed_up_is_the_mean_of_those_of_the_seeds() -> None:
    """Their costs may differ: 4, 1, 2, 2 and 1 times as cheap, 2 on average; their sums stand as 1200 to 500."""
    full = seeded_runs("full: random", 0.6).assign(cost=[800, 100, 100, 100, 100])
    half = seeded_runs("full: half", 0.6, fraction=0.5).assign(cost=[200, 100, 50, 50, 100])
    full["cost_seconds"], half["cost_seconds"] = 10 * full["cost"], 5 * half["cost"]
    found = at_equal_robustness(stacked(full, half), reference="full: random", margin=0.02).set_index("arm")
    assert found.loc["full: half", "speed_up"] == pytest.approx(2)
    assert found.loc["full: half", "speed_up_seconds"] == pytest.approx(4)


def test_a_shorter_run_on_all_data_is_a_rival_and_no_pruned_run() -> None:
    control = seeded_runs("way: same_cost(random)", 0.58, cost=100, control="same_cost", pruner="full")
    pairs = at_equal_cost(stacked(TABLE, control))
    assert (("way: aum", 0.5), ("way: same_cost(random)", 1.0)) in pairs
    assert not [ours for ours, _ in pairs if "same_cost" in ours[0]]


def test_a_pruner_that_ends_on_all_the_data_is_a_pruned_run_all_the_same() -> None:
    late = seeded_runs("way: infobatch", 0.66, fraction=0.5, pruner="infobatch", kept=1000, cost=100)
    pairs = set(at_equal_cost(stacked(TABLE, late)))
    assert (("way: infobatch", 0.5), ("way: random", 1.0)) in pairs
    assert not [rival for _, rival in pairs if rival == ("way: infobatch", 0.5)]


def test_what_is_tested_by_another_attack_is_not_known_to_be_as_robust() -> None:
    table = TABLE.assign(robust_pgd20=0.5)
    (known,) = at_equal_robustness(table, reference="way: random", margin=0.02).query("arm == 'way: aum'")["as_robust"]
    assert known is True
    table.loc[table["arm"] == "way: aum", "robust_pgd20"] = np.nan
    (known,) = at_equal_robustness(table, reference="way: random", margin=0.02).query("arm == 'way: aum'")["as_robust"]
    assert known is None


def test_runs_that_have_two_names_are_one_rival() -> None:
    """The control of a run on all the data is that run; two pruners of one cost have one control."""
    full = TABLE[(TABLE["arm"] == "way: random") & (TABLE["fraction"] == 1)]
    again = [full.assign(arm=f"way: same_cost({arm})", control="same_cost") for arm in ("random", "aum")]
    assert list(at_equal_cost(stacked(TABLE, *again))) == list(at_equal_cost(TABLE))


def test_what_is_attacked_within_another_radius_is_no_rival() -> None:
    wider = TABLE.assign(
        eps=0.25, arm="wide " + TABLE["arm"], variant="wide " + TABLE["variant"], key="w" + TABLE["key"]
    )
    pairs = at_equal_cost(stacked(TABLE.assign(eps=0.125), wider))
    assert all(ours[0].startswith("wide ") == rival[0].startswith("wide ") for ours, rival in pairs)
    assert len(pairs) == 2 * len(at_equal_cost(TABLE))


def test_differences_are_those_of_the_seeds() -> None:
    found = at_equal_cost(TABLE)[("way: aum", 0.5), ("way: random", 1.0)]
    ours, theirs = (TABLE[(TABLE["arm"] == arm) & (TABLE["fraction"] == f)]["robust"].to_numpy()
                    for arm, f in (("way: aum", 0.5), ("way: random", 1.0)))  # fmt: skip
    assert found.difference.mean == pytest.approx((ours - theirs).mean())
    assert found.difference.seeds == 5


def test_findings_say_who_wins_and_what_is_kept_wrongly() -> None:
    text = equal_cost_findings(TABLE)
    (line,) = [line for line in text.splitlines() if line.startswith("- **way: aum")]
    assert "65.0" in line
    assert "10 % of what it keeps is wrongly labelled" in line
    told = [line for line in text.splitlines() if line.startswith("  - against *")]
    assert len(told) == 3
    assert all("Holm p" in line or "no verdict" in line for line in told)
    assert "+5.0 points" in text
    alone = equal_cost_findings(TABLE[TABLE["fraction"] == 1])
    assert alone == "No pruned run stands beside one on all the data that costs no more."


def test_the_figure_has_a_panel_for_each_data_set_and_a_point_for_each_pair() -> None:
    more = stacked(TABLE, seeded_runs("noise: aum", 0.4, fraction=0.5, dataset="noisy", pruner="aum"))
    more = more.assign(norm="linf", eps=0.125)
    figure = equal_cost_figure(more)
    try:
        assert [axis.get_title(loc="left") for axis in figure.axes] == ["digits, L-inf 2/16", "noisy, L-inf 2/16"]
        labels = [[label.get_text() for label in axis.get_yticklabels()] for axis in figure.axes]
        assert [sum(name.startswith("against ") for name in names) for names in labels] == [3, 1]
        assert "noise: aum, 50 %" in labels[1][0]
        for axis in figure.axes:
            gains = [line.get_xdata()[0] for line in axis.lines if line.get_marker() in ("o", "^", "v", "p")]
            assert len(gains) == sum(label.get_text().startswith("against ") for label in axis.get_yticklabels())
        figure.canvas.draw()
    finally:
        plt.close(figure)


def test_long_names_leave_the_figure_its_room() -> None:
    long = {"way: aum": "plain first, 40 % wrong: dynamic_uncertainty warmup_epochs=5 keep=lowest window=4"}
    figure = equal_cost_figure(TABLE.assign(arm=TABLE["arm"].replace(long), norm="linf", eps=0.125))
    figure.canvas.draw()
    axis = figure.axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    box = axis.get_position()
    plt.close(figure)
    assert "plain first, 40 % wrong: dynamic_uncertainty warmup_epochs=5\nkeep=lowest window=4, 50 %" in labels
    assert box.width > 0.4


@pytest.mark.parametrize(
    ("robust", "margin", "expected"),
    [(0.61, 0.02, True), (0.595, 0.02, True), (0.50, 0.02, False), (0.579, 0.02, None)],
)
def test_as_robust_is_an_interval_above_the_margin(robust: float, margin: float, expected: bool | None) -> None:
    table = stacked(seeded_runs("full: random", 0.6), seeded_runs("full: half", robust, fraction=0.5, cost=50))
    found = at_equal_robustness(table, reference="full: random", margin=margin).set_index("arm")
    assert found.loc["full: half", "as_robust"] is expected
    assert found.loc["full: half", "speed_up"] == found.loc["full: half", "speed_up_seconds"] == 2.0
    assert found.loc["full: random", "as_robust"] is True


def test_as_robust_holds_for_other_images_too() -> None:
    """On every seed six images are lost and four gained: a point less, of which seeds are sure, and images not."""
    full = np.random.default_rng(0).random((5, 200)) < 0.6
    full[:, :6], full[:, 6:10] = True, False
    half = full.copy()
    half[:, :10] = ~full[:, :10]
    half[0, 10] = ~full[0, 10]  # or seeds have no spread
    tables = []
    for arm, fraction, outcomes in (("full: random", 1.0, full), ("full: half", 0.5, half)):
        table = seeded_runs(arm, 0.6, fraction=fraction, test_images=200)
        tables.append(table.assign(robust=outcomes.mean(1), outcomes=[pack_bits(row) for row in outcomes]))
    found = at_equal_robustness(stacked(*tables), reference="full: random", margin=0.03)
    row = found.set_index("arm").loc["full: half"]
    assert row["difference_low"] > -0.03 > row["images_low"]
    assert row["as_robust"] is None


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_cannot_tell(seeds: int) -> None:
    table = stacked(seeded_runs("full: random", 0.6), seeded_runs("full: half", 0.9, fraction=0.5, cost=50))
    table = table[table["seed"] < seeds]
    text = equal_robustness_findings(table, reference="full: random", margin=0.02)
    assert "Nothing that is cheaper is known to lose at most 2 points" in text
    assert "cannot tell: full: half, 50 %: 2.00x cheaper, +" in text


def test_nothing_is_as_robust_as_what_is_not_robust() -> None:
    table = stacked(seeded_runs("full: random", 0.02), seeded_runs("full: half", 0.03, fraction=0.5, cost=50))
    text = equal_robustness_findings(table.assign(classes=10), reference="full: random", margin=0.02)
    assert text.startswith("*full: random* on all the data is no more robust than a constant answer")
    assert "cheaper" not in text


def test_the_cheapest_that_is_as_robust_comes_first() -> None:
    table = stacked(
        seeded_runs("full: random", 0.6),
        seeded_runs("full: half", 0.6, fraction=0.5, cost=50),
        seeded_runs("full: fifth", 0.4, fraction=0.2, cost=20),
        seeded_runs("full: third", 0.6, fraction=0.33, cost=33),
        seeded_runs("full: dear", 0.7, cost=200),
    )
    text = equal_robustness_findings(table, reference="full: random", margin=0.02)
    assert text.startswith("At most 2 points below *full: random* on all the data, the cheapest is **full: third, 33 %")
    assert text.index("as robust: full: half") < text.index("less robust: full: fifth")
    assert "dear" not in text


def test_seconds_of_two_machines_are_not_compared() -> None:
    """Only the seeds of which one machine has both runs; costs in passes are of all."""
    full = seeded_runs("full: random", 0.6).assign(run_device="a laptop", threads=1, speed="exact")
    half = seeded_runs("full: half", 0.6, fraction=0.5, cost=50).assign(run_device="a laptop", threads=1, speed="exact")
    half.loc[half["seed"] > 1, ["run_device", "cost_seconds"]] = "a GPU", 0.01
    mixed = at_equal_robustness(stacked(full, half), reference="full: random", margin=0.02).set_index("arm")
    assert mixed.loc["full: half", "speed_up"] == mixed.loc["full: half", "speed_up_seconds"] == 2.0
    apart = stacked(full, half.assign(run_device="a GPU"))
    elsewhere = at_equal_robustness(apart, reference="full: random", margin=0.02).set_index("arm")
    assert elsewhere.loc["full: half", "speed_up"] == 2.0
    assert pd.isna(elsewhere.loc["full: half", "speed_up_seconds"])
    assert mean_seconds(full) == full["cost_seconds"].mean()
    assert pd.isna(mean_seconds(half))


def test_a_reference_that_was_not_run_on_all_the_data_is_refused() -> None:
    table = stacked(seeded_runs("TRADES: random", 0.3, fraction=0.3), seeded_runs("MART: random", 0.3))
    for told in (at_equal_robustness, equal_robustness_findings):
        with pytest.raises(ConfigError, match=r"no run of 'TRADES: random' on all .* that were: \['MART: random'\]"):
            told(table, reference="TRADES: random", margin=0.02)
