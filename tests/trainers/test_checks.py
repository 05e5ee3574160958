"""What is refused before any work: by the data, by this machine."""

from __future__ import annotations

import itertools
import json
import os
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import dataset_from_arrays
from advprune_core.datasets.splits import Dataset
from advprune_core.pruners.base import Context
from advprune_core.pruners.random import Random
from advprune_core.pruners.selection import check_selected
from advprune_core.study.grid import check_entries, grid
from advprune_core.trainers.checks import check_machine, check_run, fitted
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from tests.tiny import tiny_run


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
    # 2 plain epochs cost 600, and a batch of attacked images 170.
    ({"batch_size": 10, "cost_budget": 760, "plain_epochs": 2}, "does not pay for one batch.*after 2 plain_epochs"),
    ({"batch_size": 10, "cost_budget": 770, "plain_epochs": 2}, None),
    (
        {"batch_size": 10, "cost_budget": 470, "plain_epochs": 2, "pruner": "random", "fraction": 0.5, "seed": "lucky"},
        None,
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
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    elsewhere = RunConfig.flat(device="cuda", batch_size=10)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert RunConfig.create(**json.loads(elsewhere.model_dump_json())) == elsewhere
    with pytest.raises(ConfigError, match="there is no GPU"):
        check_run(elsewhere, rare())
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    check_run(RunConfig.flat(threads=8, batch_size=10), rare())
    with pytest.raises(ConfigError, match="threads = 9, but this machine has 2 cores: at most 8"):
        check_run(RunConfig.flat(threads=9, batch_size=10), rare())


def seed_for(word: str) -> int:
    """A seed whose draw has the rare image, or has not."""
    dataset = rare()
    drawn = [Random().select(Context(dataset=dataset, fraction=0.3, seed=seed)).indices for seed in range(20)]
    return next(seed for seed, indices in enumerate(drawn) if (0 in indices) == (word == "lucky"))


@pytest.mark.parametrize(("options", "message"), CHECKS)
def test_checks_against_the_data(options: dict[str, Any], message: str | None) -> None:
    if isinstance(options.get("seed"), str):
        options = {**options, "seed": seed_for(options["seed"])}
    config = RunConfig.flat(**options)
    if message is None:
        check_run(config, rare())
    else:
        with pytest.raises(ConfigError, match=message):
            check_run(config, rare())


def test_a_batch_larger_than_the_data_is_all_of_them() -> None:
    """With a warning; and it is another run than that of the batch that was asked for."""
    asked, dataset = RunConfig.flat(batch_size=101), rare()
    with pytest.warns(UserWarning, match="batch_size = 101, but there are only 100 training images"):
        config = fitted(asked, dataset)
    assert config == RunConfig.flat(batch_size=100)
    assert config.train_key(dataset) != asked.train_key(dataset)
    check_run(config, dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fitted(config, dataset) is config


def test_classes_without_training_images_are_no_loss() -> None:
    x = np.linspace(0, 1, 160, dtype=np.float32).reshape(10, 4, 4)
    y = np.arange(10) % 2 * 2
    dataset = dataset_from_arrays(x, y, x, y, val_select=0, val_stop=0)
    assert dataset.classes == 3
    check_selected([0, 1], dataset, fraction=0.2)
    with pytest.raises(ConfigError, match=r"leave class 2 .5 images. without any"):
        check_selected([0, 2], dataset, fraction=0.2)


class NoHead(torch.nn.Module):
    """Its logits are no output of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(1, 10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).mean((2, 3))


@pytest.mark.parametrize("pruner", ["glister", "grad_match", "herding", "d2", {"score": {"score": "grand"}}], ids=str)
def test_a_network_without_the_layer_that_is_looked_at_is_refused_before_work(pruner: Any, digits: Dataset) -> None:
    """It showed after the warm-up."""
    config, epochs = tiny_run(pruner=pruner, fraction=0.5, epochs=20), list[Any]()
    with pytest.raises(ConfigError, match="so there is no last layer"):
        train(config, digits, model=NoHead(), on_epoch=epochs.append)
    assert not epochs
    named = config.with_settings({"pruner.head": "nowhere"})
    with pytest.raises(ConfigError, match="head = 'nowhere'"):
        check_entries(grid(named, pruners=[named.pruner], fractions=[0.5], seeds=[0]))


@pytest.mark.parametrize("pruner", ["keep_hard", {"score": {"score": "entropy"}}], ids=str)
def test_what_looks_at_logits_trains_any_network(pruner: Any, digits: Dataset) -> None:
    config = tiny_run(pruner=pruner, fraction=0.5, epochs=2)
    assert train(config, digits, model=NoHead()).status == "ok"


@pytest.mark.parametrize("pruner", ["dual", "tdds", "dynamic_uncertainty"])
@pytest.mark.parametrize("name", ["warmup_epochs", "score_epochs"])
def test_a_window_that_most_images_miss_the_end_of_is_refused_before_work(pruner: str, name: str) -> None:
    """After the warm-up it was too late to say so."""
    x, y = np.random.default_rng(0).random((254, 4, 4), np.float32), np.arange(254) % 2
    dataset = dataset_from_arrays(x, y, x, y, val_select=0, val_stop=0)
    for epochs, size in itertools.product((3, 4, 5), (150, 170, 190, 230)):
        settings = {name: epochs, "window": min(epochs, 4)}
        config = tiny_run(pruner={pruner: settings}, fraction=0.95, epochs=6, batch_size=size, objective="standard")
        waiting = epochs * 254 % size
        done = list[Any]()
        if epochs <= 4 and waiting > 127:
            with pytest.raises(ConfigError, match=f"{pruner} needs a window .* {waiting} of 254 .*pruner.{name} by 1"):
                train(config, dataset, on_epoch=done.append)
            assert not done
        else:
            assert train(config, dataset).status == "ok"


@pytest.mark.parametrize(
    ("units", "precision", "told"),
    [
        ("AVX2", "bfloat16", True),
        ("NO AVX", "bfloat16", True),
        ("AVX512", "bfloat16", False),
        ("SVE256", "bfloat16", False),
        ("DEFAULT", "bfloat16", False),
        ("AVX2", "float32", False),
    ],
)
def test_a_processor_that_emulates_bfloat16_is_told_before_work(
    units: str, precision: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: units)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_machine(RunConfig.flat(precision=precision, device="cpu"))
    assert any("PyTorch emulates it" in str(warning.message) for warning in caught) == told
