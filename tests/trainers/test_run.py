"""Parts of one's own in a run: what they are shown, and what they may give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advprune_core.datasets.base import dataset_from_arrays, load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.objectives.batch import Batch
from advprune_core.pruners.base import Context, ModelPruner
from advprune_core.pruners.selection import Selection
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train
from advprune_core.trainers.result import TrainResult
from tests.tiny import tiny_run


def data(config: RunConfig) -> Dataset:
    return load_dataset(config.dataset)


def with_batch_norm() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten())
        return nn.Sequential(*layers, nn.Linear(144, 10))


class Looking(ModelPruner):
    """Keeps the first images; passes some through the network, and differentiates, where it is told to."""

    name = "looking"
    exact = False
    place: str = "nowhere"
    narrows: bool = False

    def look(self, place: str, model: nn.Module, x: Tensor, y: Tensor) -> None:
        if place == self.place:
            assert not any(module.training for module in model.modules())
            loss = F.cross_entropy(model(x), y)
            assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss, [*model.parameters()][-2:]))

    def check_model(self, model: nn.Module, images: Tensor) -> None:
        self.look("check_model", model, images, torch.zeros(2, dtype=torch.int64))

    def choose(self, context: Context) -> Selection:
        train = context.dataset.train
        self.look("choose", context.network, train.pixels(slice(None)), train.labels)
        return Selection(np.arange(context.k))

    def candidates(self, batch_size: int, fraction: float) -> int:
        return 2 * batch_size if self.narrows else batch_size

    def narrow(self, model: nn.Module, batch: Batch, size: int) -> Batch:
        self.look("narrow", model, batch.x, batch.y)
        parts = (batch.x, batch.y, batch.ids, batch.epochs, batch.weights)
        return Batch(*(part[:size] for part in parts))


@pytest.mark.parametrize("place", ["check_model", "choose", "narrow"])
def test_a_pruner_that_looks_at_the_network_leaves_it_as_it_was(place: str) -> None:
    """BatchNorm's statistics, modes and random numbers are those of a run whose pruner never looks."""

    def trained(place: str) -> TrainResult:
        pruner = Looking(place=place, narrows=True)
        config = tiny_run(pruner=pruner, fraction=0.5, epochs=2)
        return train(config, data(config), model=with_batch_norm())

    looked, never = trained(place), trained("nowhere")
    assert looked.metrics == never.metrics
    assert all(torch.equal(looked.last[name], value) for name, value in never.last.items())


@pytest.mark.parametrize("limit", [None, 200])
@pytest.mark.parametrize("spec", [{}, {"pruner": {"random": {"warmup_epochs": 1}}, "fraction": 0.4}], ids=str)
def test_what_was_kept_is_known_in_ones_own_arrays(spec: dict[str, Any], limit: int | None) -> None:
    """Each image of the arrays is grey of a shade of its own, by which it is known again."""
    n = 256
    x, y = np.arange(n, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2), np.arange(n) % 10
    dataset = dataset_from_arrays(x, y, x, y, limit=limit)
    result = train(tiny_run(eps=0.01, **spec), dataset)
    selection = result.last_selection
    kept = np.arange(len(dataset.train)) if selection is None else selection.indices
    shades = dataset.train.images[kept].flatten(1).numpy()
    assert np.array_equal(shades, x[result.rows].reshape(len(kept), -1))
    assert np.array_equal(dataset.train.labels[kept].numpy(), y[result.rows])
    assert result.rows.dtype == np.int64


def test_a_result_knows_its_cost() -> None:
    """PGD-1 on 254 images for an epoch in batches of 16, after one choice by clean and attacked outputs."""
    config = tiny_run(pruner={"grad_match": {"warmup_epochs": 1}}, fraction=0.5, epochs=2, best_every=1)
    result = train(config, data(config))
    assert result.cost == result.steps * 16 * 5 + 254 * 3
