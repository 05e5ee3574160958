"""Parts of one's own in a run: what they are shown, and what they may give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.base import dataset_from_arrays, load_dataset
from advprune_core.datasets.splits import Dataset
from advprune_core.objectives.base import Objective, Outputs, Update
from advprune_core.objectives.batch import Batch
from advprune_core.objectives.policy import BoundAttack
from advprune_core.pruners.base import Context, ModelPruner, Pruner
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
    result = train(tiny_run(dataset="digits", eps=0.01, **spec), dataset)
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


class Shaped(Objective):
    """Cross-entropy in the shape that is asked for, or a step that is none."""

    name = "shaped"
    way: str = "right"

    def per_sample(self, clean: Tensor | None, adversarial: Tensor | None, y: Tensor) -> Any:
        losses = self.cross_entropy(adversarial, y)
        ways = {
            "column": losses[:, None],
            "mean": losses.mean(),
            "number": float(losses.mean()),
            "cut": losses.detach(),
        }
        return ways.get(self.way, losses)

    def step(self, model: nn.Module, batch: Batch, attack: BoundAttack, update: Update) -> Any:
        if self.way == "no update":
            return Outputs(torch.zeros(len(batch.x)), model(batch.x).detach())
        outputs = super().step(model, batch, attack, update)
        ways = {
            "pair": (outputs.losses, outputs.logits),
            "one loss": Outputs(outputs.losses.mean(), outputs.logits),
            "classes": Outputs(outputs.losses, outputs.logits.argmax(1)),
            "all": Outputs(outputs.losses, outputs.logits, torch.tensor(True)),
        }
        return ways.get(self.way, outputs)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("column", r"the losses of 16 images are of shape \(16, 1\): one loss per image .*reduction='none'"),
        ("mean", r"are of shape \(\): one loss per image"),
        ("number", "are a float: one loss per image"),
        ("cut", "have no gradient"),
        ("no update", "'shaped' took a step that never calls update"),
        ("pair", "returned a tuple where Outputs are wanted"),
        ("one loss", r"losses of shape \(\), not \(B\), B = 16"),
        ("classes", r"logits of shape \(16,\), not \(B, classes\)"),
        ("all", r"attacked of shape \(\), not \(B\)"),
    ],
)
@pytest.mark.parametrize("awp", [0.0, 0.01])
def test_losses_and_steps_of_ones_own_are_checked(way: str, message: str, awp: float) -> None:
    config = tiny_run(objective=Shaped(way=way), awp=awp)
    with pytest.raises(ConfigError, match=message):
        train(config, data(config))


def test_an_objective_of_ones_own_of_the_right_shape_is_that_of_the_package() -> None:
    ours, own = (train(config, data(config)) for config in (tiny_run(), tiny_run(objective=Shaped())))
    assert all(torch.equal(own.last[name], value) for name, value in ours.last.items())


class Greedy(Looking):
    """Leaves more images of a batch than it may."""

    name = "greedy"

    def narrow(self, model: nn.Module, batch: Batch, size: int) -> Batch:
        return batch


def test_a_batch_is_narrowed_to_its_size() -> None:
    config = tiny_run(pruner=Greedy(narrows=True), fraction=0.5)
    with pytest.raises(ConfigError, match=r"'greedy' returned 32 images with \(32,\) ids .* not 16"):
        train(config, data(config))


class Hasty(Pruner):
    """Asks for the network, and does not say so."""

    name = "hasty"

    def select(self, context: Context) -> Selection:
        return Selection(np.arange(len(context.network.state_dict())))


def test_a_pruner_that_needs_a_network_has_to_say_so() -> None:
    config = tiny_run(pruner=Hasty(), fraction=0.5)
    with pytest.raises(ConfigError, match=r"there is none before training: .* says uses_model = True"):
        train(config, data(config))


@pytest.mark.parametrize(
    ("options", "trains", "message"),
    [
        ({}, lambda name: False, "no weight to train: all are frozen"),
        ({"awp": 0.01}, lambda name: name.endswith("bias"), "awp moves weight matrices"),
        ({}, lambda name: name.endswith("bias"), None),
    ],
)
def test_a_network_without_a_weight_to_train_is_refused(
    options: dict[str, Any], trains: Any, message: str | None
) -> None:
    model, config = with_batch_norm(), tiny_run(epochs=1, **options)
    for name, weight in model.named_parameters():
        weight.requires_grad_(trains(name))
    if message is None:
        before = model[0].weight.clone()
        train(config, data(config), model=model)
        assert torch.equal(model[0].weight, before)
    else:
        with pytest.raises(ConfigError, match=message):
            train(config, data(config), model=model)
