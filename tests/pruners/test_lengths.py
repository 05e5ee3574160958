"""Runs whose length follows from their fraction."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import load_dataset
from advprune_core.pruners import Context, Selection
from advprune_core.pruners.base import Pruner, ScheduledPruner
from advprune_core.pruners.lengths import warm_start
from advprune_core.pruners.random import Full, Random
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from tests.tiny import tiny_run


@pytest.mark.parametrize(
    ("epochs", "fraction", "kappa", "full"),
    [(300, 0.1, 0.5, 15), (30, 0.4, 0.5, 6), (15, 0.3, 0.5, 2), (15, 0.2, 0.5, 1), (15, 0.2, 0.01, 1)],
)
def test_a_warm_start_costs_the_fraction(epochs: int, fraction: float, kappa: float, full: int) -> None:
    first, length = warm_start(epochs, fraction, kappa)
    assert first == full
    assert first + (length - first) * fraction == pytest.approx(fraction * epochs, abs=1e-5)


def test_a_run_with_a_warm_start_is_the_run_of_its_schedule() -> None:
    config = tiny_run(pruner="random", fraction=0.4, epochs=10, warm_start=0.5)
    assert config == tiny_run(pruner={"random": {"warmup_epochs": 2}}, fraction=0.4, epochs=7)
    dataset = load_dataset(config.dataset)
    result = train(config, dataset)
    n = len(dataset.train)
    assert [row["kept"] for row in result.metrics] == [n] * 2 + [round(0.4 * n)] * 5
    full = train(tiny_run(epochs=10), dataset)
    assert result.ledger["passes"]["train"] == pytest.approx(0.4 * full.ledger["passes"]["train"], rel=0.01)


def test_a_grid_takes_it_from_the_way_on_all_data() -> None:
    way = tiny_run(epochs=10, warm_start=0.5)
    assert way.pruner == Full()
    dataset = load_dataset(way.dataset)
    assert way.train_key(dataset) == tiny_run(epochs=10).train_key(dataset), "all data is all data"
    pruned = way.replace(pruner="random", fraction=0.4)
    assert pruned.pruner == Random(warmup_epochs=2)
    assert pruned.replace(seed=3).optimisation.epochs == 7, "once"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruner": {"random": {"warmup_epochs": 1}}}, "without warmup_epochs"),
        ({"pruner": {"score": {"score_epochs": 2}}}, "or score_epochs of its own"),
        ({"pruner": "infobatch"}, "one that can"),
        ({"pruner": "random", "epochs": 2}, "needs an epoch on all data, and fraction 0.4 of 2 epochs is 0.8"),
        ({"pruner": "random", "plain_epochs": 1}, "plain_epochs = 1 cost less .* set one of them to 0"),
        ({"pruner": "random", "schedule_span": "full_run"}, "the length differs"),
        ({"pruner": "random", "equal_cost": True}, "give one of them"),
    ],
    ids=str,
)
def test_what_cannot_be_warm_started(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.flat(**{"fraction": 0.4, "epochs": 10, "warm_start": 0.5, **options})


@pytest.mark.parametrize(
    ("pruner", "epochs", "expected"),
    [
        ("random", 4, 10.0),
        ({"random": {"warmup_epochs": 2}}, 4, 7.0),
        ({"random": {"warmup_epochs": 2}}, 2.5, 3.25),
        ({"score": {"score_epochs": 3}}, 4, 10.0),
    ],
)
def test_a_run_of_equal_cost_goes_on_for_longer(pruner: Any, epochs: float, expected: float) -> None:
    config = tiny_run(pruner=pruner, fraction=0.4, epochs=epochs, equal_cost=True)
    assert config == tiny_run(pruner=pruner, fraction=0.4, epochs=expected)
    assert config.replace(seed=1).optimisation.epochs == expected, "once"


def test_a_run_of_equal_cost_costs_what_all_data_cost() -> None:
    way = tiny_run(epochs=4, equal_cost=True)
    dataset = load_dataset(way.dataset)
    assert way.train_key(dataset) == tiny_run(epochs=4).train_key(dataset)
    pruned = way.replace(pruner={"random": {"warmup_epochs": 1}}, fraction=0.3)
    costs = [train(config, dataset).ledger["passes"]["train"] for config in (way, pruned)]
    assert abs(costs[0] - costs[1]) <= 16 * 5


class Most(ScheduledPruner):
    """Keeps four of five images, whatever the fraction."""

    name = "most"
    exact = False

    def select(self, context: Context) -> Selection:
        return Selection(np.arange(int(0.8 * context.n)))


class Choosy(Pruner):
    """Takes each update from three times as many images, whatever the fraction."""

    name = "choosy"
    exact = False

    def candidates(self, batch_size: int, fraction: float) -> int:
        return 3 * batch_size

    def select(self, context: Context) -> Selection:
        return Selection(np.arange(context.n))


@pytest.mark.parametrize("fraction", [0.4, 0.9, 1.0])
def test_what_narrows_each_batch_trains_for_the_cost_of_all_data(fraction: float) -> None:
    """Its passes to choose by come on top, as those of any selection."""
    config = tiny_run(pruner="loss_top", fraction=fraction, epochs=4, equal_cost=True)
    dataset = load_dataset(config.dataset)
    costs = [train(run, dataset).ledger["passes"]["train"] for run in (config, tiny_run(epochs=4))]
    assert abs(costs[0] - costs[1]) <= 3 * 16 * 5
    assert config == tiny_run(pruner="loss_top", fraction=fraction, epochs=round(4 / fraction, 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruner": "infobatch", "equal_cost": True}, "'infobatch' keeps depends on its length"),
        ({"pruner": "random", "equal_cost": True, "warm_start": 0.5}, "give one of them"),
        ({"pruner": Most(), "equal_cost": True}, "'most' may keep another share .* or that of each batch"),
        ({"pruner": Most(), "equal_cost": True, "fraction": 1.0}, "'most' may keep another share"),
        ({"pruner": Most(), "warm_start": 0.5}, "'most' may keep another share"),
        ({"pruner": Choosy(), "equal_cost": True}, "'choosy' may keep another share"),
    ],
    ids=str,
)
def test_lengths_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.flat(**{"fraction": 0.4, "epochs": 10, **options})


@pytest.mark.parametrize(("warmup", "refused"), [(0, True), (1, True), (2, False), (3, False)])
def test_plain_epochs_of_a_run_of_equal_cost_are_on_all_data(warmup: int, refused: bool) -> None:
    """On a part they would be paid for as attacked ones."""
    options: dict[str, Any] = {"epochs": 4, "plain_epochs": 2, "equal_cost": True, "fraction": 0.5}
    options["pruner"] = {"random": {"warmup_epochs": warmup}}
    if refused:
        with pytest.raises(ConfigError, match="let a pruner that can wait for as many"):
            tiny_run(**options)
        return
    pruned, full = tiny_run(**options), tiny_run(**options | {"pruner": "full", "fraction": 1.0})
    assert pruned.passes(1000) == pytest.approx(full.passes(1000))
    with pytest.raises(ConfigError, match="the length differs"):
        tiny_run(**options | {"schedule_span": "full_run"})


def test_images_kept_of_each_class_are_those_of_the_pruned_run_made_of_one_on_all_data() -> None:
    """Which needs none: it has them all, and is the same run whatever was asked."""
    whole = tiny_run(min_per_class=5)
    assert (whole, whole.min_per_class) == (tiny_run(), 0)
    pruned = tiny_run(min_per_class=5, pruner="random", fraction=0.5)
    changes: dict[str, Any] = {"pruner": "random", "fraction": 0.5}
    assert whole.replace(**changes) == whole.replace(seed=0).replace(**changes) == pruned
    assert whole.with_settings(changes) == pickle.loads(pickle.dumps(whole)).replace(**changes) == pruned
    longer = whole.optimisation.replace(epochs=9)
    assert whole.replace(**changes, optimisation=longer) == pruned.replace(optimisation=longer)
    assert whole.with_settings({**changes, "optimisation.epochs": 9}) == pruned.replace(optimisation=longer)
    assert pruned.replace(pruner="full", fraction=1.0).replace(**changes) == pruned


#: What was asked for, what is changed then, and what is asked for with the change.
CHANGED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"equal_cost": True}, {"fraction": 0.2}, {"fraction": 0.2}),
    ({"equal_cost": True}, {"pruner": {"random": {"warmup_epochs": 2}}}, {"pruner": {"random": {"warmup_epochs": 2}}}),
    ({"equal_cost": True}, {"pruner": "full", "fraction": 1.0}, {"pruner": "full", "fraction": 1.0}),
    ({"equal_cost": True}, {"seed": 3}, {"seed": 3}),
    ({"equal_cost": True}, {"equal_cost": False}, {"equal_cost": False}),
    ({"warm_start": 0.5}, {"fraction": 0.8}, {"fraction": 0.8}),
    ({"warm_start": 0.5}, {"pruner": "keep_hard"}, {"pruner": "keep_hard"}),
    ({"warm_start": 0.5}, {"seed": 3, "fraction": 0.3}, {"seed": 3, "fraction": 0.3}),
]


@pytest.mark.parametrize(("asked", "changes", "anew"), CHANGED, ids=str)
def test_a_length_that_followed_from_the_fraction_follows_from_another(
    asked: dict[str, Any], changes: dict[str, Any], anew: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"pruner": "random", "fraction": 0.5, "epochs": 10, **asked}
    config, expected = tiny_run(**options), tiny_run(**options | anew)
    assert config.replace(**changes) == expected
    assert config.with_settings(changes) == expected
    assert pickle.loads(pickle.dumps(config)).replace(**changes) == expected
    assert config.replace(device="cpu").replace(**changes) == expected, "whatever else was changed before"


@pytest.mark.parametrize("asked", [{"equal_cost": True}, {"warm_start": 0.5}], ids=str)
def test_settings_that_a_length_does_not_follow_from_leave_it(asked: dict[str, Any]) -> None:
    options: dict[str, Any] = {"pruner": "random", "fraction": 0.5, "epochs": 10, **asked}
    config, balanced = tiny_run(**options), {"random": {"balanced": True}}
    expected = tiny_run(**options | {"pruner": balanced, "lr": 0.05})
    changes = {"pruner.balanced": True, "optimisation.lr": 0.05}
    assert config.with_settings(changes) == expected
    assert config.with_settings(changes | {"fraction": 0.8}) == tiny_run(
        **options | {"pruner": balanced, "lr": 0.05, "fraction": 0.8}
    )
    assert (
        config.replace(pruner=config.pruner.replace(balanced=True)).with_settings({"optimisation.lr": 0.05}) == expected
    )


@pytest.mark.parametrize("asked", [{"equal_cost": True}, {"warm_start": 0.5}], ids=str)
def test_who_gives_epochs_gives_the_length(asked: dict[str, Any]) -> None:
    config = tiny_run(pruner="random", fraction=0.5, epochs=10, **asked)
    longer = config.optimisation.replace(epochs=9)
    assert config.replace(fraction=0.2, optimisation=longer).optimisation == longer
    assert config.with_settings({"fraction": 0.2, "optimisation.epochs": 9}).optimisation == longer
    assert config.with_settings({"optimisation": longer}).optimisation == longer


@pytest.mark.parametrize("asked", [{"equal_cost": True}, {"warm_start": 0.5}], ids=str)
def test_what_was_asked_for_is_no_part_of_a_run(asked: dict[str, Any]) -> None:
    config = tiny_run(pruner="random", fraction=0.5, epochs=10, **asked)
    given = tiny_run(pruner=config.pruner, fraction=0.5, epochs=config.optimisation.epochs)
    dataset = load_dataset(config.dataset)
    for run in (config, pickle.loads(pickle.dumps(config)), RunConfig.create(**config.model_dump(mode="json"))):
        assert run == given
        assert hash(run) == hash(given)
        assert repr(run) == repr(given)
        assert run.model_dump() == given.model_dump()
        assert run.model_dump_json() == given.model_dump_json()
        assert run.train_key(dataset) == given.train_key(dataset)
