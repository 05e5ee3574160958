"""Advice: against budgets that were held back, and against choices made by hand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from advprune_core.analysis.advice import WIDEST, Request, advise, choose, command
from advprune_core.analysis.fronts import SETTING, Plan, Way, read_points, ways_of
from advprune_core.analysis.situations import Situation, nearest
from advprune_core.attacks.base import ATTACKS
from advprune_core.base.settings import ConfigError
from advprune_core.cli.options import value_of
from advprune_core.datasets.base import load_dataset
from advprune_core.study.plans import Pace
from advprune_core.trainers.config import RunConfig
from tests.analysis.test_fronts import points

DIGITS = Situation("digits", 0.0, 1100, "1x8x8", "small_cnn", "linf", 0.125)


def _name(way: Way) -> tuple[Any, ...]:
    return way.trainer, way.pruner, None if way.pruner == "full" else way.points["epochs"].iloc[0]


def held_back() -> Iterator[tuple[str, Plan, float]]:
    """Each trainer of each setting by itself, asked for each of its costs without the points that have it.

    Of those within what is left: a budget below that is answered by "cannot tell", one above by a cheaper plan.
    """
    for place, rows in read_points().groupby([*SETTING, "trainer"]):
        for cost in sorted(set(rows["cost"])):
            found = choose(rows[rows["cost"] != cost], cost)
            if found is None or found.plan.between[0] == found.plan.between[1]:
                continue
            (way,) = [way for way in ways_of(rows) if _name(way) == _name(found.plan.way)]
            if cost in way.costs:
                robust = json.loads(way.points["robust"][list(way.costs).index(cost)])
                yield f"{place[0]}, {place[-1]}, {cost:.0f}", found.plan, float(np.mean(robust))


@pytest.mark.slow(seconds=40)
def test_held_back_budgets_lie_within_the_advised_interval() -> None:
    """At least ten budgets, eight of ten within; every interval is narrow enough to be given."""
    asked = list(held_back())
    assert len(asked) >= 10
    outside = [name for name, plan, truth in asked if not plan.robust.low <= truth <= plan.robust.high]
    assert len(outside) <= 0.2 * len(asked), outside
    assert all(plan.robust.high - plan.robust.low <= WIDEST for _, plan, _ in asked)


FULL, HALF = ("{}", "full", 1.0, 30.0, 100.0, 0.60), ("{}", "random", 0.5, 30.0, 50.0, 0.50)
SHORT = ("{}", "full", 1.0, 15.0, 50.0, 0.55)


@pytest.mark.parametrize(
    ("rows", "budget", "expected"),
    [
        ([FULL, HALF, SHORT], 100, ("full", 100, "random")),
        ([FULL, HALF, SHORT], 50, ("full", 50, "random")),
        ([FULL, HALF], 50, ("random", 50, None)),  # nothing on all the data costs so little
        ([FULL, HALF, SHORT], 49, None),
        # Clearly better than all the data: pruned. Not to be told apart from it: all the data.
        ([FULL, ("{}", "aum", 0.5, 60.0, 100.0, 0.65)], 100, ("aum", 100, "full")),
        ([FULL, ("{}", "aum", 0.5, 60.0, 100.0, 0.61)], 100, ("full", 100, "aum")),
        # As good and cheaper, which is no gain on what would be as cheap on all the data, and may have been run.
        ([FULL, ("{}", "aum", 0.5, 30.0, 50.0, 0.60)], 100, ("full", 100, "aum")),
        ([FULL, SHORT, ("{}", "aum", 0.5, 30.0, 50.0, 0.54)], 70, ("full", 70, "aum")),
        # As good and cheaper on all the data; better, and dearer.
        ([FULL, ('{"steps": 1}', "full", 1.0, 30.0, 30.0, 0.59)], 100, ("full", 30, None)),
        ([FULL, ('{"steps": 1}', "full", 1.0, 30.0, 30.0, 0.55)], 100, ("full", 100, None)),
    ],
)
def test_the_cheapest_of_the_best(rows: list[Any], budget: float, expected: tuple[str, float, str] | None) -> None:
    found = choose(points(rows), budget)
    if found is None:
        assert expected is None
    else:
        plan, rival = found.plan, found.rival
        assert (plan.way.pruner, plan.cost, rival and rival.way.pruner) == expected


def test_of_pruned_plans_the_best_that_lies_above_all_the_data_is_taken() -> None:
    """Not one that may lie there; and what has no interval, as its seeds are level, is no bar that one lies above."""
    rows = points([SHORT, ("{}", "craig", 0.5, 30.0, 50.0, 0.7), ("{}", "aum", 0.5, 30.0, 50.0, 0.68)])
    wide = rows.assign(robust=rows["robust"].where(rows["pruner"] != '"craig"', "[0.33, 0.77, 1.0]"))
    for table, pruner in ((rows, "craig"), (wide, "aum")):
        found = choose(table, 50)
        assert found is not None
        assert (found.plan.way.pruner, found.compared) == (pruner, True)
    sure = choose(rows.assign(robust=rows["robust"].where(rows["pruner"] != '"full"', "[0.5, 0.5, 0.5]")), 50)
    assert sure is not None
    assert not sure.plan.pruned


@pytest.mark.parametrize(("spread", "pruned"), [(0.01, True), (0.1, False)])
def test_pruned_lies_above_every_run_on_all_the_data_and_not_above_the_best_alone(spread: float, pruned: bool) -> None:
    """One that is worse on average, and known less well, may be as good as the pruned one."""
    fast = ('{"steps": 1}', "full", 1.0, 30.0, 90.0, 0.55)
    rows = points([FULL, fast, ("{}", "aum", 0.5, 60.0, 100.0, 0.65)])
    seeds = json.dumps([0.55 - spread, 0.55, 0.55 + spread])
    found = choose(rows.assign(robust=rows["robust"].where(rows["trainer"] == "{}", seeds)), 100)
    assert found is not None
    assert found.plan.pruned == pruned


def test_what_is_much_cheaper_on_all_the_data_compares_with_nothing() -> None:
    brief = ("{}", "full", 1.0, 1.5, 5.0, 0.30)
    found = choose(points([brief, ("{}", "aum", 0.5, 30.0, 50.0, 0.65)]), 50)
    assert found is not None
    assert (found.plan.way.pruner, found.compared) == ("aum", False)


def test_a_pruned_run_beside_another_way_of_training_alone_is_no_reason_to_prune() -> None:
    """Fewer epochs of its own way might do as well, or better."""
    fast, half = ('{"steps": 1}', "full", 1.0, 30.0, 30.0, 0.55), ("{}", "aum", 0.5, 30.0, 50.0, 0.65)
    apart, beside = choose(points([fast, half]), 50), choose(points([fast, half, SHORT]), 50)
    assert apart is not None
    assert beside is not None
    assert (apart.plan.way.pruner, apart.compared) == (beside.plan.way.pruner, not beside.compared) == ("aum", False)
    text = told(Request.create(cost=50 / (17 * 30)), points([fast, half]))
    assert "Cannot tell whether to prune: nothing on all the data was measured in this way of training at this" in text
    assert "Best that was measured: 50 % of the data, kept by 'aum'" in text


def test_where_nothing_pruned_was_measured_nothing_is_said_against_it() -> None:
    found = choose(points([FULL, SHORT]), 100)
    assert found is not None
    assert (found.plan.pruned, found.compared) == (False, False)
    text = told(Request.create(cost=1.0), points([FULL, SHORT]))
    assert "Cannot tell whether to prune: nothing pruned was measured at this cost. Best that was measured: all" in text
    assert "Do not prune: all the data" in told(Request.create(cost=1.0), points([FULL, HALF]))


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        (DIGITS, ("digits", 0.0, 0.125)),
        (replace(DIGITS, eps=0.2), ("digits", 0.0, 0.1875)),
        (replace(DIGITS, wrong_labels=0.4), ("digits", 0.4, 0.125)),
        (replace(DIGITS, dataset="folder", shape="3x32x32", wrong_labels=0.5), ("cifar10", 0.4, 8 / 255)),
        (replace(DIGITS, dataset="folder", shape="3x64x64"), ("cifar10", 0.0, 8 / 255)),
        (replace(DIGITS, dataset="npz", shape="1x28x28", images=50_000), ("fashion_mnist", 0.0, 0.1)),
        # Few images are like the digits', whatever their size: epochs on 58,000 say nothing of them.
        (replace(DIGITS, dataset="npz", shape="3x16x16", images=178, eps=16 / 255), ("digits", 0.0, 0.125)),
        (replace(DIGITS, dataset="npz", shape="1x28x28", images=1500), ("digits", 0.0, 0.125)),
    ],
)
def test_the_nearest_setting(asked: Situation, place: tuple[str, float, float]) -> None:
    found = nearest(read_points(), asked)
    assert len(found.drop_duplicates(list(SETTING))) == 1
    row = found.iloc[0]
    assert (row["dataset"], row["wrong_labels"]) == place[:2]
    assert row["eps"] == pytest.approx(place[2])


#: What the nearest setting is chosen by, the first before all others, and what lies further away in it than `DIGITS`.
FURTHER = {
    "wrong_labels": {"wrong_labels": 0.4},
    "dataset": {"dataset": "cifar10", "shape": "1x8x8", "images": 1100},
    "size": {"images": 2200},
    "norm": {"norm": "l2"},
    "eps": {"eps": 0.25},
    "model": {"model": "wrn"},
}


@pytest.mark.parametrize("first", FURTHER)
def test_what_is_asked_for_first_outweighs_all_that_comes_after(first: str) -> None:
    """A setting that is further away in all that comes after, and has fewer points, is nearer than one in it alone."""
    asked = replace(DIGITS, dataset="npz") if first == "size" else DIGITS  # which counts among other data sets only
    after: dict[str, Any] = {}
    for name in list(FURTHER)[list(FURTHER).index(first) + 1 :]:
        after |= FURTHER[name]
    near, far = (points([FULL]).assign(test=test) for test in ("near", "far"))
    table = pd.concat([far.assign(**FURTHER[first]), near.assign(**after), far.assign(**FURTHER[first])])
    assert nearest(table, asked)["test"].tolist() == ["near"]


def test_of_two_settings_that_are_as_near_the_one_with_most_points_is_taken() -> None:
    few, many = points([FULL]).assign(test="a"), points([FULL, SHORT]).assign(test="b")
    assert nearest(pd.concat([few, many]), DIGITS)["test"].tolist() == ["b"] * 2


def told(request: Request, measured: pd.DataFrame | None = None, **settings: Any) -> str:
    """Advice on a machine that takes 0.1 to 0.2 ms for a forward-equivalent: a full run takes 56 to 112 seconds."""
    config = RunConfig.flat(**settings)
    dataset = load_dataset(config.dataset)
    table = read_points() if measured is None else measured
    return advise(table, config, dataset, request, lambda _: Pace(1e-4, 2e-4, 64))


def test_what_is_said_of_the_digits() -> None:
    text = told(Request.create(cost=0.3))
    assert "Do not prune: all the data, trainer n_fgsm (1 attack step" in text
    assert "  expected: " in text
    assert "advprune run --dataset digits --model small_cnn" in text
    assert "extrapolated" not in text
    # The budget in seconds buys what the slower pace surely ends in: 112 seconds are the full run.
    whole = told(Request.create(budget="112.2 s"))
    assert "Budget: 1.9 minutes, 1 of a full run (30 epochs on the 1,100 images that are not held out with" in whole
    assert "a full run takes 56 seconds to 1.9 minutes on this machine" in whole
    assert "Budget: 20 minutes, 11 full runs (30 epochs" in told(Request.create(budget="20 min"))
    assert told(Request.create(cost="1")).splitlines()[2:] == whole.splitlines()[2:]


def test_with_many_wrong_labels_pruning_is_advised() -> None:
    text = told(Request.create(cost=0.3, wrong_labels=0.4))
    assert "Prune: 60 % of the data, kept by 'aum'" in text
    assert "against all the data" in text
    assert "40 % of the labels wrong" in text
    assert "extrapolated" not in text
    assert told(Request.create(cost=0.3), dataset={"digits": {"label_noise": 0.4}}).count("Prune: 60 %") == 1
    assert "Prune: 80 % of the data, kept by 'aum'" in told(Request.create(cost=0.3, wrong_labels=0.2))
    some = told(Request.create(cost=0.3, wrong_labels=0.1))  # which was measured on CIFAR-10 alone
    assert "Do not prune" in some
    assert "10 % of the labels wrong), preact_resnet" in some
    assert "extrapolated to digits" in some
    assert "of the labels wrong: whether" not in some
    few = told(Request.create(cost=0.3, wrong_labels=0.05))
    assert "Do not prune" in few
    assert "extrapolated to 5 % of the labels wrong" in few
    assert "reached there" in few


@pytest.mark.parametrize(("cost", "interpolated"), [(0.2, True), (0.3, False)])
def test_a_rival_that_was_not_run_at_its_cost_is_said_to_be_interpolated(cost: float, interpolated: bool) -> None:
    (beside,) = [line for line in told(Request.create(cost=cost)).splitlines() if line.startswith("  against ")]
    points = read_points().query("pruner.str.contains('random') and dataset == 'digits'")
    kept = float(beside.partition("against ")[2].partition(" %")[0]) / 100
    assert (kept in set(points["fraction"])) != interpolated
    assert beside.endswith(", interpolated between costs that were measured") == interpolated


def test_the_command_is_one_that_runs() -> None:
    """Its options make the very run that was measured."""
    text = told(Request.create(cost=0.3, wrong_labels=0.4))
    (line,) = [line for line in text.splitlines() if line.strip().startswith("advprune run")]
    words = shlex.split(line)[2:]
    options = {name[2:].replace("-", "_"): value_of(value) for name, value in zip(words[::2], words[1::2], strict=True)}
    config = RunConfig.flat(**options)
    assert (config.pruner.name, config.fraction, config.optimisation.plain_epochs) == ("aum", 0.6, 10)
    assert (config.attack.start.name, config.optimisation.epochs) == ("noise", 50)


def test_the_command_tests_by_what_was_measured() -> None:
    """Of every test in the published points; PGD-40, which `run` tests by itself, is left out."""
    config = RunConfig.flat()
    for test, rows in read_points().groupby("test"):
        plan = ways_of(rows)[0].at(1e9)
        assert plan is not None
        words = shlex.split(command(plan, config, str(test)))
        attacks = [value_of(words[place + 1]) for place, word in enumerate(words) if word == "--evaluation"]
        labels = [ATTACKS.parse(attack).label() for attack in attacks]
        assert labels == ([] if test == "pgd40+pgd40_margin" else str(test).split("+"))


def test_labels_that_somebody_is_to_make_wrong_are_named() -> None:
    line = "to make some wrong: label_noise: 0.4 in --dataset"
    assert line in told(Request.create(cost=0.3, wrong_labels=0.4))
    assert line not in told(Request.create(cost=0.3), dataset={"digits": {"label_noise": 0.4}})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"eps": "1/16"}, "extrapolated to L-inf 1/16"),
        ({"eps": "4/255"}, "extrapolated to L-inf 4/255;"),
        ({"norm": "l2", "eps": 0.25}, "extrapolated to L2 0.25"),
        ({"model": {"small_cnn": {"width": 4}}}, 'extrapolated to the network {"small_cnn": {"width": 4}}'),
        ({"dataset": {"digits": {"limit": 500}}}, "extrapolated to 424 training images"),
    ],
)
def test_what_was_not_measured_is_named(settings: dict[str, Any], said: str) -> None:
    text = told(Request.create(cost=0.3), **settings)
    assert said in text
    assert "reached there" in text
    assert "expected:" not in text


def test_few_images_get_small_batches() -> None:
    """A command that takes enough steps to learn, of the very radius that was asked for, and says what is new in it."""
    rows = points([('{"batch_size": 128, "lr": 0.2}', "full", 1.0, 15.0, 50.0, 0.6)]).assign(images=48_000)
    seen = []

    def pace(config: RunConfig) -> Pace:
        seen.append(config.optimisation.batch_size)
        return Pace(1e-4, 2e-4, 8)

    config = RunConfig.flat(dataset={"digits": {"limit": 180}}, eps="4/255")
    dataset = load_dataset(config.dataset)
    n = len(dataset.train)
    assert 80 <= n < 160  # one step of 128, ten of 8
    text = advise(rows, config, dataset, Request.create(cost=1), pace)
    (line,) = [line for line in text.splitlines() if line.strip().startswith("advprune run")]
    assert "--batch-size 8 --lr 0.0125 " in line
    assert "--eps 4/255 " in line
    assert text.count("not measured: batch size 8 and learning rate 0.0125 instead of 128 and 0.2") == 1
    assert f"for {n // 8} steps in an epoch of your {n} images instead of {n // 128}" in text
    assert seen == [8]  # what is timed is what is advised
    assert "batch size 8" not in told(Request.create(cost=1), rows)


def test_more_and_less_than_was_measured_cannot_be_told() -> None:
    rows = points([FULL, HALF, SHORT])
    full = 17 * 30  # a full run of 30 epochs; the made-up ones cost 50 to 100
    assert "Cannot tell: the cheapest run that was measured costs 2.0 times as much." in told(
        Request.create(cost=25 / full), rows
    )
    much = told(Request.create(cost=1000 / full), rows)
    first = much.splitlines()[2]
    assert first.startswith("Do not prune: all the data, ")
    assert first.endswith(
        "). That is the best of what was measured; cannot tell whether this budget buys better: no run that was "
        "measured costs more than 0.1 of it."
    )
    assert "10% of the budget" in much
    only = told(Request.create(cost=50 / full), points([FULL, HALF]))
    first = only.splitlines()[2]
    assert first.startswith(
        "Cannot tell whether to prune: nothing on all the data was measured at this cost. Best that was measured: "
        "50 % of the data, "
    )
    between = told(Request.create(cost=75 / full), rows)
    assert "a cost between 0.098 and 0.196 of a full run: interpolated" in between


def test_an_interval_that_is_too_wide_is_no_expectation() -> None:
    wide = points([FULL]).assign(robust="[0.5, 0.6, 0.7]")
    text = told(Request.create(cost=1), wide)
    assert "robust: cannot tell within 6 points (about 60 %)" in text
    assert "70.0 [" in text  # clean accuracy is known


@pytest.mark.parametrize(
    ("given", "seconds"), [("20 min", 1200), ("2 h", 7200), ("90s", 90), ("1.5 hours", 5400), ("20 MIN", 1200)]
)
def test_lengths_of_time(given: str, seconds: float) -> None:
    assert Request.create(budget=given).budget == seconds


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "name one budget"),
        ({"budget": "1 h", "cost": 0.3}, "name one budget"),
        *(({"budget": text}, "no length of time") for text in ("20", "", "soon", "-3 min", "0 s", "nan", "1e300 days")),
        ({"cost": 0}, "greater than 0"),
        ({"cost": "much"}, "not a number"),
        ({"cost": 0.3, "wrong_labels": 40}, "less than 1"),
    ],
)
def test_what_is_no_budget_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Request.create(**given)
    assert "\n" not in str(caught.value)
