"""`RunConfig`: names, ranges, what follows from what, keys, and checks against the data."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from advprune_core.base.settings import ConfigError, Settings
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Dataset
from advprune_core.objectives.starts import CleanStart
from advprune_core.objectives.steps import FixedSteps
from advprune_core.pruners.random import Full, Random, Redraw
from advprune_core.trainers.config import RunConfig, check_selected, flat_fields
from advprune_core.trainers.schedules import OneCycle, Piecewise
from tests.alternatives import RUN_OPTIONS

PRUNED = RunConfig(pruner="random", fraction=0.8, device="cpu")


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, False)


def leaf(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def test_the_table_has_every_field() -> None:
    assert set(RUN_OPTIONS) == set(flat_fields()), "give the new field another value in tests/alternatives.py"


@pytest.mark.parametrize("name", RUN_OPTIONS)
def test_every_flat_name_sets_its_field(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, True)
    pruned = {} if name in ("warm_start", "equal_cost") else {"pruner": "random", "fraction": 0.8}  # they carry it out
    config = RunConfig.flat(**{**pruned, name: RUN_OPTIONS[name]})
    path = flat_fields()[name]
    assert leaf(config, path) != leaf(PRUNED, path)
    dumped: Any = config.model_dump(mode="json")
    for part in path.split("."):
        dumped = dumped[part]
    assert dumped == {"eps": 1 / 16}.get(name, RUN_OPTIONS[name])


def test_flat_names_are_unique_over_the_groups() -> None:
    groups = [name for name in RunConfig.model_fields if isinstance(getattr(PRUNED, name), Settings)]
    plain = [n for n in groups if not hasattr(getattr(PRUNED, n), "spec")]
    assert plain == ["attack", "optimisation"]
    leaves = [n for n in RunConfig.model_fields if n not in plain]
    leaves += [field for group in plain for field in type(getattr(PRUNED, group)).model_fields]
    assert [name for name, count in Counter([*leaves, "trainer"]).items() if count > 1] == []
    assert set(leaves) == set(flat_fields())


BAD = [
    ({"epoch": 3}, "unknown parameter 'epoch' (did you mean 'epochs'?)"),
    ({"fractoin": 0.5}, "did you mean 'fraction'"),
    ({"pruner": "randm"}, "did you mean 'random'"),
    ({"dataset": "digit"}, "did you mean 'digits'"),
    ({"model": "smallcnn"}, "did you mean 'small_cnn'"),
    ({"trainer": "pgd-at"}, "did you mean 'pgd_at'"),
    ({"objective": "standrd"}, "did you mean 'standard'"),
    ({"schedule": "onecycle"}, "did you mean 'one_cycle'"),
    ({"start": "randon"}, "did you mean 'random'"),
    ({"steps": "fixd"}, "did you mean 'fixed'"),
    ({"pruner": {"random": {"balancd": True}}, "fraction": 0.5}, "did you mean 'balanced'"),
    ({"fraction": 0}, "fraction = 0"),
    ({"fraction": -0.2}, "fraction = -0.2"),
    ({"fraction": 1.2, "pruner": "random"}, "fraction = 1.2"),
    ({"fraction": float("nan")}, "fraction"),
    ({"fraction": 0.5}, "'full', which keeps everything"),
    ({"steps": 0}, "steps"),
    ({"steps": True}, "steps"),
    ({"steps": 2.5}, "steps"),
    ({"eps": 0}, "eps"),
    ({"eps": "8/0"}, "8/0"),
    ({"norm": "linfinity"}, "'linfinity' (did you mean 'linf'?)"),
    ({"epochs": 0}, "epochs"),
    ({"batch_size": 0}, "batch_size"),
    ({"lr": 0}, "lr"),
    ({"momentum": 1}, "momentum"),
    ({"ema": 1}, "ema"),
    ({"cost_budget": 0}, "cost_budget"),
    ({"cost_budget": 2.5}, "cost_budget"),
    ({"seed": -1}, "seed"),
    ({"threads": 0}, "threads"),
    ({"device": "tpu"}, "'auto', 'cpu' or 'cuda'"),
    ({"precision": "float16"}, "'float32' or 'bfloat16'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.flat(**options)
    assert message in str(caught.value)


RESOLVED = [
    ("attack.eps", {}, 2 / 16),
    ("attack.eps", {"norm": "l2"}, 0.5),
    ("attack.eps", {"dataset": "cifar10"}, 8 / 255),
    ("attack.eps", {"dataset": "fashion_mnist"}, 0.1),
    ("attack.eps", {"eps": "3/16"}, 3 / 16),
    ("device", {"device": "auto"}, "cpu"),
    ("pruner", {"pruner": "random", "fraction": 1}, Full()),
    ("pruner", {"pruner": {"redraw": {"warmup_epochs": 2}}}, Full()),
    ("pruner", {"pruner": {"random": {"balanced": True}}, "fraction": 0.4}, Random(balanced=True)),
    ("attack.steps", {"steps": 3}, FixedSteps(count=3)),
    ("attack.steps", {"trainer": "pgd_at", "steps": 2}, FixedSteps(count=2)),
    ("attack.start", {"trainer": "pgd_at", "start": "clean"}, CleanStart()),
    ("objective.name", {"trainer": "standard"}, "standard"),
    ("objective.name", {"trainer": "standard", "objective": "pgd_at"}, "pgd_at"),
    ("objective.name", {"trainer": None}, "pgd_at"),
]


@pytest.mark.parametrize(("path", "options", "expected"), RESOLVED)
def test_what_follows_from_the_rest(path: str, options: dict[str, Any], expected: Any) -> None:
    assert leaf(RunConfig.flat(**options), path) == expected


SET = [
    ({"pruner.balanced": True}, "pruner", Random(balanced=True)),
    ({"pruner.warmup_epochs": 2, "pruner.balanced": True}, "pruner", Random(balanced=True, warmup_epochs=2)),
    ({"pruner": {"redraw": {"every": 2}}}, "pruner", Redraw(every=2)),
    ({"optimisation.ema": 0.99}, "optimisation.ema", 0.99),
    ({"optimisation.schedule": "piecewise"}, "optimisation.schedule", Piecewise()),
    ({"optimisation.schedule.peak_at": 0.5}, "optimisation.schedule", OneCycle(peak_at=0.5)),
    ({"model.width": 8}, "model.width", 8),
    ({"dataset.limit": 500}, "dataset.limit", 500),
    ({"seed": 3}, "seed", 3),
    ({"attack.eps": "1/16"}, "attack.eps", 1 / 16),
    ({"attack.steps": 3}, "attack.steps", FixedSteps(count=3)),
    ({"attack.steps.step_size": 0.02}, "attack.steps", FixedSteps(step_size=0.02)),
    ({"attack.steps.count": 3}, "attack.steps", FixedSteps(count=3)),
    ({"attack.norm": "l2"}, "attack.eps", 0.5),
    ({"trainer": "standard"}, "objective.name", "standard"),
]


@pytest.mark.parametrize(("settings", "path", "expected"), SET)
def test_dotted_settings(settings: dict[str, Any], path: str, expected: Any) -> None:
    assert leaf(PRUNED.with_settings(settings), path) == expected


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("optimization.ema", "did you mean 'optimisation'"),
        ("optimisation.emma", "did you mean 'ema'"),
        ("pruner.balancd", "did you mean 'balanced'"),
        ("modle", "did you mean 'model'"),
        ("attack.steps.cuont", "did you mean 'count'"),
        ("seed.x", "seed"),
        ("pruner.balanced.x", "balanced"),
        ("", "unknown"),
    ],
)
def test_unknown_paths_are_errors(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PRUNED.with_settings({path: 0.5})


@pytest.mark.parametrize("name", ["nothing", *RUN_OPTIONS])
def test_configs_survive_json(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, True)
    options = {"pruner": "random", "fraction": 0.8} | ({} if name == "nothing" else {name: RUN_OPTIONS[name]})
    config = RunConfig.flat(**options)
    assert RunConfig.create(**json.loads(json.dumps(config.model_dump(mode="json")))) == config


def rare(n: int = 100, alone: int = 1) -> Dataset:
    """Two common classes and one of `alone` images; nothing is held out."""
    x = np.linspace(0, 1, n * 16, dtype=np.float32).reshape(n, 4, 4)
    y = np.where(np.arange(n) < alone, 2, np.arange(n) % 2)
    return dataset_from_arrays(x, y, x, y, val_select=0, val_stop=0)


CHECKS = [
    ({"batch_size": 10}, None),
    ({"pruner": "random", "fraction": 0.05, "batch_size": 10}, "5 of 100 images: not one full batch of 10.*0.100"),
    ({"batch_size": 101}, "100 of 100 images: not one full batch"),
    (
        {"pruner": "random", "fraction": 0.02, "batch_size": 2},
        "keeps 2 of 100.* leave class 2 .1 images",
    ),
    ({"batch_size": 50, "epochs": 0.4}, "0.4 epochs of 100 images are not one batch of 50"),
    ({"batch_size": 50, "epochs": 0.5}, None),
    # An image of PGD-7 costs 17: 510 pay for 30 images, of which a batch of 50 is not one.
    ({"batch_size": 50, "cost_budget": 510}, "cost_budget = 510 does not pay for one batch: 50 .* about 850"),
    ({"batch_size": 50, "cost_budget": 850}, None),
    ({"batch_size": 10, "cost_budget": 8000, "pruner": "infobatch", "fraction": 0.5}, "'infobatch'.*number of epochs"),
    # 4 epochs of 100 images cost 6,800; the selection is due after 5.
    (
        {"batch_size": 10, "cost_budget": 6800, "pruner": {"random": {"warmup_epochs": 5}}, "fraction": 0.5},
        "would not select in 4 epochs",
    ),
    (
        {"batch_size": 10, "cost_budget": 1500, "pruner": {"keep_hard": {"score_epochs": 1}}, "fraction": 0.5},
        "after 1 score_epochs",
    ),
    ({"batch_size": 10, "best_every": 1}, "best_every needs val_stop"),
    (
        {"pruner": {"random": {"balanced": True}}, "fraction": 0.3, "batch_size": 10},
        "leave class 2 .*about 1;",
    ),
    ({"pruner": {"random": {"balanced": True}}, "fraction": 0.6, "batch_size": 10}, None),
    (
        {"pruner": "random", "fraction": 0.3, "batch_size": 10, "seed": "unlucky"},
        "leave class 2 .1 images",
    ),
    ({"pruner": "random", "fraction": 0.3, "batch_size": 10, "seed": "lucky"}, None),
    (
        {"pruner": {"random": {"balanced": True, "warmup_epochs": 2}}, "fraction": 0.3, "batch_size": 10},
        "leave class 2 .*about 1;",
    ),
]


def test_what_the_machine_lacks_is_refused_when_a_run_starts_not_when_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_gpu(monkeypatch, True)
    elsewhere = RunConfig.flat(device="cuda", batch_size=10)
    pretend_gpu(monkeypatch, False)
    assert RunConfig.create(**json.loads(elsewhere.model_dump_json())) == elsewhere
    with pytest.raises(ConfigError, match="there is no GPU"):
        elsewhere.check(rare())
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    RunConfig.flat(threads=8, batch_size=10).check(rare())
    with pytest.raises(ConfigError, match="threads = 9, but this machine has 2 cores: at most 8"):
        RunConfig.flat(threads=9, batch_size=10).check(rare())


def seed_for(word: str) -> int:
    """A seed whose draw has the rare image, or has not."""
    from advprune_core.pruners import Context

    dataset = rare()
    drawn = [Random().select(Context(dataset=dataset, fraction=0.3, seed=seed)).indices for seed in range(20)]
    return next(seed for seed, indices in enumerate(drawn) if (0 in indices) == (word == "lucky"))


@pytest.mark.parametrize(("options", "message"), CHECKS)
def test_checks_against_the_data(options: dict[str, Any], message: str | None) -> None:
    if isinstance(options.get("seed"), str):
        options = {**options, "seed": seed_for(options["seed"])}
    config = RunConfig.flat(**options)
    if message is None:
        config.check(rare())
    else:
        with pytest.raises(ConfigError, match=message):
            config.check(rare())


def test_a_batch_larger_than_the_data_is_all_of_them() -> None:
    """With a warning; and it is another run than that of the batch that was asked for."""
    asked, dataset = RunConfig.flat(batch_size=101), rare()
    with pytest.warns(UserWarning, match="batch_size = 101, but there are only 100 training images"):
        config = asked.fitted(dataset)
    assert config == RunConfig.flat(batch_size=100)
    assert config.train_key(dataset) != asked.train_key(dataset)
    config.check(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert config.fitted(dataset) is config


def test_classes_without_training_images_are_no_loss() -> None:
    x = np.linspace(0, 1, 160, dtype=np.float32).reshape(10, 4, 4)
    y = np.arange(10) % 2 * 2
    dataset = dataset_from_arrays(x, y, x, y, val_select=0, val_stop=0)
    assert dataset.classes == 3
    check_selected([0, 1], dataset, fraction=0.2)
    with pytest.raises(ConfigError, match=r"leave class 2 .5 images. without any"):
        check_selected([0, 2], dataset, fraction=0.2)


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({}, 30 * 1100 * 17),
        ({"pruner": "random", "fraction": 0.4}, 30 * 440 * 17),
        ({"trainer": "standard", "epochs": 2.5}, 2.5 * 1100 * 3),
        ({"steps": 2, "epochs": 1}, 1100 * 7),
    ],
)
def test_the_expected_cost(options: dict[str, Any], passes: float) -> None:
    assert RunConfig.flat(**options).passes(1100) == pytest.approx(passes)


def test_what_a_run_with_a_budget_is_expected_to_cost() -> None:
    config = RunConfig.flat(epochs=2, cost_budget=20_000)
    assert config.passes(1000) == 20_000  # 2 epochs of 1,000 images of 17 would be 34,000
    assert config.passes(100) == 3400


@pytest.mark.parametrize(
    ("options", "rows", "share"),
    [
        ({"epochs": 4}, [], 0),
        ({"epochs": 4}, [{}] * 3, 0.75),
        ({"epochs": 2.5}, [{}] * 3, 1),
        ({"epochs": 40, "cost_budget": 1000}, [], 0),
        ({"epochs": 40, "cost_budget": 1000}, [{"cost": 100}, {"cost": 600}], 0.6),
        ({"epochs": 40, "cost_budget": 1000}, [{"cost": 1003}], 1),
    ],
)
def test_how_far_a_run_is(options: dict[str, Any], rows: list[dict[str, Any]], share: float) -> None:
    assert RunConfig.flat(**options).share(rows) == share
